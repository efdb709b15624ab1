/* Segments a CT that is in memory, and prints what was found.
 *
 *     segment MODEL CT.raw COLUMNS ROWS SLICES DX DY DZ LABELS.raw
 *
 * CT.raw holds the Hounsfield units of an axial series as int16, slice after slice from the feet up;
 * DX, DY and DZ are millimetres. LABELS.raw gets one byte per voxel in the same order. */

#include <fastnnunet.h>

#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, fnn_error_message());
    return EXIT_FAILURE;
}

/* Called while the case runs, not always by the thread that waits; anything but 0 would stop it. */
static int32_t tell(void *user, const char *stage, uint64_t done, uint64_t total) {
    if (done == total) fprintf(user, "%s: %llu done\n", stage, (unsigned long long)done);
    return 0;
}

/* The file's voxels; the process ends if they are not there. */
static int16_t *read_voxels(const char *path, size_t count) {
    FILE *file = fopen(path, "rb");
    int16_t *voxels = malloc(count * sizeof *voxels);
    if (!file || !voxels || fread(voxels, sizeof *voxels, count, file) != count) {
        fprintf(stderr, "%s: expected %zu voxels\n", path, count);
        exit(EXIT_FAILURE);
    }
    fclose(file);
    return voxels;
}

static int write_labels(const fnn_result *result, const char *path, size_t count) {
    uint8_t *labels = malloc(count);
    FILE *file = fopen(path, "wb");
    int wrong = !labels || !file;
    if (!wrong && fnn_result_copy_labels(result, FNN_TYPE_UINT8, labels, NULL)) wrong = failed("labels");
    if (!wrong) wrong = fwrite(labels, 1, count, file) != count;
    if (file && fclose(file)) wrong = 1;
    free(labels);
    return wrong;
}

static void print(const fnn_result *result) {
    for (size_t i = 0; i < fnn_result_structure_count(result); i++) {
        fnn_structure found = {sizeof found};
        if (fnn_result_structure(result, i, &found)) continue;
        printf("%u %s: %llu voxels, %.2f ml\n", found.id, found.name, (unsigned long long)found.voxels, found.ml);
    }
    for (size_t i = 0; i < fnn_result_timing_count(result); i++) {
        fnn_timing timing = {sizeof timing};
        if (fnn_result_timing(result, i, &timing)) continue;
        fprintf(stderr, "%s: %.3f s\n", timing.stage, timing.seconds);
    }
}

int main(int argc, char **argv) {
    if (argc != 10) {
        fprintf(stderr, "usage: segment MODEL CT.raw COLUMNS ROWS SLICES DX DY DZ LABELS.raw\n");
        return EXIT_FAILURE;
    }
    fnn_image image = {sizeof image};
    size_t count = 1;
    double spacing[3];
    for (int axis = 0; axis < 3; axis++) {
        image.shape[axis] = strtoull(argv[3 + axis], NULL, 10);
        spacing[axis] = strtod(argv[6 + axis], NULL);
        count *= image.shape[axis];
    }
    /* As DICOM has it: ImagePositionPatient, and columns of ImageOrientationPatient and the normal. */
    const double origin[3] = {0, 0, 0}, directions[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    if (fnn_image_place(&image, origin, directions, spacing)) return failed("geometry");
    int16_t *voxels = read_voxels(argv[2], count);
    image.voxels = voxels;
    image.type = FNN_TYPE_INT16;

    /* What is not set is left to the model. */
    fnn_options options = {sizeof options};
    options.precision = "f32";
    options.memory_limit_bytes = 2ull << 30;
    fnn_segmenter *segmenter;
    if (fnn_open_model(argv[1], &options, &segmenter)) return failed(argv[1]);
    fnn_result *result;
    if (fnn_segment_images(segmenter, &image, 1, tell, stderr, &result)) return failed(argv[2]);
    /* Another case could follow here: the networks stay open. */
    fnn_segmenter_free(segmenter);
    free(voxels);

    print(result);
    int wrong = write_labels(result, argv[9], count);
    fnn_result_free(result);
    return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}
