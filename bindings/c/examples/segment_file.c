#include <fastnnunet.h>
#include <stdio.h>

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: segment_file MODEL CT.nii.gz LABELS.nii.gz\n"), 2;
    const char *paths[] = {argv[2]};
    fnn_options options = {sizeof options};
    options.precision = "f32";
    fnn_segmenter *segmenter = NULL;
    fnn_result *result = NULL;
    fnn_status status = fnn_open_model(argv[1], &options, &segmenter);
    if (!status) status = fnn_segment_files(segmenter, paths, 1, NULL, NULL, &result);
    if (!status) status = fnn_result_save(result, argv[3], 0);
    if (status) fprintf(stderr, "%s\n", fnn_error_message());
    fnn_result_free(result);
    fnn_segmenter_free(segmenter);
    return status;
}
