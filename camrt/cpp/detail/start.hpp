/// Start Python from a virtual environment, after looking whether that can succeed.

#pragma once

#include <dlfcn.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <system_error>

#include "process.hpp"

namespace camrt::detail {

namespace fs = std::filesystem;

inline constexpr int interface_version = 2;  // of camrt.cpp.host

/// "3.11": the Python whose headers this program was compiled with.
inline std::string compiled_python() {
    return std::to_string(PY_MAJOR_VERSION) + "." + std::to_string(PY_MINOR_VERSION);
}

inline std::string stripped(const std::string& text) {
    const auto first = text.find_first_not_of(" \t\r");
    return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

/// The lines "key = value" of a pyvenv.cfg.
inline std::map<std::string, std::string> read_settings(const fs::path& file) {
    std::map<std::string, std::string> settings;
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
        const auto equals = line.find('=');
        if (equals != std::string::npos) settings[stripped(line.substr(0, equals))] = stripped(line.substr(equals + 1));
    }
    return settings;
}

/// "3.11" of a virtual environment, as its pyvenv.cfg says (`version` by venv, `version_info` by uv and virtualenv).
inline std::string python_version(const std::map<std::string, std::string>& settings) {
    for (const char* key : {"version", "version_info"}) {
        const auto found = settings.find(key);
        if (found == settings.end()) continue;
        const auto minor = found->second.find('.');
        return minor == std::string::npos ? found->second : found->second.substr(0, found->second.find('.', minor + 1));
    }
    return "an unknown version";
}

/// Throw RuntimeError where Python cannot be started from this folder.
inline void check_venv(const fs::path& venv) {
    std::error_code ignored;
    const std::string name = venv.string();
    const std::string make =
        "Make one with: python" + compiled_python() + " -m venv FOLDER, and install camrt into it.";
    if (!fs::is_directory(venv, ignored)) throw RuntimeError(name + ": there is no such folder. " + make);
    if (!fs::is_regular_file(venv / "pyvenv.cfg", ignored) || !fs::exists(venv / "bin" / "python", ignored)) {
        throw RuntimeError(name + " is no virtual environment: pyvenv.cfg or bin/python is missing in it. " + make);
    }
    const auto settings = read_settings(venv / "pyvenv.cfg");
    if (const std::string version = python_version(settings); version != compiled_python()) {
        throw RuntimeError(name + " is of Python " + version + ", and this program was compiled for Python " +
                           compiled_python() + ". " + make + " Or compile the program for the other Python.");
    }
    const auto home = settings.find("home");
    if (home != settings.end() && !fs::is_directory(home->second, ignored)) {
        throw RuntimeError(name + " was made from the Python in " + home->second + ", which is not there any more. " +
                           make);
    }
}

/// Python's configuration, cleared at the end of its life.
struct Configuration {
    PyConfig config;
    Configuration() { PyConfig_InitIsolatedConfig(&config); }
    ~Configuration() { PyConfig_Clear(&config); }
    Configuration(const Configuration&) = delete;
    Configuration& operator=(const Configuration&) = delete;
};

/// Start the interpreter for the venv whose `bin/python` is `program`.  Return why it did not start, or nothing.
///
/// Isolated: it takes neither signals nor arguments, environment variables (PYTHONPATH, PYTHONHOME) nor the user's
/// packages from the host, and does not change its locale; text is UTF-8.
inline std::string start_interpreter(const std::string& program) {
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&before);
    Configuration wanted;
    PyConfig& config = wanted.config;
    config.install_signal_handlers = 0;
    config.parse_argv = 0;
    config.user_site_directory = 0;
    // Python looks for pyvenv.cfg beside the program that it believes to be.
    if (!PyStatus_Exception(status)) status = PyConfig_SetBytesString(&config, &config.program_name, program.c_str());
    if (!PyStatus_Exception(status)) status = PyConfig_SetBytesString(&config, &config.executable, program.c_str());
    if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
    if (!PyStatus_Exception(status)) return "";
    return status.err_msg ? status.err_msg : "no reason was given";
}

/// Let Python's extension modules see Python where the host is a plugin, whose libraries are hidden from others.
inline void show_python() {
    Dl_info python;
    if (!dladdr(reinterpret_cast<void*>(&Py_IsInitialized), &python)) return;
    dlopen(python.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_GLOBAL | RTLD_NODELETE);  // may fail: it is no library then
}

/// Start the interpreter where none is running, and leave its lock free.
inline void ensure_interpreter(const fs::path& venv) {
    const std::lock_guard lock(process().starting);
    if (Py_IsInitialized()) return;
    if (!process().failure.empty()) throw RuntimeError(process().failure);
    check_venv(venv);
    show_python();
    const std::string program = (venv / "bin" / "python").string();
    if (const std::string reason = start_interpreter(program); !reason.empty()) {
        process().failure = venv.string() + ": Python did not start (" + reason + "). Look whether " + program +
                            " works; then start this program again, as a process can try only once.";
        throw RuntimeError(process().failure);
    }
    PyEval_SaveThread();
}

/// Throw RuntimeError where the running interpreter is that of another environment.
inline void check_prefix(const fs::path& venv) {
    const std::string running = to_text(py::module_::import("sys").attr("prefix"));
    std::error_code ignored;
    if (fs::equivalent(running, venv, ignored)) return;
    throw RuntimeError(venv.string() + " was asked for, but this process already runs the Python of " + running +
                       ", and a process has only one. Give the Runtime that folder, or use two processes.");
}

/// Text with every run of white space made one space.
inline std::string one_line(const std::string& text) {
    std::istringstream words(text);
    std::string line;
    for (std::string word; words >> word;) line += (line.empty() ? "" : " ") + word;
    return line;
}

/// Import camrt.cpp.host, and look whether it is the one that this header was written for.
inline py::object import_host(const fs::path& venv) {
    py::object host;
    try {
        host = py::module_::import("camrt.cpp.host");
    } catch (const py::error_already_set& error) {
        const std::string type = to_text(error.type().attr("__name__"));
        const std::string python = (venv / "bin" / "python").string();
        throw RuntimeError(venv.string() + ": camrt cannot be imported there (" + type + ": " +
                           one_line(to_text(py::str(error.value()))) + "). Install what is missing with " + python +
                           " -m pip install, or name another environment.");
    }
    const int found = host.attr("INTERFACE").cast<int>();
    if (found != interface_version) {
        throw RuntimeError(venv.string() + " holds a camrt whose interface for C++ is " + std::to_string(found) +
                           ", and this program was compiled for " + std::to_string(interface_version) +
                           ". Compile it with the camrt.hpp of that environment, or install the camrt that it was "
                           "compiled with.");
    }
    return host;
}

/// Start Python and camrt, or take what runs already.  Return camrt.cpp.host.
inline Object start(const fs::path& given) {
    std::error_code failed;
    const fs::path absolute = fs::absolute(given, failed);
    const fs::path venv = failed ? given : absolute.lexically_normal();
    ensure_interpreter(venv);
    return with_python([&] {
        check_prefix(venv);
        Object host(import_host(venv));
        await_calls_at_exit("import");
        return host;
    });
}

}  // namespace camrt::detail
