// What tests/test_cpp_host.py and tests/benchmarks/cpp_host.py run: checks MODE VENV ARGUMENT...
//
// Exits 0 where the mode did what it says; prints "CLASS<tab>text" for an error of camrt's and exits 1.

#include <camrt.hpp>

#include <cxxabi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <typeinfo>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;
using Bytes = std::vector<std::uint8_t>;

constexpr int side = 96;  // of the input of the bundle "shapes"
const camrt::LoadOptions on_cpu{.providers = {"cpu"}};

#define REQUIRE(condition) require((condition), #condition, __LINE__)

void require(bool met, const char* condition, int line) {
    if (met) return;
    std::fprintf(stderr, "checks.cpp:%d: %s does not hold\n", line, condition);
    std::_Exit(3);
}

std::string class_name(const std::exception& error) {
    char* const name = abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, nullptr);
    return std::unique_ptr<char, void (*)(void*)>(name, std::free).get();
}

Bytes read_file(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    REQUIRE(in.good());
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

template <class T>
void write_file(const fs::path& file, const T* values, std::size_t count) {
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(values), static_cast<std::streamsize>(count * sizeof(T)));
}

std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, at);) parts.push_back(part);
    return parts;
}

/// A smooth coloured image of network size; `seed` moves it.
Bytes pattern(int seed = 0) {
    Bytes pixels;
    for (int i = 0; i < side * side; ++i) {
        const int y = i / side, x = i % side;
        for (int value : {2 * x + 40 * seed, 2 * y + 9 * seed, 255 - x - y}) {
            pixels.push_back(static_cast<std::uint8_t>(value));
        }
    }
    return pixels;
}

camrt::Image view(const Bytes& pixels) { return {pixels.data(), side, side}; }

std::size_t area(const camrt::Explanation& e) {
    return static_cast<std::size_t>(e.height()) * static_cast<std::size_t>(e.width());
}

std::vector<float> heatmaps(const camrt::Explanation& e) {
    std::vector<float> all;
    for (int i = 0; i < e.size(); ++i) all.insert(all.end(), e.heatmap(i), e.heatmap(i) + area(e));
    return all;
}

camrt::Class to_class(const std::string& text) {
    return text[0] == '#' ? camrt::Class(std::stoi(text.substr(1))) : camrt::Class(text);
}

/// "top=3", "target=heart", "target=#6", "targets=heart,#2", "versus=ring", "method=hires-cam", "p.clusters=4"
camrt::ExplainOptions read_options(const Arguments& texts) {
    camrt::ExplainOptions options;
    for (const std::string& text : texts) {
        const std::string key = text.substr(0, text.find('='));
        const std::string value = text.substr(text.find('=') + 1);
        if (key == "top") options.top = std::stoi(value);
        if (key == "target") options.target = to_class(value);
        if (key == "versus") options.versus = to_class(value);
        if (key == "method") options.method = value;
        if (key.starts_with("p.")) options.parameters[key.substr(2)] = value;
        if (key != "targets") continue;
        options.targets.emplace();
        for (const std::string& one : split(value, ',')) options.targets->push_back(to_class(one));
    }
    return options;
}

/// "path:FILE", "encoded:FILE", or "FORMAT:FILE:HEIGHT:WIDTH:STRIDE" with the format's number
camrt::Explanation explain_source(const camrt::Explainer& explainer, const std::string& source,
                                  const camrt::ExplainOptions& options) {
    const Arguments parts = split(source, ':');
    if (parts[0] == "path") return explainer.explain(fs::path(parts[1]), options);
    const Bytes bytes = read_file(parts[1]);
    if (parts[0] == "encoded") return explainer.explain(camrt::Encoded{bytes.data(), bytes.size()}, options);
    const auto format = static_cast<camrt::Format>(std::stoi(parts[0]));
    return explainer.explain(
        {bytes.data(), std::stoi(parts[2]), std::stoi(parts[3]), format, std::stoul(parts[4])}, options);
}

void print(const camrt::Explanation& e) {
    for (const camrt::Target& t : e.targets()) {
        std::printf("%d\t%s\t%a\t%s\n", t.index, t.label.c_str(), t.probability, t.outcome.c_str());
    }
}

// --- results ---------------------------------------------------------------------------------------------------------
/// OUT BUNDLE SOURCE OPTION...: print the targets, write OUT.heatmap, OUT.network and OUT.json.
void explain(const camrt::Runtime& runtime, const Arguments& given) {
    const camrt::Explainer explainer = runtime.load(given[1], on_cpu);
    const camrt::Explanation e = explain_source(explainer, given[2], read_options({given.begin() + 3, given.end()}));
    print(e);
    const std::vector<float> on_photo = heatmaps(e);
    write_file(given[0] + ".heatmap", on_photo.data(), on_photo.size());
    std::ofstream network(given[0] + ".network", std::ios::binary);
    const auto values = static_cast<std::streamsize>(sizeof(float)) * e.network_height() * e.network_width();
    for (int i = 0; i < e.size(); ++i) network.write(reinterpret_cast<const char*>(e.network_heatmap(i)), values);
    const std::string json = e.json();
    write_file(given[0] + ".json", json.data(), json.size());
    REQUIRE(e.heatmap(0) == e.heatmap(0));
    REQUIRE(e.milliseconds().at("total") > 0);
}

/// What an explainer tells of itself.
void tell(const camrt::Runtime& runtime, const Arguments& given) {
    const camrt::Explainer e = runtime.load(given[0], on_cpu);
    std::printf("%s\t%s\t%d\t%d\t%d", e.name().c_str(), e.provider().c_str(), e.height(), e.width(), e.classes());
    for (const std::string& label : e.labels()) std::printf("\t%s", label.c_str());
}

/// BUNDLE...: open each without a cache, then the last one with it.
void cache(const camrt::Runtime& runtime, const Arguments& given) {
    for (const std::string& bundle : given) (void)runtime.load(bundle, {.providers = {"cpu"}, .cache = false});
    (void)runtime.load(given.back(), on_cpu);
}

/// Ten images at once, after a single one and none.
void batch(const camrt::Runtime& runtime, const Arguments& given) {
    const camrt::Explainer explainer = runtime.load("shapes", on_cpu);
    std::vector<Bytes> patterns;
    for (int seed = 0; seed < 10; ++seed) patterns.push_back(pattern(seed));
    std::vector<camrt::Image> images;
    for (const Bytes& one : patterns) images.push_back(view(one));
    REQUIRE(explainer.explain(std::span<const camrt::Image>{}).empty());
    std::vector<float> all;
    for (const camrt::Explanation& e : explainer.explain(images, {.top = 2})) {
        const std::vector<float> maps = heatmaps(e);
        all.insert(all.end(), maps.begin(), maps.end());
        print(e);
    }
    write_file(given[0], all.data(), all.size());
}

/// Four threads of 200 calls each, over images and methods: every heatmap is that of a serial call.
void threads(const camrt::Runtime& runtime, const Arguments&) {
    const camrt::Explainer explainer = runtime.load("shapes", on_cpu);
    const std::vector<camrt::ExplainOptions> options = {
        {.top = 2, .parameters = {{"clusters", "3"}}}, {.target = 1, .method = "hires-cam"}, {.method = "grad-cam"}};
    std::vector<Bytes> patterns;
    std::vector<std::vector<float>> serial;
    for (int seed = 0; seed < 4; ++seed) {
        patterns.push_back(pattern(seed));
        for (const auto& one : options) serial.push_back(heatmaps(explainer.explain(view(patterns.back()), one)));
    }
    REQUIRE(serial[0] != serial[options.size()]);
    std::vector<std::thread> workers;
    for (std::size_t worker = 0; worker < 4; ++worker) {
        workers.emplace_back([&, worker] {
            for (std::size_t call = 0; call < 200; ++call) {
                const std::size_t which = (worker * 5 + call) % serial.size();
                const camrt::Image image = view(patterns[which / options.size()]);
                REQUIRE(heatmaps(explainer.explain(image, options[which % options.size()])) == serial[which]);
            }
        });
    }
    for (std::thread& worker : workers) worker.join();
    const camrt::Explanation shared = explainer.explain(view(patterns[0]), {.top = 8});
    std::vector<const float*> seen(4);
    workers.clear();
    for (const float*& mine : seen) workers.emplace_back([&] { mine = shared.heatmap(7); });
    for (std::thread& worker : workers) worker.join();
    REQUIRE(std::count(seen.begin(), seen.end(), seen[0]) == 4);
}

/// Pixels are let go of after the call, or kept as long as the explanation.
void keep(const camrt::Runtime& runtime, const Arguments& given) {
    const camrt::Explainer explainer = runtime.load("shapes", on_cpu);
    auto owned = std::make_shared<Bytes>(pattern());
    camrt::Image image = view(*owned);
    image.keep = owned;
    std::weak_ptr<Bytes> watch = owned;
    {
        const camrt::Explanation kept = explainer.explain(image);
        image.keep.reset();
        owned.reset();
        REQUIRE(!watch.expired());
        const std::span<const std::uint8_t> overlay = kept.overlay(0);
        write_file(given[0] + "/overlay", overlay.data(), overlay.size());
        for (const fs::path& path : kept.save(given[0], "kept")) std::printf("%s\n", path.c_str());
    }
    REQUIRE(watch.expired());
    std::optional<camrt::Explanation> released;
    {
        const Bytes short_lived = pattern();
        released.emplace(explainer.explain(view(short_lived)));
    }
    REQUIRE(released->heatmap(0) != nullptr);
    for (const std::function<void()>& call : {std::function<void()>([&] { (void)released->overlay(0); }),
                                              std::function<void()>([&] { (void)released->save(given[0]); })}) {
        try {
            call();
            REQUIRE(false);
        } catch (const camrt::ExplanationError& error) {
            std::printf("%s\n", error.what());
        }
    }
}

// --- errors ----------------------------------------------------------------------------------------------------------
/// Print "NAME<tab>CLASS<tab>text" for every call that cannot succeed.
void errors(const camrt::Runtime& runtime, const Arguments& given) {
    const camrt::Explainer explainer = runtime.load("shapes", on_cpu);
    const Bytes pixels = pattern(), damaged = read_file(given[0]);
    const camrt::Image image = view(pixels);
    const camrt::Explanation e = explainer.explain(image);
    const auto shown = [&](camrt::Image changed) { return [&, changed] { explainer.explain(changed); }; };
    const auto asked = [&](camrt::ExplainOptions options) {
        return [&, options] { explainer.explain(image, options); };
    };
    const std::map<std::string, std::function<void()>> calls = {
        {"bundle", [&] { runtime.load("nowhere"); }},
        {"threads", [&] { runtime.load("shapes", {.threads = -1}); }},
        {"provider", [&] { runtime.load("shapes", {.providers = {"cpuu"}}); }},
        {"gpu_mem_limit", [&] { runtime.load("shapes", {.providers = {"cpu"}, .gpu_mem_limit = 1 << 30}); }},
        {"gpu_mem_limit in MB", [&] { runtime.load("shapes", {.gpu_mem_limit = 512}); }},
        {"max_pixels", [&] { runtime.load("shapes", {.max_pixels = 10}).explain(image); }},
        {"null", shown({nullptr, side, side})},
        {"zero", shown({pixels.data(), 0, side})},
        {"negative", shown({pixels.data(), side, -1})},
        {"huge", shown({pixels.data(), 2147483647, 2147483647})},
        {"stride", shown({pixels.data(), side, side, camrt::RGB8, 3 * side - 1})},
        {"far", shown({pixels.data(), side, side, camrt::RGB8, ~std::size_t{0}})},
        {"format", shown({pixels.data(), side, side, static_cast<camrt::Format>(9)})},
        {"damaged", [&] { explainer.explain(camrt::Encoded{damaged.data(), damaged.size()}); }},
        {"empty", [&] { explainer.explain(camrt::Encoded{}); }},
        {"missing", [&] { explainer.explain("missing.png"); }},
        {"target", asked({.target = "strar"})},
        {"index", asked({.target = 8})},
        {"several", asked({.top = 2, .target = "star"})},
        {"no targets", asked({.targets = std::vector<camrt::Class>{}})},
        {"versus", asked({.target = "star", .versus = "star"})},
        {"top", asked({.top = 9})},
        {"method", asked({.method = "gradcam"})},
        {"parameter", asked({.parameters = {{"klusters", "3"}}})},
        {"value", asked({.parameters = {{"clusters", "0"}}})},
        {"reserved", asked({.parameters = {{"target", "star"}}})},
        {"unavailable", asked({.method = "cam"})},
        {"no text", asked({.target = "\xff"})},
        {"heatmap", [&] { (void)e.heatmap(1); }},
        {"below", [&] { (void)e.network_heatmap(-1); }},
        {"which", [&] { (void)e.target(1); }},
        {"folder", [&] { (void)explainer.explain(fs::path(given[1])).save(given[0]); }},
    };
    for (const auto& [name, call] : calls) {
        try {
            call();
            std::printf("%s\tnothing\tthrown\n", name.c_str());
        } catch (const camrt::Error& error) {
            std::printf("%s\t%s\t%s\n", name.c_str(), class_name(error).c_str(), error.what());
        }
    }
}

/// Throw every class by its name in Python, and print "NAME<tab>CLASS".
void raise_all(const Arguments& names) {
    for (const std::string& name : names) {
        try {
            camrt::detail::raise(name, "text");
        } catch (const camrt::CamrtError& error) {
            std::printf("%s\t%s\n", name.c_str(), class_name(error).c_str());
        }
    }
}

/// A second Runtime of the same environment is the same; OTHER is refused; Python's own errors have a class.
void runtimes(const std::string& venv, const Arguments& given) {
    const camrt::Runtime first{venv};
    const camrt::Runtime second{venv + "/"};
    REQUIRE(second.load("shapes", on_cpu).classes() == first.load("shapes", on_cpu).classes());
    try {
        camrt::detail::with_python([] { camrt::detail::py::module_::import("no_such_module"); });
        REQUIRE(false);
    } catch (const camrt::PythonError& error) {
        REQUIRE(std::string(error.what()) == "ModuleNotFoundError: No module named 'no_such_module'");
    }
    const camrt::Runtime third{given[0]};
}

// --- lifetimes -------------------------------------------------------------------------------------------------------
double resident_megabytes() {
    std::ifstream statm("/proc/self/statm");
    double pages = 0;
    statm >> pages >> pages;
    return pages * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

/// Print by how many MB a thousand calls with all that can be asked, and failures among them, grow the process.
void leak(const camrt::Runtime& runtime, const Arguments&) {
    const camrt::Explainer explainer = runtime.load("shapes", on_cpu);
    const Bytes pixels = pattern();
    const auto call = [&](int times) {
        for (int i = 0; i < times; ++i) {
            camrt::Image image = view(pixels);
            image.keep = std::make_shared<int>(0);
            const camrt::Explanation e = explainer.explain(image, {.top = 2, .parameters = {{"clusters", "2"}}});
            (void)(e.heatmap(1) + e.overlay(0).size() + e.json().size());
            try {
                explainer.explain(view(pixels), {.target = "nothing"});
            } catch (const camrt::UnknownTarget&) {
            }
        }
    };
    call(200);
    const double before = resident_megabytes();
    call(1000);
    std::printf("%.2f\n", resident_megabytes() - before);
}

struct Handles {  // in the order in which the members of a host may well stand
    std::optional<camrt::Explanation> explanation;
    std::optional<camrt::Explainer> explainer;
    std::optional<camrt::Runtime> runtime;

    void fill(const std::string& venv) {
        static const Bytes pixels = pattern();
        runtime.emplace(venv);
        explainer.emplace(runtime->load("shapes", on_cpu));
        explanation.emplace(explainer->explain(view(pixels)));
    }
};

Handles early;  // its destructor runs after everything else's
const Bytes pixels_for_ever = pattern();

struct Worker {  // joined by a static destructor, when Python is refused already
    std::atomic<bool> stop{false};
    std::thread thread;
    ~Worker() {
        stop = true;
        if (thread.joinable()) thread.join();
    }
} worker;

void explain_until_refused(const camrt::Explainer& explainer, const camrt::ExplainOptions& options = {}) {
    try {
        while (!worker.stop) (void)explainer.explain(view(pixels_for_ever), options).heatmap(0);
    } catch (const camrt::RuntimeError&) {  // the process is exiting
    }
}

void pause() { std::this_thread::sleep_for(std::chrono::milliseconds(60)); }

const std::map<std::string, std::function<void(const std::string&)>> orders = {
    {"runtime first",
     [](const std::string& venv) {
         Handles all;
         all.fill(venv);
         all.runtime.reset();
         (void)all.explainer->explain(view(pixels_for_ever));
         all.explainer.reset();
         REQUIRE(all.explanation->heatmap(0) != nullptr);
     }},
    {"explanation first",
     [](const std::string& venv) {
         Handles all;
         all.fill(venv);
         all.explanation.reset();
     }},
    {"early statics", [](const std::string& venv) { early.fill(venv); }},
    {"late statics",
     [](const std::string& venv) {
         static const camrt::Runtime runtime{venv};
         static const camrt::Explainer explainer = runtime.load("shapes", on_cpu);
         static const camrt::Explanation e = explainer.explain(view(pixels_for_ever));
     }},
    {"thread locals",
     [](const std::string& venv) {
         thread_local Handles mine;
         mine.fill(venv);
         std::thread([&] {
             thread_local Handles others;
             others.fill(venv);
         }).join();
     }},
    {"started in a thread that ends",
     [](const std::string& venv) {
         std::thread([&] { early.fill(venv); }).join();
         (void)early.explainer->explain(view(pixels_for_ever));
         Handles mine;
         mine.fill(venv);
     }},
    {"destroyed in another thread",
     [](const std::string& venv) {
         auto all = std::make_unique<Handles>();
         all->fill(venv);
         std::thread([moved = std::move(all)]() mutable { moved.reset(); }).join();
     }},
    {"moved",
     [](const std::string& venv) {
         Handles all;
         all.fill(venv);
         const float* const heatmap = all.explanation->heatmap(0);
         camrt::Explanation moved = std::move(*all.explanation);
         REQUIRE(moved.heatmap(0) == heatmap);
         REQUIRE(all.explanation->size() == 0);
         *all.explanation = std::move(moved);
         REQUIRE(all.explanation->heatmap(0) == heatmap);
         const camrt::Explainer explainer = std::move(*all.explainer);
         (void)explainer.explain(view(pixels_for_ever));
         try {
             (void)all.explainer->explain(view(pixels_for_ever));
             REQUIRE(false);
         } catch (const camrt::RuntimeError& error) {
             REQUIRE(std::string(error.what()).starts_with("This handle was moved from"));
         }
     }},
    {"exit in another thread",
     [](const std::string& venv) {
         early.fill(venv);
         std::thread([] {
             pause();
             std::exit(0);
         }).detach();
         explain_until_refused(*early.explainer);
         for (;;) pause();
     }},
    {"exit beside a detached thread",
     [](const std::string& venv) {
         early.fill(venv);
         std::thread([] { explain_until_refused(*early.explainer); }).detach();
         pause();
     }},
    {"exit with the lock held",
     [](const std::string& venv) {
         early.fill(venv);
         std::thread([] { explain_until_refused(*early.explainer); }).detach();
         pause();
         (void)PyGILState_Ensure();
     }},
    {"exit during a first call",
     [](const std::string& venv) {
         early.runtime.emplace(venv);
         early.explainer.emplace(early.runtime->load("shapes", on_cpu));
         const char* const methods[] = {"cluster-cam", "group-cam", "hires-cam", "recipro-cam"};
         const std::string method = methods[getpid() % 4];
         std::thread([=] { explain_until_refused(*early.explainer, {.method = method}); }).detach();
         std::this_thread::sleep_for(std::chrono::milliseconds(getpid() % 47));  // somewhere in it
     }},
    {"exit before a join",
     [](const std::string& venv) {
         early.fill(venv);
         worker.thread = std::thread([] { explain_until_refused(*early.explainer); });
         pause();
     }},
};

/// The host runs Python itself: camrt takes it over, with the lock held or free, and outlives its end.
void adopt(const std::string& venv) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    const std::string program = venv + "/bin/python";
    PyConfig_SetBytesString(&config, &config.program_name, program.c_str());
    PyConfig_SetBytesString(&config, &config.executable, program.c_str());
    REQUIRE(!PyStatus_Exception(Py_InitializeFromConfig(&config)));
    PyConfig_Clear(&config);
    early.fill(venv);
    PyThreadState* const mine = PyEval_SaveThread();
    std::thread([&] { (void)early.explainer->explain(view(pixels_for_ever)); }).join();
    PyEval_RestoreThread(mine);
    REQUIRE(Py_FinalizeEx() == 0);
    try {
        (void)early.explainer->explain(view(pixels_for_ever));
        REQUIRE(false);
    } catch (const camrt::RuntimeError&) {
    }
}

// --- cost ------------------------------------------------------------------------------------------------------------
double milliseconds(const std::function<void()>& call) {
    const auto started = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - started).count();
}

/// SOURCE OPTION...: for every line that comes in, time as many calls as it says; print milliseconds, a line each.
void bench(const camrt::Runtime& runtime, const Arguments& given) {
    const camrt::Explainer explainer = runtime.load(given[0], on_cpu);
    const Bytes pixels = read_file(given[1]);
    const int height = std::stoi(given[2]), width = std::stoi(given[3]);
    const camrt::ExplainOptions options = read_options({given.begin() + 4, given.end()});
    for (int calls = 0; std::cin >> calls;) {
        for (int i = 0; i < calls; ++i) {
            const double ms = milliseconds(
                [&] { (void)explainer.explain({pixels.data(), height, width, camrt::RGB8}, options).heatmap(0); });
            std::printf("%.4f ", ms);
        }
        std::printf("\n");
        std::fflush(stdout);
    }
}

/// Print the milliseconds of starting, loading and the first call.
void start(const std::string& venv) {
    std::optional<camrt::Runtime> runtime;
    std::optional<camrt::Explainer> explainer;
    const Bytes pixels = pattern();
    std::printf("%.1f", milliseconds([&] { runtime.emplace(venv); }));
    std::printf("\t%.1f", milliseconds([&] { explainer.emplace(runtime->load("shapes", on_cpu)); }));
    std::printf("\t%.1f", milliseconds([&] { (void)explainer->explain(view(pixels)).heatmap(0); }));
    std::printf("\t%.1f\n", resident_megabytes());
}

void run(const std::string& mode, const std::string& venv, const Arguments& given) {
    const std::map<std::string, void (*)(const camrt::Runtime&, const Arguments&)> modes = {
        {"explain", explain}, {"tell", tell}, {"batch", batch}, {"threads", threads},
        {"keep", keep},       {"errors", errors}, {"leak", leak}, {"bench", bench},     {"cache", cache}};
    if (mode == "raise") return raise_all(given);
    if (mode == "runtimes") return runtimes(venv, given);
    if (mode == "order") return orders.at(given[0])(venv);
    if (mode == "adopt") return adopt(venv);
    if (mode == "start") return start(venv);
    modes.at(mode)(camrt::Runtime{venv}, given);
}

}  // namespace

int main(int argc, char** argv) {
    REQUIRE(argc >= 3);
    try {
        run(argv[1], argv[2], {argv + 3, argv + argc});
        return 0;
    } catch (const camrt::Error& error) {
        std::printf("%s\t%s\n", class_name(error).c_str(), error.what());
        return 1;
    }
}
