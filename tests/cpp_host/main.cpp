// A complete host: explains photos from four threads and writes, for each, the heatmap of the class that was named.
//
//     host VENV BUNDLE FOLDER PHOTO...
//
// With OpenCV it reads what OpenCV reads and writes PNG; without, it reads binary PPM (P6, 8 bits) and writes PGM.

#include <camrt.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#ifdef WITH_OPENCV
#include <opencv2/imgcodecs.hpp>
#endif

namespace {

namespace fs = std::filesystem;

constexpr int thread_count = 4;

struct Photo {
    std::vector<std::uint8_t> pixels;
    int height = 0;
    int width = 0;
    camrt::Format format = camrt::RGB8;
};

#ifdef WITH_OPENCV

constexpr const char* ending = ".png";

Photo read_photo(const fs::path& file) {
    const cv::Mat read = cv::imread(file.string(), cv::IMREAD_COLOR);
    if (read.empty()) throw std::runtime_error(file.string() + ": OpenCV cannot read it.");
    return {{read.datastart, read.dataend}, read.rows, read.cols, camrt::BGR8};
}

void write_grey(const fs::path& file, std::vector<std::uint8_t>& levels, int height, int width) {
    if (!cv::imwrite(file.string(), cv::Mat(height, width, CV_8UC1, levels.data()))) {
        throw std::runtime_error(file.string() + ": cannot be written.");
    }
}

#else

constexpr const char* ending = ".pgm";

Photo read_photo(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    if (!in) throw std::runtime_error(file.string() + ": cannot be opened.");
    std::string magic;
    int largest = 0;
    Photo photo;
    in >> magic >> photo.width >> photo.height >> largest;
    in.get();  // the one white space before the pixels
    constexpr int side = 1 << 15;
    if (magic != "P6" || largest != 255 || std::clamp(photo.width, 1, side) != photo.width ||
        std::clamp(photo.height, 1, side) != photo.height) {
        throw std::runtime_error(file.string() + ": not a binary PPM of 8 bits (P6), all that is read without OpenCV.");
    }
    photo.pixels.resize(static_cast<std::size_t>(photo.height) * static_cast<std::size_t>(photo.width) * 3);
    in.read(reinterpret_cast<char*>(photo.pixels.data()), static_cast<std::streamsize>(photo.pixels.size()));
    if (!in) throw std::runtime_error(file.string() + ": the file ends before its pixels do.");
    return photo;
}

void write_grey(const fs::path& file, std::vector<std::uint8_t>& levels, int height, int width) {
    std::ofstream out(file, std::ios::binary);
    out << "P5\n" << width << ' ' << height << "\n255\n";
    out.write(reinterpret_cast<const char*>(levels.data()), static_cast<std::streamsize>(levels.size()));
    if (!out.flush()) throw std::runtime_error(file.string() + ": cannot be written.");
}

#endif

/// Explain one photo, write its heatmap, and return the line that tells of it.
std::string explain(const camrt::Explainer& explainer, const fs::path& file, const fs::path& folder) {
    const Photo photo = read_photo(file);
    const camrt::Explanation e = explainer.explain({photo.pixels.data(), photo.height, photo.width, photo.format});
    const float* const heatmap = e.heatmap(0);
    std::vector<std::uint8_t> levels(static_cast<std::size_t>(e.height()) * static_cast<std::size_t>(e.width()));
    std::transform(heatmap, heatmap + levels.size(), levels.begin(),
                   [](float value) { return static_cast<std::uint8_t>(std::lround(value * 255)); });
    fs::path written = folder / file.stem();
    written += ending;
    write_grey(written, levels, e.height(), e.width());
    const camrt::Target& named = e.target(0);
    return file.string() + "  " + named.label + "  " + std::to_string(named.probability) + "  →  " + written.string();
}

/// Explain all photos, each thread the next one that is free.  Return how many failed.
int explain_all(const camrt::Explainer& explainer, const std::vector<fs::path>& files, const fs::path& folder) {
    std::atomic<std::size_t> next = 0;
    std::atomic<int> failures = 0;
    std::mutex printing;
    const auto work = [&] {
        for (std::size_t i = next++; i < files.size(); i = next++) {
            std::string line;
            bool failed = false;
            try {
                line = explain(explainer, files[i], folder);
            } catch (const std::exception& error) {
                line = std::string("Error: ") + error.what();
                failed = true;
                ++failures;
            }
            const std::lock_guard lock(printing);
            std::fprintf(failed ? stderr : stdout, "%s\n", line.c_str());
        }
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < thread_count; ++i) threads.emplace_back(work);
    for (std::thread& thread : threads) thread.join();
    return failures;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5) {
        std::fprintf(stderr, "Usage: %s VENV BUNDLE FOLDER PHOTO...\n", argc > 0 ? argv[0] : "host");
        return 2;
    }
    try {
        const fs::path folder = argv[3];
        fs::create_directories(folder);
        const camrt::Runtime runtime{argv[1]};
        const camrt::Explainer explainer = runtime.load(argv[2], {.providers = {"cpu"}});
        return explain_all(explainer, {argv + 4, argv + argc}, folder) == 0 ? 0 : 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "Error: %s\n", error.what());
        return 1;
    }
}
