// What the C++ header adds to the C one: exceptions, in both directions, and handles that free
// themselves and can be moved.

#include <fastnnunet.hpp>

#include <cstring>
#include <iostream>
#include <thread>
#include <utility>
#include <vector>

static int failures;

static void is_true(const char *claim, bool is) {
    if (is) return;
    std::cerr << "not true: " << claim << '\n';
    ++failures;
}

int main() {
    using namespace fastnnunet;
    try {
        Segmenter::mode("lungfish");
        is_true("an unknown mode throws", false);
    } catch (const Error &error) {
        is_true("with its status", error.status() == FNN_STATUS_USAGE);
        is_true("and its sentence", std::strstr(error.what(), "lungfish"));
    }

    Options options;
    options.precision = "f32";
    options.numbers.threads = 2;
    Segmenter first = Segmenter::model("selftest", options);
    Segmenter segmenter = std::move(first);
    is_true("labels", segmenter.labels().size() == 3 && segmenter.labels()[2].name == "three" && segmenter.grade() == "test");

    std::vector<float> voxels(24 * 20 * 16);
    for (std::size_t i = 0; i < voxels.size(); ++i) voxels[i] = static_cast<float>(i * 37 % 800) - 400;
    Image image(voxels.data(), 24, 20, 16);
    image.place({1, 2, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1}, {2, 2, 3});
    try {
        segmenter.segment(image, [](const char *, std::uint64_t, std::uint64_t) -> bool { throw 7; });
        is_true("an exception of a callback leaves the call", false);
    } catch (int thrown) {
        is_true("as it was thrown", thrown == 7);
    }
    try {
        segmenter.segment(image, [](const char *, std::uint64_t, std::uint64_t) { return false; });
        is_true("false stops", false);
    } catch (const Error &error) {
        is_true("as an interruption", error.status() == FNN_STATUS_INTERRUPTED);
    }

    const Result result = segmenter.segment(std::vector<Image>{image});
    const fnn_geometry geometry = result.geometry();
    is_true("place", geometry.shape[0] == 24 && geometry.spacing[2] == 3 && geometry.affine[0] == -2 && geometry.affine[3] == -1 && geometry.affine[11] == 3);
    is_true("times", result.timings().size() > 4 && result.predicted_bytes() > 0 && result.warnings().empty());
    std::vector<std::uint16_t> wide(voxels.size());
    result.copy_labels(wide.data());
    is_true("labels are the same", std::equal(wide.begin(), wide.end(), result.labels8()));
    try {
        result.labels16();
        is_true("labels of another type", false);
    } catch (const Error &) {
    }

    // A result does not need its segmenter, and threads may read it together.
    std::uint64_t sums[2] = {0, 0};
    { Segmenter gone = std::move(segmenter); }
    std::vector<std::thread> threads;
    for (std::uint64_t &sum : sums)
        threads.emplace_back([&result, &sum] { for (const Structure &one : result.structures()) sum += one.voxels; });
    for (std::thread &thread : threads) thread.join();
    is_true("two threads read the same", sums[0] == sums[1] && sums[0] > 0);
    return failures;
}
