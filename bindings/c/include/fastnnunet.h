// fastnnunet: segments CT volumes with nnU-Net models. docs/embedding.md shows how it is used.
//
// Functions return how they ended; fnn_error_message() says in a sentence what was wrong. What begins
// with `size` is given its sizeof, so that library and header need not be of one version; zero is
// the default of every other field. Texts are UTF-8 and end in a zero byte. What a function opens or
// makes, its own function frees; no memory is freed by the other side. No function prints, exits, or
// throws. Made by cbindgen from src/, which tests/header.rs compares.


#ifndef FASTNNUNET_H
#define FASTNNUNET_H

#include <stddef.h>
#include <stdint.h>

// Bits of `fnn_options.mirror`: the axis of the network that is flipped.
#define FNN_MIRROR_X 1

// As `FNN_MIRROR_X`.
#define FNN_MIRROR_Y 2

// As `FNN_MIRROR_X`.
#define FNN_MIRROR_Z 4

// No test-time mirroring, whatever the model would do. Alone.
#define FNN_MIRROR_NONE 8

// How a call ended. The numbers are the exit codes of the program.
typedef enum {
    // As it should.
    FNN_STATUS_OK = 0,
    // By a fault of the library. The segmenter that was at work answers no more; the process and
    // everything else in it go on.
    FNN_STATUS_INTERNAL = 1,
    // The request is wrong in itself.
    FNN_STATUS_USAGE = 2,
    // An image cannot be read, or is not one that can be segmented.
    FNN_STATUS_INPUT = 3,
    // A model or its configuration is missing or invalid.
    FNN_STATUS_MODEL = 4,
    // A device is missing or failed.
    FNN_STATUS_DEVICE = 5,
    // More memory is needed than allowed.
    FNN_STATUS_MEMORY = 6,
    // A result could not be written; nothing was left behind.
    FNN_STATUS_OUTPUT = 7,
    // The progress callback said so.
    FNN_STATUS_INTERRUPTED = 130,
} fnn_status;

// The type of a voxel.
typedef enum {
    // Labels up to 255.
    FNN_TYPE_UINT8 = 1,
    // Labels up to 65535.
    FNN_TYPE_UINT16 = 2,
    // What scanners write.
    FNN_TYPE_INT16 = 3,
    // Values as they are.
    FNN_TYPE_FLOAT32 = 4,
} fnn_type;

// The labels of a case with all that is known of them. It never changes: any number of threads may
// read it. It does not need its segmenter any more.
typedef struct fnn_result fnn_result;

// Networks ready to segment case after case. Any thread may use it; calls that segment with the same
// one take turns. Several may work at a time, each with threads of its own.
typedef struct fnn_segmenter fnn_segmenter;

// An image in the caller's memory. It is read during the call and never changed; it is copied only
// where slices interleave in memory, and then for as long as it is resampled.
//
// Axes are in the order `x`, `y`, `z`, which is that of the columns of `affine`; for an ordinary CT
// `x` counts columns, `y` rows and `z` slices.
typedef struct {
    // `sizeof(fnn_image)`.
    size_t size;
    // The first voxel, aligned like its type.
    const void *voxels;
    // `FNN_TYPE_INT16` or `FNN_TYPE_FLOAT32`.
    int32_t type;
    // For the fields of versions to come; 0.
    int32_t reserved;
    // Voxels along x, y and z.
    size_t shape[3];
    // Bytes from a voxel to the next along x, y and z, negative where an axis runs backwards. All 0
    // for x fastest, then y, without gaps.
    ptrdiff_t strides[3];
    // What an int16 stands for: `stored * slope + intercept`, in Hounsfield units for a CT. A slope
    // of 0 counts as 1.
    double slope;
    // As `slope`.
    double intercept;
    // Millimetres per voxel along x, y and z. All 0 for the lengths of the columns of `affine`.
    double spacing[3];
    // From a voxel's index (x, y, z, 1) to millimetres right, anterior and superior in the patient,
    // as NIfTI has it: three rows of four. `fnn_image_place` makes it of what DICOM and ITK have.
    double affine[12];
} fnn_image;

// Which models answer, and how they run: what the command line can choose.
//
// Zero is the default of every field, so `fnn_options options = {sizeof options};` is the
// defaults, and so is NULL in place of the struct. Texts are needed during the call only.
typedef struct {
    // `sizeof(fnn_options)`.
    size_t size;
    // Grid of a mode's model: `lowest`, `low`, `medium` or `high`; NULL for the finest of the best
    // grade.
    const char *quality;
    // Set of structures of a mode that offers several.
    const char *variant;
    // Structures of a mode to keep, by name; one that ends in `*` stands for all that begin so. NULL
    // for all. Models that label none of them do not run.
    const char *const *structures;
    // How many.
    size_t structure_count;
    // A folder of models of one's own, looked into before those of the library.
    const char *models_dir;
    // Folds of a trained folder: `all`, or numbers such as `0,1,2`; NULL for those that are there.
    const char *folds;
    // File of a trained folder's weights; NULL for `checkpoint_final.pth`, else
    // `checkpoint_best.pth`.
    const char *checkpoint;
    // A recipe for cleaning up, as JSON file, or `none`; NULL for that of the mode or model.
    const char *postprocessing;
    // `cpu`, `cuda:0`, ...; NULL for the fastest of this build and machine.
    const char *device;
    // `f32`, `f16`, `bf16` or `int8`; NULL for the fastest that was measured to give the same labels.
    const char *precision;
    // Highest instruction set of the CPU to use, such as `avx2` or `scalar`; NULL for the best.
    const char *isa;
    // Axes flipped for test-time averaging: bits such as `FNN_MIRROR_X`, or `FNN_MIRROR_NONE`; 0
    // for the model's choice.
    uint32_t mirror;
    // Threads of the segmenter; 0 for one per processor.
    uint32_t threads;
    // Distance between tiles as a fraction of the patch, from 0.01 to 1; 0 for the model's choice.
    double step_size;
    // Weight tiles by a Gaussian: 1 yes, -1 no, 0 the model's choice.
    int32_t gaussian;
    // Not 0: divide bone into cortical and trabecular bone, in a mode that can.
    int32_t divide_bone;
    // Not 0: treat tiles that hold nothing denser than -400 HU as air, whose answer is computed
    // once.
    int32_t skip_air;
    // For the fields of versions to come; 0.
    int32_t reserved;
    // Bytes of memory a case may hold, networks and the library itself included; more is an error,
    // or the next smaller model of the mode. 0 for any.
    uint64_t memory_limit_bytes;
    // Bytes of a GPU's memory to plan with; 0 for what is free.
    uint64_t gpu_memory_limit_bytes;
} fnn_options;

// One structure that a segmenter can find. Texts live as long as the segmenter.
typedef struct {
    // `sizeof(fnn_label)`.
    size_t size;
    // Its value in label maps; 0 is the background and not listed.
    uint32_t id;
    // For the fields of versions to come; 0.
    uint32_t reserved;
    // Its name: TotalSegmentator's where it has one.
    const char *name;
    // `#rrggbb`, or NULL.
    const char *color;
    // SNOMED CT code of what it is, or NULL.
    const char *snomed;
    // What the code means, in the words of DICOM's context groups, or NULL.
    const char *meaning;
    // `left` or `right` where the code does not say it, or NULL.
    const char *side;
} fnn_label;

// What is called while a case runs: `done` of `total` units of a stage (`load`, `crop`, `normalize`,
// `resample`, `infer`, `label`, `postprocess`) are finished. Returning anything but 0 stops the run,
// which then ends with `FNN_STATUS_INTERRUPTED`.
//
// It is called by one thread at a time, often not by the one that waits for the result. It must not
// throw or jump out, free the segmenter, or segment: that is refused with `FNN_STATUS_USAGE`.
typedef int32_t (*fnn_progress)(void *user, const char *stage, uint64_t done, uint64_t total);

// Where labels lie: on the grid of the case's first image.
typedef struct {
    // `sizeof(fnn_geometry)`.
    size_t size;
    // Voxels along x, y and z.
    size_t shape[3];
    // Millimetres per voxel along x, y and z.
    double spacing[3];
    // As `fnn_image.affine`.
    double affine[12];
} fnn_geometry;

// How much of a structure was found. The name lives as long as the result.
typedef struct {
    // `sizeof(fnn_structure)`.
    size_t size;
    // Its value in the label map.
    uint32_t id;
    // For the fields of versions to come; 0.
    uint32_t reserved;
    // Its name.
    const char *name;
    // Voxels that have it.
    uint64_t voxels;
    // Their volume in millilitres.
    double ml;
} fnn_structure;

// How long a stage took.
typedef struct {
    // `sizeof(fnn_timing)`.
    size_t size;
    // Its name, as a progress callback is told it. It lives as long as the process.
    const char *stage;
    // Wall time, all networks together.
    double seconds;
} fnn_timing;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What went wrong in the last call of this thread that did not return `FNN_STATUS_OK`: one sentence
// in UTF-8, which says what was found and what was expected. Valid until the next such call of the
// same thread; empty before the first. Names of files may be in it, attributes of patients never.
const char *fnn_error_message(void);

// The version of the library, for instance `"0.1.0"`. The shared library's name and symbols carry
// its first two numbers: they stay the same as long as the interface does.
const char *fnn_version(void);

// Sets `spacing` and `affine` from a geometry in the axes of DICOM and ITK, which run to the left,
// posterior and superior: the `origin` of the first voxel, and `directions`, three rows of three, whose
// columns are the unit vectors along x, y and z.
//
// `image` points to a struct with its size set; the others to 3, 9 and 3 numbers.
fnn_status fnn_image_place(fnn_image *image,
                           const double *origin,
                           const double *directions,
                           const double *spacing);

// Opens a mode such as `bone` with the best of its models.
//
// Texts end in a zero byte, `options` is NULL or a struct with its size, and `segmenter` points to a
// place for a pointer. On success it holds a segmenter that `fnn_segmenter_free` frees, else NULL.
fnn_status fnn_open_mode(const char *mode,
                         const fnn_options *options,
                         fnn_segmenter **segmenter);

// Opens a model by its name, as `fastnnunet models` lists it.
//
// As `fnn_open_mode`.
fnn_status fnn_open_model(const char *name, const fnn_options *options, fnn_segmenter **segmenter);

// Opens a folder that nnU-Net v2 trained: the one with `plans.json`, `dataset.json` and folds.
//
// As `fnn_open_mode`.
fnn_status fnn_open_folder(const char *path, const fnn_options *options, fnn_segmenter **segmenter);

// Opens an ONNX file with its configuration, a JSON file.
//
// As `fnn_open_mode`.
fnn_status fnn_open_onnx(const char *onnx,
                         const char *config,
                         const fnn_options *options,
                         fnn_segmenter **segmenter);

// Frees a segmenter that no call uses any more. Results stay. NULL is allowed.
//
// `segmenter` is NULL or came from a function that opens, and is not used again.
void fnn_segmenter_free(fnn_segmenter *segmenter);

// Images per case; 0 for NULL.
//
// `segmenter` is NULL or open.
size_t fnn_segmenter_channels(const fnn_segmenter *segmenter);

// One sentence: which models answer, and why these; empty where they were asked for by name.
//
// `segmenter` is NULL or open; the text lives as long as it.
const char *fnn_segmenter_choice(const fnn_segmenter *segmenter);

// How much the least trusted of the models may be trusted: `demo`, `starter`, `external`, ... as
// docs/models.md explains.
//
// As `fnn_segmenter_choice`.
const char *fnn_segmenter_grade(const fnn_segmenter *segmenter);

// How many structures the segmenter can find; 0 for NULL.
//
// `segmenter` is NULL or open.
size_t fnn_segmenter_label_count(const fnn_segmenter *segmenter);

// Fills `label` with the structure of that index, in ascending id.
//
// `segmenter` is NULL or open, and `label` a struct with its size.
fnn_status fnn_segmenter_label(const fnn_segmenter *segmenter, size_t index, fnn_label *label);

// Segments a case whose `count` images, one for each channel of the model, are in the caller's memory.
// `progress` may be NULL; `user` is handed to it. On success `result` holds what `fnn_result_free`
// frees, else NULL.
//
// `segmenter` is NULL or open; `images` points to `count` structs as their fields say, whose voxels
// stay as they are until the call ends; `result` points to a place for a pointer; and `progress` may
// be called with `user` from any thread.
fnn_status fnn_segment_images(fnn_segmenter *segmenter,
                              const fnn_image *images,
                              size_t count,
                              fnn_progress progress,
                              void *user,
                              fnn_result **result);

// As `fnn_segment_images`, of images in files: NIfTI, or DICOM files, folders or zips with one CT
// series in them.
//
// As `fnn_segment_images`, with `paths` pointing to `count` texts that end in a zero byte.
fnn_status fnn_segment_files(fnn_segmenter *segmenter,
                             const char *const *paths,
                             size_t count,
                             fnn_progress progress,
                             void *user,
                             fnn_result **result);

// Frees a result that no call uses any more. NULL is allowed.
//
// `result` is NULL or came from a function that segments, and is not used again.
void fnn_result_free(fnn_result *result);

// Fills `geometry` with shape and place of the labels.
//
// `result` is NULL or not freed, and `geometry` a struct with its size.
fnn_status fnn_result_geometry(const fnn_result *result, fnn_geometry *geometry);

// The labels where they are: x fastest, then y, without gaps, one byte each (`FNN_TYPE_UINT8`) or two
// (`FNN_TYPE_UINT16`), as `type` then says. NULL for NULL.
//
// `result` is NULL or not freed, which the labels live as long as; `type` points to a place for a
// number or is NULL.
const void *fnn_result_labels(const fnn_result *result,
                              int32_t *type);

// Copies the labels to an array of the caller's, whose first voxel is `first`. `type` is
// `FNN_TYPE_UINT8`, if no structure has an id above 255, or `FNN_TYPE_UINT16`; `strides` are the bytes
// from a voxel to the next along x, y and z, or NULL for x fastest without gaps.
//
// `result` is NULL or not freed; `strides` is NULL or points to 3 numbers; all that shape and strides
// reach from `first` can be written.
fnn_status fnn_result_copy_labels(const fnn_result *result,
                                  int32_t type,
                                  void *first,
                                  const ptrdiff_t *strides);

// How many structures can occur in the labels, found or not; 0 for NULL.
//
// `result` is NULL or not freed.
size_t fnn_result_structure_count(const fnn_result *result);

// Fills `structure` with the one of that index, in ascending id.
//
// `result` is NULL or not freed, and `structure` a struct with its size.
fnn_status fnn_result_structure(const fnn_result *result, size_t index, fnn_structure *structure);

// How many stages were timed; 0 for NULL.
//
// `result` is NULL or not freed.
size_t fnn_result_timing_count(const fnn_result *result);

// Fills `timing` with the stage of that index, in the order in which they ran.
//
// `result` is NULL or not freed, and `timing` a struct with its size.
fnn_status fnn_result_timing(const fnn_result *result, size_t index, fnn_timing *timing);

// How many things were odd but usable about the files; 0 for NULL.
//
// `result` is NULL or not freed.
size_t fnn_result_warning_count(const fnn_result *result);

// One of them as a sentence; NULL if there is none of that index.
//
// `result` is NULL or not freed, which the text lives as long as.
const char *fnn_result_warning(const fnn_result *result, size_t index);

// Bytes that the case was expected to hold at its largest moment; 0 for NULL.
//
// `result` is NULL or not freed.
uint64_t fnn_result_predicted_bytes(const fnn_result *result);

// Writes the labels as NIfTI, `.nii` or `.nii.gz`, whole or not at all: of a file the bytes that the
// program writes. A file that is there is replaced if `replace` is not 0, else it is an error.
//
// `result` is NULL or not freed, and `path` a text that ends in a zero byte.
fnn_status fnn_result_save(const fnn_result *result,
                           const char *path,
                           int32_t replace);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FASTNNUNET_H */
