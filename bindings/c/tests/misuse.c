/* What a caller can do wrong: each ends in a status and a sentence, and the library goes on. */

#include <fastnnunet.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

/* That a call ended in `status`, with `part` in its sentence. */
static void expect(const char *claim, fnn_status found, fnn_status status, const char *part) {
    const char *message = fnn_error_message();
    if (found == status && strstr(message, part)) return;
    fprintf(stderr, "%s: status %d, \"%s\"; expected %d and \"%s\"\n", claim, found, message, status, part);
    failures++;
}

static void is_true(const char *claim, int is) {
    if (is) return;
    fprintf(stderr, "not true: %s\n", claim);
    failures++;
}

static fnn_segmenter *open_with(const fnn_options *options) {
    fnn_segmenter *segmenter;
    if (fnn_open_model("selftest", options, &segmenter)) {
        fprintf(stderr, "selftest: %s\n", fnn_error_message());
        exit(EXIT_FAILURE);
    }
    return segmenter;
}

static void options(void) {
    fnn_segmenter *segmenter = (fnn_segmenter *)1;
    fnn_options given = {0};
    expect("size not set", fnn_open_model("selftest", &given, &segmenter), FNN_STATUS_USAGE, "sizeof(fnn_options)");
    is_true("a failed call leaves NULL", segmenter == NULL);
    given.size = sizeof given;
    expect("no such model", fnn_open_model("lungfish", &given, &segmenter), FNN_STATUS_USAGE, "lungfish");
    expect("no such mode", fnn_open_mode("lungfish", NULL, &segmenter), FNN_STATUS_USAGE, "lungfish");
    expect("no name", fnn_open_mode(NULL, NULL, &segmenter), FNN_STATUS_USAGE, "mode: found NULL");
    expect("not UTF-8", fnn_open_mode("\xff", NULL, &segmenter), FNN_STATUS_USAGE, "UTF-8");
    expect("no place", fnn_open_mode("bone", NULL, NULL), FNN_STATUS_USAGE, "segmenter: found NULL");
    expect("no folder", fnn_open_folder("/nowhere", NULL, &segmenter), FNN_STATUS_MODEL, "/nowhere");
    given.precision = "f23";
    expect("no such precision", fnn_open_model("selftest", &given, &segmenter), FNN_STATUS_USAGE, "f23");
    given.precision = NULL;
    given.mirror = FNN_MIRROR_NONE | FNN_MIRROR_X;
    expect("mirror", fnn_open_model("selftest", &given, &segmenter), FNN_STATUS_USAGE, "mirror: found 9");
    given.mirror = 0;
    given.gaussian = 2;
    expect("gaussian", fnn_open_model("selftest", &given, &segmenter), FNN_STATUS_USAGE, "gaussian: found 2");
    given.gaussian = 0;
    given.structure_count = 1;
    expect("structures", fnn_open_model("selftest", &given, &segmenter), FNN_STATUS_USAGE, "NULL for 1");

    /* A header to come: what it has beyond this one must be zero. */
    struct { fnn_options known; uint64_t later; } newer = {{sizeof newer}, 0};
    fnn_segmenter_free(open_with(&newer.known));
    newer.later = 1;
    expect("a later option", fnn_open_model("selftest", &newer.known, &segmenter), FNN_STATUS_USAGE, "fields beyond");
}

enum { X = 40, Y = 36, Z = 20 };
static int16_t voxels[Z * Y * X];

static fnn_image image(void) {
    fnn_image image = {sizeof image};
    const double origin[3] = {0}, directions[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1}, spacing[3] = {2, 2, 3};
    image.voxels = voxels, image.type = FNN_TYPE_INT16;
    image.shape[0] = X, image.shape[1] = Y, image.shape[2] = Z;
    if (fnn_image_place(&image, origin, directions, spacing)) failures++;
    return image;
}

/* That an image is refused. */
static void refuse(const char *claim, fnn_segmenter *segmenter, const fnn_image *image, fnn_status status, const char *part) {
    fnn_result *result = (fnn_result *)1;
    expect(claim, fnn_segment_images(segmenter, image, 1, NULL, NULL, &result), status, part);
    is_true("a refused image leaves NULL", result == NULL);
}

static void images(fnn_segmenter *segmenter) {
    fnn_image wrong = image();
    wrong.voxels = NULL;
    refuse("no voxels", segmenter, &wrong, FNN_STATUS_USAGE, "voxels: found NULL");
    wrong = image(), wrong.voxels = (const char *)voxels + 1;
    refuse("not aligned", segmenter, &wrong, FNN_STATUS_USAGE, "aligned");
    wrong = image(), wrong.type = FNN_TYPE_UINT8;
    refuse("type", segmenter, &wrong, FNN_STATUS_USAGE, "type: found 1");
    wrong = image(), wrong.type = 77;
    refuse("no such type", segmenter, &wrong, FNN_STATUS_USAGE, "type: found 77");
    wrong = image(), wrong.strides[0] = 3;
    refuse("strides", segmenter, &wrong, FNN_STATUS_USAGE, "multiples of 2 bytes");
    wrong = image(), wrong.shape[2] = SIZE_MAX / 2;
    refuse("more than memory", segmenter, &wrong, FNN_STATUS_USAGE, "more than memory can hold");
    wrong = image(), wrong.shape[1] = 0;
    refuse("no voxels along y", segmenter, &wrong, FNN_STATUS_INPUT, "at least one");
    wrong = image(), memset(wrong.affine, 0, sizeof wrong.affine);
    refuse("no affine", segmenter, &wrong, FNN_STATUS_INPUT, "affine");
    wrong = image(), wrong.spacing[0] = 3;
    refuse("another spacing", segmenter, &wrong, FNN_STATUS_INPUT, "affine steps by");
    wrong = image(), wrong.slope = 1e300;
    refuse("infinite values", segmenter, &wrong, FNN_STATUS_INPUT, "not finite");
    static float values[Z * Y * X];
    values[7] = 0.0f / (float)(values[0] != 0.0f);
    wrong = image(), wrong.voxels = values, wrong.type = FNN_TYPE_FLOAT32;
    refuse("NaN", segmenter, &wrong, FNN_STATUS_INPUT, "1 of 28800 voxels that are not finite");
    values[7] = 0, wrong.slope = 2;
    refuse("scaled floats", segmenter, &wrong, FNN_STATUS_USAGE, "slope");
    fnn_result *result;
    fnn_image two[2] = {image(), image()};
    expect("two for one", fnn_segment_images(segmenter, two, 2, NULL, NULL, &result), FNN_STATUS_INPUT, "2 images");
    expect("none for one", fnn_segment_images(segmenter, two, 0, NULL, NULL, &result), FNN_STATUS_USAGE, "none");
    expect("no segmenter", fnn_segment_images(NULL, two, 1, NULL, NULL, &result), FNN_STATUS_USAGE, "segmenter");
    const char *paths[] = {"/nowhere.nii.gz"};
    expect("no file", fnn_segment_files(segmenter, paths, 1, NULL, NULL, &result), FNN_STATUS_INPUT, "/nowhere.nii.gz");
}

struct run {
    fnn_segmenter *segmenter;
    int calls, stop_at;
    fnn_status inside;
};

static int32_t tell(void *user, const char *stage, uint64_t done, uint64_t total) {
    struct run *run = user;
    fnn_image same = image();
    fnn_result *result;
    (void)stage, (void)total, (void)done;
    run->inside = fnn_segment_images(run->segmenter, &same, 1, NULL, NULL, &result);
    return ++run->calls == run->stop_at;
}

static void callbacks(fnn_segmenter *segmenter) {
    fnn_image given = image();
    fnn_result *result;
    struct run run = {segmenter, 0, 3, FNN_STATUS_OK};
    expect("stopped", fnn_segment_images(segmenter, &given, 1, tell, &run, &result), FNN_STATUS_INTERRUPTED, "interrupted");
    is_true("nothing is called after a stop", run.calls == 3);
    is_true("a callback cannot segment", run.inside == FNN_STATUS_USAGE);
    run.stop_at = 0;
    is_true("a stopped segmenter goes on", fnn_segment_images(segmenter, &given, 1, tell, &run, &result) == FNN_STATUS_OK);
    is_true("all steps are told", run.calls > 6);
    fnn_structure found = {sizeof found};
    expect("no such structure", fnn_result_structure(result, 99, &found), FNN_STATUS_USAGE, "index: found 99");
    found.size = 4;
    expect("structure without size", fnn_result_structure(result, 0, &found), FNN_STATUS_USAGE, "sizeof(fnn_structure)");
    uint16_t labels[Z * Y * X];
    expect("no array", fnn_result_copy_labels(result, FNN_TYPE_UINT16, NULL, NULL), FNN_STATUS_USAGE, "NULL");
    expect("labels as floats", fnn_result_copy_labels(result, FNN_TYPE_FLOAT32, labels, NULL), FNN_STATUS_USAGE, "found 4");
    expect("no ending", fnn_result_save(result, "labels.txt", 0), FNN_STATUS_USAGE, "labels.txt");
    fnn_result_free(result);
}

/* A copy of a process has none of its threads. */
static void forks(fnn_segmenter *segmenter) {
    pid_t child = fork();
    if (child == 0) {
        fnn_image given = image();
        fnn_result *result;
        fnn_segmenter *other;
        failures = 0;
        expect("a fork", fnn_segment_images(segmenter, &given, 1, NULL, NULL, &result), FNN_STATUS_USAGE, "process: found a fork");
        expect("another in a fork", fnn_open_model("selftest", NULL, &other), FNN_STATUS_USAGE, "process: found a fork");
        _exit(failures);
    }
    int status = -1;
    is_true("a fork is refused", child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

int main(void) {
    for (size_t i = 0; i < sizeof voxels / sizeof *voxels; i++) voxels[i] = (int16_t)(i * 37 % 800 - 400);
    is_true("there is no message before the first error", *fnn_error_message() == '\0');
    options();
    fnn_segmenter *segmenter = open_with(NULL);
    images(segmenter);
    callbacks(segmenter);
    forks(segmenter);
    fnn_label label = {sizeof label};
    expect("no such label", fnn_segmenter_label(segmenter, 3, &label), FNN_STATUS_USAGE, "index: found 3");
    is_true("labels have names", !fnn_segmenter_label(segmenter, 2, &label) && !strcmp(label.name, "three") && label.id == 3);
    is_true("and colors", !strcmp(label.color, "#4363d8") && label.snomed == NULL);
    is_true("one image a case", fnn_segmenter_channels(segmenter) == 1);
    is_true("graded", !strcmp(fnn_segmenter_grade(segmenter), "test"));
    fnn_segmenter_free(segmenter);

    /* NULL is nothing everywhere. */
    fnn_segmenter_free(NULL);
    fnn_result_free(NULL);
    is_true("NULL is empty", !fnn_segmenter_channels(NULL) && !fnn_segmenter_label_count(NULL) && !*fnn_segmenter_choice(NULL) &&
                                 !fnn_result_structure_count(NULL) && !fnn_result_timing_count(NULL) && !fnn_result_labels(NULL, NULL) &&
                                 !fnn_result_warning_count(NULL) && !fnn_result_warning(NULL, 0) && !fnn_result_predicted_bytes(NULL));
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
