/* Many small cases through two segmenters on two threads: int16 and float32, in every order of axes,
 * flipped and with gaps. Each must give the labels that the same voxels give without gaps, and that
 * the other type gives. `cases COUNT ISA` is run by itself, under Valgrind and with sanitizers. */

#include <fastnnunet.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct work {
    const char *model, *isa;
    unsigned cases, seed;
};

static unsigned next(unsigned *state, unsigned below) {
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

static void need(int is, const char *what) {
    if (is) return;
    fprintf(stderr, "%s: %s\n", what, fnn_error_message());
    exit(EXIT_FAILURE);
}

/* An array of one voxel type with room around every voxel; each block ends where the last voxel does, so
 * that a step too far is seen. */
static void *spread(const int16_t *packed, const size_t shape[3], int is_float, unsigned *state, ptrdiff_t strides[3], void **block) {
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    const int *order = orders[next(state, 6)];
    ptrdiff_t step = is_float ? sizeof(float) : sizeof(int16_t), first = 0;
    for (int k = 0; k < 3; k++) {
        int axis = order[k];
        step *= 1 + (ptrdiff_t)next(state, 2);
        strides[axis] = next(state, 2) ? step : -step;
        if (strides[axis] < 0) first += step * (ptrdiff_t)(shape[axis] - 1);
        step *= (ptrdiff_t)shape[axis];
    }
    size_t bytes = is_float ? sizeof(float) : sizeof(int16_t);
    for (int axis = 0; axis < 3; axis++) bytes += (size_t)labs(strides[axis]) * (shape[axis] - 1);
    *block = malloc(bytes);
    need(*block != NULL, "memory");
    memset(*block, 0x7f, bytes);
    char *base = (char *)*block + first;
    for (size_t z = 0; z < shape[2]; z++)
        for (size_t y = 0; y < shape[1]; y++)
            for (size_t x = 0; x < shape[0]; x++) {
                char *at = base + (ptrdiff_t)x * strides[0] + (ptrdiff_t)y * strides[1] + (ptrdiff_t)z * strides[2];
                int16_t value = packed[(z * shape[1] + y) * shape[0] + x];
                if (is_float) *(float *)at = (float)value;
                else *(int16_t *)at = value;
            }
    return base;
}

static fnn_image image_of(const void *voxels, fnn_type type, const size_t shape[3], unsigned seed) {
    fnn_image image = {sizeof image};
    /* A rotation about an axis, and as good as any other. */
    const double origin[3] = {-31.5, 12.25, 100}, directions[9] = {0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1};
    const double spacing[3] = {1.5 + seed % 3 * 0.5, 2, 1 + seed % 4};
    image.voxels = voxels, image.type = type;
    memcpy(image.shape, shape, sizeof image.shape);
    need(!fnn_image_place(&image, origin, directions, spacing), "geometry");
    return image;
}

static uint8_t *labels_of(fnn_segmenter *segmenter, const fnn_image *image, size_t count) {
    fnn_result *result;
    /* The second model takes two images; one serves as both. */
    const fnn_image images[2] = {*image, *image};
    need(!fnn_segment_images(segmenter, images, fnn_segmenter_channels(segmenter), NULL, NULL, &result), "segment");
    fnn_type type = 0;
    const void *own = fnn_result_labels(result, (int32_t *)&type);
    uint8_t *labels = malloc(count);
    need(own && type == FNN_TYPE_UINT8 && labels, "labels");
    need(!fnn_result_copy_labels(result, FNN_TYPE_UINT8, labels, NULL), "copy");
    need(!memcmp(own, labels, count), "copied labels differ");
    uint64_t found = 0;
    for (size_t i = 0; i < fnn_result_structure_count(result); i++) {
        fnn_structure one = {sizeof one};
        need(!fnn_result_structure(result, i, &one) && *one.name, "structure");
        found += one.voxels;
    }
    for (size_t i = 0; i < count; i++) found -= labels[i] != 0;
    need(found == 0, "statistics count other voxels");
    /* Into every second element of an array that ends there. */
    const ptrdiff_t strides[3] = {4, 4 * (ptrdiff_t)image->shape[0], 4 * (ptrdiff_t)(image->shape[0] * image->shape[1])};
    uint16_t *apart = malloc(2 * (2 * count - 1));
    need(apart && !fnn_result_copy_labels(result, FNN_TYPE_UINT16, apart, strides), "copy apart");
    for (size_t i = 0; i < count; i++) need(apart[2 * i] == labels[i], "labels apart differ");
    free(apart);
    fnn_result_free(result);
    return labels;
}

static void *work(void *argument) {
    struct work *work = argument;
    unsigned state = work->seed;
    fnn_options options = {sizeof options};
    options.isa = work->isa, options.precision = "f32", options.threads = 2;
    fnn_segmenter *segmenter;
    need(!fnn_open_model(work->model, &options, &segmenter), work->model);
    for (unsigned n = 0; n < work->cases; n++) {
        const size_t shape[3] = {8 + next(&state, 41), 8 + next(&state, 41), 4 + next(&state, 45)};
        size_t count = shape[0] * shape[1] * shape[2];
        int16_t *packed = malloc(count * sizeof *packed);
        need(packed != NULL, "memory");
        for (size_t i = 0; i < count; i++) packed[i] = (int16_t)(next(&state, 1400) - 500);
        fnn_image image = image_of(packed, FNN_TYPE_INT16, shape, n);
        uint8_t *expected = labels_of(segmenter, &image, count);
        void *block;
        int is_float = n % 2;
        image.voxels = spread(packed, shape, is_float, &state, image.strides, &block);
        image.type = is_float ? FNN_TYPE_FLOAT32 : FNN_TYPE_INT16;
        uint8_t *found = labels_of(segmenter, &image, count);
        need(!memcmp(expected, found, count), "labels depend on how the voxels lie");
        free(found), free(expected), free(block), free(packed);
    }
    fnn_segmenter_free(segmenter);
    return NULL;
}

int main(int argc, char **argv) {
    unsigned cases = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 4;
    const char *isa = argc > 2 ? argv[2] : NULL;
    struct work both[2] = {{"selftest", isa, cases / 2, 1}, {"selftest_2d", isa, cases - cases / 2, 2}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) need(!pthread_create(&threads[i], NULL, work, &both[i]), "thread");
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    printf("%u cases\n", cases);
    return EXIT_SUCCESS;
}
