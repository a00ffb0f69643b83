/// camrt in C++: shows where a CNN looked when it named a class.
///
///     camrt::Runtime runtime{"/opt/app/venv"};
///     camrt::Explainer explainer = runtime.load("bundle", {.providers = {"cuda", "cpu"}});
///     camrt::Explanation e = explainer.explain({pixels, height, width, camrt::RGB8}, {.top = 3});
///     const float* heatmap = e.heatmap(0);  // height × width, as long as e
///
/// Runs camrt's Python package in this process.  Every function may be called from any thread; Python's lock is taken
/// inside, where it is needed, and free while ONNX Runtime computes.  Handles can be moved but not copied, hold what
/// they need, and may be destroyed in any order, in any thread, also after the Runtime and in static destructors.  Text
/// is UTF-8.  Every failure is thrown as a subclass of camrt::Error, listed in detail/errors.hpp.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "detail/errors.hpp"
#include "detail/process.hpp"
#include "detail/start.hpp"

namespace camrt {

/// How a pixel lies in memory: red, green, blue; OpenCV's blue, green, red; grey; red, green, blue, opacity.
enum class Format { RGB8, BGR8, GRAY8, RGBA8 };
using enum Format;

/// An image in memory: `height` rows of `width` pixels.
///
/// RGB8 and BGR8 are looked at where they lie, without a copy.  GRAY8 and RGBA8 are converted, RGBA8 on white.
struct Image {
    const std::uint8_t* pixels = nullptr;  ///< The first row; unchanged until `explain` returns, see `keep`.
    int height = 0;
    int width = 0;
    Format format = RGB8;
    std::size_t stride = 0;  ///< Bytes from row to row; 0 where the rows follow each other.
    /// Owns the pixels, where the explanation shall keep them for `overlay` and `save`; without it they are let go when
    /// `explain` returns.  Destroyed with the explanation, in the thread that destroys it.
    std::shared_ptr<const void> keep = {};
};

/// An encoded image in memory: JPEG, PNG, WebP, BMP, GIF or TIFF, as a file holds it.  Copied.
struct Encoded {
    const void* data = nullptr;
    std::size_t size = 0;  ///< Bytes.
};

/// A class of the network, by index or by label.
using Class = std::variant<int, std::string>;

/// How a bundle is opened.
struct LoadOptions {
    std::vector<std::string> providers = {};      ///< To try in order: "cuda", "cpu", …; empty: the best installed.
    std::optional<int> max_masked_batch = {};     ///< Most masked images in one call; else 5, CUDA 64.
    int threads = 0;                              ///< Of one operator on the CPU; 0 is one per core.
    std::optional<std::int64_t> max_pixels = {};  ///< Height × width of the largest image; 100 million by default.
    /// Bytes of GPU memory that each of the bundle's graphs may take for its arena, with "cuda" and "tensorrt".
    std::optional<std::int64_t> gpu_mem_limit = {};
    bool cache = true;  ///< Keep optimised graphs in BUNDLE.cache beside the bundle, for a faster start.
};

/// What is explained, and how.  One of `top`, `target` and `targets`; without any, the most probable class.
struct ExplainOptions {
    std::optional<int> top = {};                         ///< How many of the most probable classes.
    std::optional<Class> target = {};                    ///< One class: 281, or "tabby".
    std::optional<std::vector<Class>> targets = {};      ///< Several.
    std::optional<Class> versus = {};                    ///< Explain why the target and not this class.
    std::string method = {};                             ///< As `camrt methods` names it; empty: cluster-cam.
    std::map<std::string, std::string> parameters = {};  ///< The method's own: {{"clusters", "32"}}.
};

/// One class that was explained.
struct Target {
    int index = 0;
    std::string label = {};  ///< The index as text where the bundle has no labels.
    double probability = 0;  ///< Of the class on the whole image; NaN where the network gave none.
    /// "ok", or why the heatmap is all zeros: "flat_map", "no_positive_evidence", "not_finite".
    std::string outcome = {};
};

namespace detail {

struct Facts {
    int height = 0, width = 0, network_height = 0, network_width = 0;
    std::vector<Target> targets;
    std::string provider;
    int passes = 0;
    std::map<std::string, double> milliseconds;
    std::vector<std::string> notes;
};

/// Addresses of one array per target, filled when they are first asked for.
using Addresses = std::unique_ptr<std::atomic<std::uintptr_t>[]>;

}  // namespace detail

/// Where the network looked, for every target.  All threads may read it at once.
///
/// What it returns by pointer, span or reference lives as long as the explanation, also when that is moved.
class Explanation {
public:
    Explanation(Explanation&&) noexcept = default;
    Explanation& operator=(Explanation&& other) noexcept;
    ~Explanation() = default;

    /// How many classes were explained.
    int size() const { return static_cast<int>(facts_.targets.size()); }
    const std::vector<Target>& targets() const { return facts_.targets; }
    /// One of them.  ParameterError where there is none of this number.
    const Target& target(int i) const;

    /// The heatmap of target `i` on the photo: height() × width() values in [0, 1], row after row; 0 where the network
    /// did not look.  Computed when it is first asked for.  ParameterError where there is no such target.
    const float* heatmap(int i) const;
    /// The same over the network's input: network_height() × network_width() values.
    const float* network_heatmap(int i) const;
    /// The photo with the heatmap of target `i` over it: height() × width() × 3 bytes, RGB.  ExplanationError where the
    /// pixels were let go (see Image::keep).
    std::span<const std::uint8_t> overlay(int i) const;

    int height() const { return facts_.height; }  ///< Of the photo, in pixels, as the next three.
    int width() const { return facts_.width; }
    int network_height() const { return facts_.network_height; }
    int network_width() const { return facts_.network_width; }

    /// The execution provider that really ran: "cpu", "cuda", …
    const std::string& provider() const { return facts_.provider; }
    /// Forward passes that this image took.
    int passes() const { return facts_.passes; }
    /// Milliseconds per stage, and in all as "total".
    const std::map<std::string, double>& milliseconds() const { return facts_.milliseconds; }
    /// What happened on the way: "fewer_clusters", "empty_cluster_reseeded", "chunk_halved", "provider_fallback".
    const std::vector<std::string>& notes() const { return facts_.notes; }
    /// Everything but the pixels, as explanation.json has it, on one line.
    std::string json() const;

    /// Write the overlays, the heatmaps (NAME.npy) and NAME.explanation.json, all or nothing, and return their paths.
    ///
    /// `name` is the photo's own where it is empty ("image" for pixels and bytes).  ExplanationError where the folder
    /// cannot be written to, or the pixels were let go (see Image::keep).
    std::vector<std::filesystem::path> save(const std::filesystem::path& folder, const std::string& name = {}) const;

private:
    friend class Explainer;
    Explanation(detail::Object result, detail::Facts facts, std::shared_ptr<const void> keep);
    std::uintptr_t array(const char* name, int i, const detail::Addresses& known) const;

    std::shared_ptr<const void> keep_;  // first, so that it is destroyed last
    detail::Object result_;
    detail::Facts facts_;
    detail::Addresses heatmaps_, network_heatmaps_, overlays_;
};

/// A loaded bundle.  One serves all threads.
class Explainer {
public:
    /// Explain an image in memory.
    ///
    /// Throws ImageError (no pixels, too many, a stride that is too small), UnknownTarget, UnknownMethod,
    /// ParameterError, MethodUnavailable, DeviceMemoryError, BundleError (the bundle was replaced since it was loaded),
    /// and RuntimeError where the process is exiting.  So do the others.
    Explanation explain(const Image& image, const ExplainOptions& options = {}) const;
    /// Explain an encoded image.
    Explanation explain(const Encoded& image, const ExplainOptions& options = {}) const;
    /// Explain an image file.
    Explanation explain(const std::filesystem::path& image, const ExplainOptions& options = {}) const;
    /// Explain several images, which go through the network in groups; all or none.
    std::vector<Explanation> explain(std::span<const Image> images, const ExplainOptions& options = {}) const;

    /// How many classes the network has.
    int classes() const { return static_cast<int>(labels_.size()); }
    /// A label for every class; the index as text where the bundle has none.
    const std::vector<std::string>& labels() const { return labels_; }
    /// The bundle's name.
    const std::string& name() const { return name_; }
    /// The execution provider that runs: "cpu", "cuda", …
    const std::string& provider() const { return provider_; }
    int height() const { return height_; }  ///< Of the network's input, in pixels, as the next.
    int width() const { return width_; }

private:
    friend class Runtime;
    Explainer() = default;
    template <class Sources>
    std::vector<Explanation> explain_all(const Sources& sources, const ExplainOptions& options) const;

    detail::Object host_, explainer_;
    std::string name_, provider_;
    int height_ = 0, width_ = 0;
    std::vector<std::string> labels_;
};

/// Python and camrt in this process, from a virtual environment into which camrt is installed.
///
/// The first one starts the interpreter, which then stays until the process ends; another one takes it over.  Where the
/// host runs Python already, that one is used: `venv` is then its sys.prefix.
class Runtime {
public:
    /// RuntimeError where `venv` is missing, no virtual environment, of another version of Python than this program was
    /// compiled for, without camrt, or another one than this process runs already.
    explicit Runtime(const std::filesystem::path& venv) : host_(detail::start(venv)) {}

    /// Open a bundle: a folder that `camrt export` wrote, or the name of a built-in one ("shapes").
    ///
    /// Throws BundleError, ProviderError (a provider is not installed or did not start), ParameterError.
    Explainer load(const std::filesystem::path& bundle, const LoadOptions& options = {}) const;

private:
    detail::Object host_;
};

// --- how it is done --------------------------------------------------------------------------------------------------
namespace detail {

inline py::object to_python(const Class& given) {
    if (const int* const index = std::get_if<int>(&given)) return py::int_(*index);
    return from_text(std::get<std::string>(given));
}

inline py::object to_python(const std::vector<Class>& given) {
    py::list all;
    for (const Class& one : given) all.append(to_python(one));
    return all;
}

template <class T>
py::object or_none(const std::optional<T>& given) {
    if (!given) return py::none();
    if constexpr (std::is_integral_v<T>) {
        return py::int_(*given);
    } else {
        return to_python(*given);
    }
}

inline py::object to_python(py::handle host, const Image& image) {
    static constexpr const char* names[] = {"RGB8", "BGR8", "GRAY8", "RGBA8"};
    const auto format = static_cast<std::size_t>(image.format);
    const char* const name = format < std::size(names) ? names[format] : "unknown";
    const auto address = reinterpret_cast<std::uintptr_t>(image.pixels);
    return host.attr("View")(address, image.height, image.width, name, image.stride, image.keep != nullptr);
}

inline py::object to_python(py::handle, const Encoded& image) {
    return py::bytes(static_cast<const char*>(image.data), image.data ? image.size : 0);
}

inline py::object to_python(py::handle, const std::filesystem::path& image) { return from_path(image); }

inline std::vector<std::string> to_texts(py::handle given) {
    std::vector<std::string> texts;
    for (py::handle text : given) texts.push_back(to_text(text));
    return texts;
}

inline Facts to_facts(py::handle result) {
    const py::tuple told = result.attr("facts")();
    Facts facts;
    int* const sizes[] = {&facts.height, &facts.width, &facts.network_height, &facts.network_width};
    for (std::size_t i = 0; i < std::size(sizes); ++i) *sizes[i] = told[i].cast<int>();
    for (py::handle item : told[4]) {
        const auto row = py::reinterpret_borrow<py::tuple>(item);
        facts.targets.push_back({row[0].cast<int>(), to_text(row[1]), row[2].cast<double>(), to_text(row[3])});
    }
    facts.provider = to_text(told[5]);
    facts.passes = told[6].cast<int>();
    for (py::handle item : told[7]) {
        const auto row = py::reinterpret_borrow<py::tuple>(item);
        facts.milliseconds[to_text(row[0])] = row[1].cast<double>();
    }
    facts.notes = to_texts(told[8]);
    return facts;
}

/// What of ONNX Runtime a call uses for the first time: its method, and parameters, which may bring other graphs.
inline std::string kind(const std::string& provider, const ExplainOptions& options) {
    std::string name = provider + " " + options.method;
    for (const auto& parameter : options.parameters) name += " " + parameter.first;
    return name;
}

inline const std::shared_ptr<const void>& owner(const Image& image) { return image.keep; }

template <class Source>
std::shared_ptr<const void> owner(const Source&) {
    return nullptr;
}

}  // namespace detail

inline Explanation::Explanation(detail::Object result, detail::Facts facts, std::shared_ptr<const void> keep)
    : keep_(std::move(keep)), result_(std::move(result)), facts_(std::move(facts)) {
    for (detail::Addresses* addresses : {&heatmaps_, &network_heatmaps_, &overlays_}) {
        *addresses = std::make_unique<std::atomic<std::uintptr_t>[]>(facts_.targets.size());
    }
}

inline Explanation& Explanation::operator=(Explanation&& other) noexcept {
    result_ = std::move(other.result_);  // before the pixels, which it may look at
    keep_ = std::move(other.keep_);
    facts_ = std::move(other.facts_);
    heatmaps_ = std::move(other.heatmaps_);
    network_heatmaps_ = std::move(other.network_heatmaps_);
    overlays_ = std::move(other.overlays_);
    return *this;
}

inline const Target& Explanation::target(int i) const {
    if (i >= 0 && i < size()) return facts_.targets[static_cast<std::size_t>(i)];
    throw ParameterError("target: this explanation has targets 0…" + std::to_string(size() - 1) + ", got " +
                         std::to_string(i) + ".");
}

inline std::uintptr_t Explanation::array(const char* name, int i, const detail::Addresses& known) const {
    const bool there = i >= 0 && i < size();  // otherwise Python says so
    if (there) {
        if (const std::uintptr_t address = known[static_cast<std::size_t>(i)]) return address;
    }
    const auto address = detail::with_python([&] { return result_.get().attr(name)(i).cast<std::uintptr_t>(); });
    if (there) known[static_cast<std::size_t>(i)] = address;
    return address;
}

inline const float* Explanation::heatmap(int i) const {
    return reinterpret_cast<const float*>(array("heatmap", i, heatmaps_));
}

inline const float* Explanation::network_heatmap(int i) const {
    return reinterpret_cast<const float*>(array("network_heatmap", i, network_heatmaps_));
}

inline std::span<const std::uint8_t> Explanation::overlay(int i) const {
    const auto size = static_cast<std::size_t>(height()) * static_cast<std::size_t>(width()) * 3;
    return {reinterpret_cast<const std::uint8_t*>(array("overlay", i, overlays_)), size};
}

inline std::string Explanation::json() const {
    return detail::with_python([&] { return detail::to_text(result_.get().attr("json")()); });
}

inline std::vector<std::filesystem::path> Explanation::save(const std::filesystem::path& folder,
                                                            const std::string& name) const {
    return detail::with_python([&] {
        std::vector<std::filesystem::path> paths;
        const detail::py::object files = result_.get().attr("save")(detail::from_path(folder), detail::from_text(name));
        for (detail::py::handle file : files) paths.emplace_back(file.cast<std::string>());
        return paths;
    });
}

template <class Sources>
std::vector<Explanation> Explainer::explain_all(const Sources& sources, const ExplainOptions& options) const {
    return detail::with_python([&] {
        detail::py::list images;
        for (const auto& source : sources) images.append(detail::to_python(host_.get(), source));
        detail::py::dict parameters;
        for (const auto& [name, value] : options.parameters) {
            parameters[detail::from_text(name)] = detail::from_text(value);
        }
        const detail::py::object results = host_.get().attr("explain")(
            explainer_.get(), images, detail::or_none(options.target), detail::or_none(options.targets),
            detail::or_none(options.top), detail::or_none(options.versus), detail::from_text(options.method),
            parameters);
        detail::await_calls_at_exit(detail::kind(provider_, options));
        std::vector<Explanation> explanations;
        auto source = std::begin(sources);
        for (detail::py::handle item : results) {
            detail::Object result(detail::py::reinterpret_borrow<detail::py::object>(item));
            explanations.push_back(Explanation(std::move(result), detail::to_facts(item), detail::owner(*source++)));
        }
        return explanations;
    });
}

inline Explanation Explainer::explain(const Image& image, const ExplainOptions& options) const {
    return std::move(explain_all(std::span(&image, 1), options).front());
}

inline Explanation Explainer::explain(const Encoded& image, const ExplainOptions& options) const {
    return std::move(explain_all(std::span(&image, 1), options).front());
}

inline Explanation Explainer::explain(const std::filesystem::path& image, const ExplainOptions& options) const {
    return std::move(explain_all(std::span(&image, 1), options).front());
}

inline std::vector<Explanation> Explainer::explain(std::span<const Image> images, const ExplainOptions& options) const {
    return explain_all(images, options);
}

inline Explainer Runtime::load(const std::filesystem::path& bundle, const LoadOptions& options) const {
    return detail::with_python([&] {
        detail::py::list providers;
        for (const std::string& provider : options.providers) providers.append(detail::from_text(provider));
        const detail::py::tuple told =
            host_.get().attr("load")(detail::from_path(bundle), providers, detail::or_none(options.max_masked_batch),
                                     options.threads, detail::or_none(options.max_pixels),
                                     detail::or_none(options.gpu_mem_limit), options.cache);
        Explainer explainer;
        explainer.host_ = detail::Object(detail::py::reinterpret_borrow<detail::py::object>(host_.get()));
        explainer.explainer_ = detail::Object(told[0]);
        explainer.name_ = detail::to_text(told[1]);
        explainer.provider_ = detail::to_text(told[2]);
        explainer.height_ = told[3].cast<int>();
        explainer.width_ = told[4].cast<int>();
        explainer.labels_ = detail::to_texts(told[5]);
        detail::await_calls_at_exit("load " + explainer.provider_);
        return explainer;
    });
}

}  // namespace camrt
