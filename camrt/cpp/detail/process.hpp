/// Python in this process: who may call it, with its lock held, and how a process with it ends.
///
/// The interpreter is never finalised: NumPy, OpenCV and ONNX Runtime cannot be loaded twice, and handles may live
/// longer than the Runtime.  When the process exits, calls under way are awaited and later ones refused, because the
/// libraries that they use are being torn down; handles that are destroyed after that leave their memory to the
/// operating system.

#pragma once

#include <pybind11/embed.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "errors.hpp"

#ifdef Py_GIL_DISABLED
#error "camrt.hpp counts on Python's lock: compile for a Python that is not free-threaded."
#endif

namespace camrt::detail {

namespace py = pybind11;

inline constexpr std::chrono::seconds exit_patience{10};  // for calls that are under way when the process exits

struct Process {
    std::atomic<bool> exiting{false};
    std::atomic<int> calls{0};  // under way in all threads
    std::mutex starting;
    std::string failure;             // why Python could not be started: it cannot be tried twice
    std::set<std::string> exercised;  // what was run so far, guarded by Python's lock
};

/// The one of this process.  Never destroyed: handles in statics ask it on their way out.
inline Process& process() {
    static Process* const only = new Process;
    return *only;
}

/// A call into Python, counted as long as it lives; it is not `entered` where there is no Python any more.
class Call {
public:
    Call() {
        ++process().calls;
        entered_ = !process().exiting && Py_IsInitialized();
    }
    ~Call() { --process().calls; }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    bool entered() const { return entered_; }

private:
    bool entered_;
};

/// Python's lock, in any thread, held already or not.
class Gil {
public:
    Gil() : state_(PyGILState_Ensure()) {}
    ~Gil() { PyGILState_Release(state_); }
    Gil(const Gil&) = delete;
    Gil& operator=(const Gil&) = delete;

private:
    PyGILState_STATE state_;
};

/// Refuse new calls and wait for those under way.
inline void before_exit() {
    process().exiting = true;
    if (!Py_IsInitialized()) return;
    PyThreadState* const mine = PyGILState_Check() ? PyEval_SaveThread() : nullptr;
    const auto deadline = std::chrono::steady_clock::now() + exit_patience;
    while (process().calls > 0 && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (mine) PyEval_RestoreThread(mine);
}

/// See to it that calls are awaited before anything is destroyed that was loaded or made until now.
///
/// A process destroys in reverse order, and ONNX Runtime makes some of its statics when they are first needed: so this
/// is called after whatever runs for the first time.  It costs a few bytes that are never given back.
inline void await_calls_at_exit(const std::string& what) {
    if (process().exercised.insert(what).second) std::atexit(before_exit);
}

/// An owned reference to a Python object; the lock is taken to let go of it.
class Object {
public:
    Object() = default;
    explicit Object(py::object given) : pointer_(given.release().ptr()) {}
    Object(Object&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
    Object& operator=(Object&& other) noexcept {
        Object old(std::move(*this));
        pointer_ = std::exchange(other.pointer_, nullptr);
        return *this;
    }
    ~Object() {
        if (!pointer_) return;
        const Call call;
        if (!call.entered()) return;
        const Gil gil;
        Py_DECREF(pointer_);
    }

    /// The object, to be used with the lock held.
    py::handle get() const {
        if (!pointer_) throw RuntimeError("This handle was moved from and holds nothing. Use the one it was moved to.");
        return pointer_;
    }

private:
    PyObject* pointer_ = nullptr;
};

/// Python's text as UTF-8; what is no text (bytes of file names) is escaped.
inline std::string to_text(py::handle text) {
    PyObject* const encoded = PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace");
    if (!encoded) throw py::error_already_set();
    return py::reinterpret_steal<py::bytes>(encoded);
}

/// UTF-8 as Python's text; what is no UTF-8 is escaped.
inline py::object from_text(std::string_view text) {
    const auto size = static_cast<Py_ssize_t>(text.size());
    PyObject* const decoded = PyUnicode_DecodeUTF8(text.data(), size, "backslashreplace");
    if (!decoded) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(decoded);
}

inline py::object from_path(const std::filesystem::path& path) {
    const auto size = static_cast<Py_ssize_t>(path.native().size());
    PyObject* const decoded = PyUnicode_DecodeFSDefaultAndSize(path.c_str(), size);
    if (!decoded) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(decoded);
}

/// Throw a Python error as the C++ class of the same name, with the same text.
[[noreturn]] inline void raise_python(const py::error_already_set& error) {
    std::string name;
    std::string text;
    try {
        const py::tuple told = py::module_::import("camrt.cpp.host").attr("describe")(error.value());
        name = to_text(told[0]);
        text = to_text(told[1]);
    } catch (const py::error_already_set& second) {
        text = second.what();
    }
    raise(name, text);
}

/// Return what `work` returns, called with Python's lock held; its result must not be Python's.
template <class Work>
auto with_python(const Work& work) {
    const Call call;
    if (!call.entered()) {
        throw RuntimeError("Python is gone: the process is exiting. Join the threads that explain before it does.");
    }
    const Gil gil;
    try {
        return work();
    } catch (const py::error_already_set& error) {
        raise_python(error);
    }
}

}  // namespace camrt::detail
