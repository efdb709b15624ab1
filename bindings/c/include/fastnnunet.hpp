// fastnnunet for C++11 and newer: fastnnunet.h with handles that free themselves and errors that are
// thrown. All of it is inline; link what the C header needs. What a function does, takes and gives is
// said in fastnnunet.h.
#ifndef FASTNNUNET_HPP
#define FASTNNUNET_HPP

#include "fastnnunet.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastnnunet {

// What a call ended in that did not end well: its status, and the sentence as what().
class Error : public std::runtime_error {
public:
    Error(fnn_status status, const char *message) : std::runtime_error(message), status_(status) {}
    fnn_status status() const noexcept { return status_; }

private:
    fnn_status status_;
};

namespace detail {
inline void check(fnn_status status) {
    if (status != FNN_STATUS_OK) throw Error(status, fnn_error_message());
}

inline std::string text(const char *maybe) { return maybe ? maybe : ""; }

inline const char *or_null(const std::string &text) { return text.empty() ? nullptr : text.c_str(); }

struct Free {
    void operator()(fnn_segmenter *segmenter) const noexcept { fnn_segmenter_free(segmenter); }
    void operator()(fnn_result *result) const noexcept { fnn_result_free(result); }
};
} // namespace detail

// A structure that can be found. What is not known is empty.
struct Label {
    std::uint16_t id;
    std::string name, color, snomed, meaning, side;
};

// How much of a structure was found.
struct Structure {
    std::uint16_t id;
    std::string name;
    std::uint64_t voxels;
    double ml;
};

struct Timing {
    std::string stage;
    double seconds;
};

// How far a run is. False stops it, and so does an exception, which then leaves the call that segments.
using Progress = std::function<bool(const char *stage, std::uint64_t done, std::uint64_t total)>;

// The choices of fnn_options, with texts that live as long as they are needed. Numbers are set in
// `numbers`; its texts are ignored.
struct Options {
    std::string quality, variant, models_dir, folds, checkpoint, postprocessing, device, precision, isa;
    std::vector<std::string> structures;
    fnn_options numbers = fnn_options();
};

// An image in memory as fnn_image has it, without a copy: voxels must stay until it is segmented.
// Axes are x, y, z; without strides x is the fastest and there are no gaps.
class Image : public fnn_image {
public:
    Image(const std::int16_t *voxels, std::size_t x, std::size_t y, std::size_t z)
        : Image(voxels, FNN_TYPE_INT16, x, y, z) {}
    Image(const float *voxels, std::size_t x, std::size_t y, std::size_t z)
        : Image(voxels, FNN_TYPE_FLOAT32, x, y, z) {}

    // In the axes of DICOM and ITK; see fnn_image_place.
    Image &place(const double (&origin)[3], const double (&directions)[9], const double (&spacing)[3]) {
        detail::check(fnn_image_place(this, origin, directions, spacing));
        return *this;
    }

private:
    Image(const void *first, fnn_type kind, std::size_t x, std::size_t y, std::size_t z) : fnn_image() {
        size = sizeof(fnn_image);
        voxels = first;
        type = kind;
        shape[0] = x, shape[1] = y, shape[2] = z;
    }
};

// The labels of a case, and what is known of them. Threads may share one.
class Result {
public:
    // Labels as they lie: x fastest, without gaps. Only where `type()` is FNN_TYPE_UINT8.
    const std::uint8_t *labels8() const { return static_cast<const std::uint8_t *>(labels(FNN_TYPE_UINT8)); }
    // As labels8(), for FNN_TYPE_UINT16.
    const std::uint16_t *labels16() const { return static_cast<const std::uint16_t *>(labels(FNN_TYPE_UINT16)); }

    fnn_type type() const {
        std::int32_t type = 0;
        fnn_result_labels(handle_.get(), &type);
        return static_cast<fnn_type>(type);
    }

    // Copies labels to the caller's array; strides are in bytes, none for x fastest without gaps.
    void copy_labels(std::uint8_t *first, const std::ptrdiff_t *strides = nullptr) const {
        detail::check(fnn_result_copy_labels(handle_.get(), FNN_TYPE_UINT8, first, strides));
    }
    void copy_labels(std::uint16_t *first, const std::ptrdiff_t *strides = nullptr) const {
        detail::check(fnn_result_copy_labels(handle_.get(), FNN_TYPE_UINT16, first, strides));
    }

    fnn_geometry geometry() const {
        fnn_geometry geometry = fnn_geometry();
        geometry.size = sizeof geometry;
        detail::check(fnn_result_geometry(handle_.get(), &geometry));
        return geometry;
    }

    std::vector<Structure> structures() const {
        std::vector<Structure> all;
        for (std::size_t i = 0; i < fnn_result_structure_count(handle_.get()); ++i) {
            fnn_structure one = fnn_structure();
            one.size = sizeof one;
            detail::check(fnn_result_structure(handle_.get(), i, &one));
            all.push_back({static_cast<std::uint16_t>(one.id), one.name, one.voxels, one.ml});
        }
        return all;
    }

    std::vector<Timing> timings() const {
        std::vector<Timing> all;
        for (std::size_t i = 0; i < fnn_result_timing_count(handle_.get()); ++i) {
            fnn_timing one = fnn_timing();
            one.size = sizeof one;
            detail::check(fnn_result_timing(handle_.get(), i, &one));
            all.push_back({one.stage, one.seconds});
        }
        return all;
    }

    std::vector<std::string> warnings() const {
        std::vector<std::string> all;
        for (std::size_t i = 0; i < fnn_result_warning_count(handle_.get()); ++i)
            all.push_back(detail::text(fnn_result_warning(handle_.get(), i)));
        return all;
    }

    std::uint64_t predicted_bytes() const noexcept { return fnn_result_predicted_bytes(handle_.get()); }

    void save(const std::string &path, bool replace = false) const {
        detail::check(fnn_result_save(handle_.get(), path.c_str(), replace));
    }

    // The C handle, still owned here.
    const fnn_result *get() const noexcept { return handle_.get(); }

private:
    friend class Segmenter;
    explicit Result(fnn_result *handle) : handle_(handle) {}

    const void *labels(fnn_type wanted) const {
        std::int32_t type = 0;
        const void *first = fnn_result_labels(handle_.get(), &type);
        if (type != wanted) throw Error(FNN_STATUS_USAGE, "labels: found another type, expected that of type()");
        return first;
    }

    std::unique_ptr<fnn_result, detail::Free> handle_;
};

// Networks that are open. Threads may share one; its cases take turns.
class Segmenter {
public:
    static Segmenter mode(const std::string &name, const Options &options = Options()) {
        return opened(options, [&](const fnn_options *given, fnn_segmenter **handle) {
            return fnn_open_mode(name.c_str(), given, handle);
        });
    }
    static Segmenter model(const std::string &name, const Options &options = Options()) {
        return opened(options, [&](const fnn_options *given, fnn_segmenter **handle) {
            return fnn_open_model(name.c_str(), given, handle);
        });
    }
    static Segmenter folder(const std::string &path, const Options &options = Options()) {
        return opened(options, [&](const fnn_options *given, fnn_segmenter **handle) {
            return fnn_open_folder(path.c_str(), given, handle);
        });
    }
    static Segmenter onnx(const std::string &file, const std::string &config, const Options &options = Options()) {
        return opened(options, [&](const fnn_options *given, fnn_segmenter **handle) {
            return fnn_open_onnx(file.c_str(), config.c_str(), given, handle);
        });
    }

    std::size_t channels() const noexcept { return fnn_segmenter_channels(handle_.get()); }
    std::string choice() const { return fnn_segmenter_choice(handle_.get()); }
    std::string grade() const { return fnn_segmenter_grade(handle_.get()); }

    std::vector<Label> labels() const {
        std::vector<Label> all;
        for (std::size_t i = 0; i < fnn_segmenter_label_count(handle_.get()); ++i) {
            fnn_label one = fnn_label();
            one.size = sizeof one;
            detail::check(fnn_segmenter_label(handle_.get(), i, &one));
            all.push_back({static_cast<std::uint16_t>(one.id), detail::text(one.name), detail::text(one.color),
                           detail::text(one.snomed), detail::text(one.meaning), detail::text(one.side)});
        }
        return all;
    }

    Result segment(const Image &image, const Progress &progress = Progress()) {
        return segment(&image, 1, progress);
    }
    // One image for each channel of the model.
    Result segment(const std::vector<Image> &images, const Progress &progress = Progress()) {
        return segment(images.data(), images.size(), progress);
    }
    // A file, or one for each channel of the model.
    Result segment_files(const std::vector<std::string> &paths, const Progress &progress = Progress()) {
        std::vector<const char *> pointers;
        for (const std::string &path : paths) pointers.push_back(path.c_str());
        return run(progress, [&](fnn_progress tell, void *user, fnn_result **result) {
            return fnn_segment_files(handle_.get(), pointers.data(), pointers.size(), tell, user, result);
        });
    }

    // The C handle, still owned here.
    fnn_segmenter *get() noexcept { return handle_.get(); }

private:
    explicit Segmenter(fnn_segmenter *handle) : handle_(handle) {}

    template <class Open> static Segmenter opened(const Options &options, Open open) {
        fnn_options given = options.numbers;
        given.size = sizeof given;
        given.quality = detail::or_null(options.quality);
        given.variant = detail::or_null(options.variant);
        given.models_dir = detail::or_null(options.models_dir);
        given.folds = detail::or_null(options.folds);
        given.checkpoint = detail::or_null(options.checkpoint);
        given.postprocessing = detail::or_null(options.postprocessing);
        given.device = detail::or_null(options.device);
        given.precision = detail::or_null(options.precision);
        given.isa = detail::or_null(options.isa);
        std::vector<const char *> structures;
        for (const std::string &name : options.structures) structures.push_back(name.c_str());
        given.structures = structures.data();
        given.structure_count = structures.size();
        fnn_segmenter *handle = nullptr;
        detail::check(open(&given, &handle));
        return Segmenter(handle);
    }

    // A callback that an exception waits in until the call has come back through C.
    struct Call {
        const Progress *progress;
        std::exception_ptr thrown;
    };

    static std::int32_t tell(void *user, const char *stage, std::uint64_t done, std::uint64_t total) noexcept {
        Call *call = static_cast<Call *>(user);
        try {
            return (*call->progress)(stage, done, total) ? 0 : 1;
        } catch (...) {
            call->thrown = std::current_exception();
            return 1;
        }
    }

    Result segment(const Image *images, std::size_t count, const Progress &progress) {
        return run(progress, [&](fnn_progress tell, void *user, fnn_result **result) {
            return fnn_segment_images(handle_.get(), images, count, tell, user, result);
        });
    }

    template <class Run> Result run(const Progress &progress, Run run) {
        Call call = {&progress, nullptr};
        fnn_result *result = nullptr;
        const fnn_status status = run(progress ? &Segmenter::tell : nullptr, &call, &result);
        if (call.thrown) std::rethrow_exception(call.thrown);
        detail::check(status);
        return Result(result);
    }

    std::unique_ptr<fnn_segmenter, detail::Free> handle_;
};

static_assert(sizeof(Image) == sizeof(fnn_image), "an array of one is an array of the other");

} // namespace fastnnunet

#endif
