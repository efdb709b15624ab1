// As segment.c, in C++:
//
//     segment MODEL CT.raw COLUMNS ROWS SLICES DX DY DZ LABELS.raw

#include <fastnnunet.hpp>

#include <fstream>
#include <iostream>
#include <string>
#include <vector>

static void segment(const std::vector<std::string> &arguments) {
    const std::size_t x = std::stoul(arguments[2]), y = std::stoul(arguments[3]), z = std::stoul(arguments[4]);
    const double spacing[3] = {std::stod(arguments[5]), std::stod(arguments[6]), std::stod(arguments[7])};
    std::vector<std::int16_t> voxels(x * y * z);
    const auto bytes = static_cast<std::streamsize>(voxels.size() * sizeof voxels[0]);
    if (!std::ifstream(arguments[1], std::ios::binary).read(reinterpret_cast<char *>(voxels.data()), bytes))
        throw std::runtime_error(arguments[1] + ": expected " + std::to_string(voxels.size()) + " voxels");
    fastnnunet::Image image(voxels.data(), x, y, z);
    image.place({0, 0, 0}, {1, 0, 0, 0, 1, 0, 0, 0, 1}, spacing);

    fastnnunet::Options options;
    options.precision = "f32";
    options.numbers.memory_limit_bytes = 2ull << 30;
    auto segmenter = fastnnunet::Segmenter::model(arguments[0], options);
    const auto result = segmenter.segment(image, [](const char *stage, std::uint64_t done, std::uint64_t total) {
        if (done == total) std::cerr << stage << ": " << done << " done\n";
        return true;
    });

    for (const auto &found : result.structures())
        std::cout << found.id << ' ' << found.name << ": " << found.voxels << " voxels, " << found.ml << " ml\n";
    const auto count = static_cast<std::streamsize>(voxels.size());
    std::ofstream out(arguments[8], std::ios::binary);
    if (!out.write(reinterpret_cast<const char *>(result.labels8()), count).flush())
        throw std::runtime_error(arguments[8] + ": not written");
}

int main(int argc, char **argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.size() != 9) {
        std::cerr << "usage: segment MODEL CT.raw COLUMNS ROWS SLICES DX DY DZ LABELS.raw\n";
        return 1;
    }
    try {
        segment(arguments);
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
