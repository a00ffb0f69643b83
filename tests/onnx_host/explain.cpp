// Explains an image with a file that `camrt compile --input uint8` wrote; needs ONNX Runtime and nothing of camrt.
//
//   explain libonnxruntime.so model.explain.onnx photo.ppm heatmap [threads] [class ...]
//
// photo.ppm has the network's size. Every class gets heatmap.CLASS.pgm to look at and heatmap.CLASS.f32 to compute with.
// The library is loaded by name: one binary runs with any version from that of the headers on.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Image {
    std::int64_t height = 0, width = 0;
    std::vector<std::uint8_t> pixels;  // RGB, rows from the top
};

struct Explanation {
    std::vector<std::int64_t> targets, outcomes;
    std::vector<float> probabilities, heatmaps;  // T, and T x H x W

    bool operator==(const Explanation&) const = default;
};

void load_runtime(const char* library) {
    void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) throw std::runtime_error(dlerror());
    auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
    const OrtApi* api = base == nullptr ? nullptr : base()->GetApi(ORT_API_VERSION);
    if (api == nullptr) throw std::runtime_error(std::string(library) + " does not know this version of the API");
    Ort::InitApi(api);
}

Image read_ppm(const char* path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    int width = 0, height = 0, most = 0;
    if (!file) throw std::runtime_error(std::string(path) + " cannot be opened");
    if (!(file >> magic >> width >> height >> most) || magic != "P6" || most != 255 || width < 1 || height < 1)
        throw std::runtime_error(std::string(path) + " is no binary PPM of 8 bits");
    file.get();
    Image image{height, width, std::vector<std::uint8_t>(std::size_t(3) * width * height)};
    file.read(reinterpret_cast<char*>(image.pixels.data()), std::streamsize(image.pixels.size()));
    if (!file) throw std::runtime_error(std::string(path) + " is cut short");
    return image;
}

template <typename T>
std::vector<T> values(const Ort::Value& tensor) {
    const T* data = tensor.GetTensorData<T>();
    return {data, data + tensor.GetTensorTypeAndShapeInfo().GetElementCount()};
}

void check(const Ort::Session& session, const Image& image, const std::string& name) {
    const auto type = session.GetInputTypeInfo(0);  // keeps what follows alive
    const auto wanted = type.GetTensorTypeAndShapeInfo();
    if (wanted.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8)
        throw std::runtime_error("The model takes no pixels. Compile it with: camrt compile BUNDLE -o FILE --input uint8");
    const auto shape = wanted.GetShape();  // N, H, W, 3
    if (shape.at(1) != image.height || shape.at(2) != image.width)
        throw std::runtime_error(name + " must be resized to " + std::to_string(shape[2]) + " x " + std::to_string(shape[1]));
}

Explanation explain(Ort::Session& session, Image& image, std::vector<std::int64_t>& classes) {
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const std::int64_t shape[] = {1, image.height, image.width, 3};
    const std::int64_t asked[] = {1, std::int64_t(classes.size())};
    Ort::Value inputs[] = {Ort::Value::CreateTensor(memory, image.pixels.data(), image.pixels.size(), shape, 4),
                           Ort::Value::CreateTensor(memory, classes.data(), classes.size(), asked, 2)};
    const char *given[] = {"image", "target"}, *wanted[] = {"targets", "outcomes", "probabilities", "heatmap"};
    auto f = session.Run(Ort::RunOptions{nullptr}, given, inputs, 2, wanted, 4);
    return {values<std::int64_t>(f[0]), values<std::int64_t>(f[1]), values<float>(f[2]), values<float>(f[3])};
}

std::vector<std::string> metadata_lines(const Ort::Session& session, const char* key) {
    Ort::AllocatorWithDefaultOptions allocator;
    auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
    std::vector<std::string> lines;
    std::istringstream stream(text ? text.get() : "");
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

void write(const std::string& name, const float* heatmap, const Image& image) {
    const auto size = std::size_t(image.height * image.width);
    std::ofstream(name + ".f32", std::ios::binary).write(reinterpret_cast<const char*>(heatmap), long(4 * size));
    std::ofstream pgm(name + ".pgm", std::ios::binary);
    pgm << "P5 " << image.width << " " << image.height << " 255\n";
    for (std::size_t i = 0; i < size; ++i) pgm.put(char(std::uint8_t(255 * heatmap[i] + 0.5f)));
    if (!pgm) throw std::runtime_error(name + ".pgm cannot be written");
}

int run(int argc, char** argv) {
    load_runtime(argv[1]);
    const Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "explain");
    Ort::Session session(env, argv[2], Ort::SessionOptions{});
    Image image = read_ppm(argv[3]);
    check(session, image, argv[3]);
    std::vector<std::int64_t> classes;
    for (int i = 6; i < argc; ++i) classes.push_back(std::atoll(argv[i]));
    if (classes.empty()) classes = {-1};  // the most probable one
    std::vector<Explanation> found(argc > 5 ? std::max(1, std::stoi(argv[5])) : 1);
    std::vector<std::string> errors(found.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < found.size(); ++i)
        threads.emplace_back([&, i] {
            try {
                found[i] = explain(session, image, classes);  // one session serves all threads
            } catch (const std::exception& error) {
                errors[i] = error.what();
            }
        });
    for (auto& thread : threads) thread.join();
    for (std::size_t i = 0; i < found.size(); ++i) {
        if (!errors[i].empty()) throw std::runtime_error(errors[i]);
        if (!(found[i] == found[0])) throw std::runtime_error("two threads differ");
    }

    const auto labels = metadata_lines(session, "camrt.labels");
    for (std::size_t i = 0; i < found[0].targets.size(); ++i) {
        const auto index = found[0].targets[i];
        const auto label = std::size_t(index) < labels.size() ? labels[std::size_t(index)] : std::to_string(index);
        const auto outcome = found[0].outcomes[i];
        std::printf("%ld\t%s\t%.6f\t%ld\n", long(index), label.c_str(), found[0].probabilities[i], long(outcome));
        write(std::string(argv[4]) + "." + std::to_string(index), &found[0].heatmaps[i * image.height * image.width], image);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc >= 5) return run(argc, argv);
    return std::fprintf(stderr, "explain libonnxruntime.so model.explain.onnx photo.ppm heatmap [threads] [class ...]\n"), 2;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
