"""Stage `tile`."""

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from common import Stage


def tile():
    stage = Stage("tile")
    axes = [(64, 64), (110, 64), (97, 64), (11, 6), (65, 64), (96, 64), (128, 64), (129, 64), (33, 32), (9, 8),
            (47, 24), (48, 24), (49, 24), (50, 24), (61, 24), (27, 24), (17, 16), (25, 16), (512, 160), (300, 128),
            (201, 96), (7, 7), (8, 7), (15, 7), (100, 7), (13, 1), (45, 15), (46, 15)]
    for image, patch in axes:
        for step in (0.5, 0.7, 0.8, 0.25, 1.0, 0.3):
            starts = compute_steps_for_sliding_window((image,), (patch,), step)[0]
            stage.add("steps", image=image, tile=patch, step=step, starts=starts)
    for image, patch, step in (((40, 70, 61), (16, 24, 24), 0.5), ((16, 24, 25), (16, 24, 24), 0.5)):
        starts = compute_steps_for_sliding_window(image, patch, step)
        stage.add("grids", image=image, tile=patch, step=step, starts=starts)
    for size in ((8, 8, 8), (9, 12, 16), (32, 20, 24), (4, 6, 5), (7, 7, 7), (128, 2, 2), (16, 24, 24), (3, 1, 2)):
        weights = compute_gaussian(size, sigma_scale=1 / 8, value_scaling_factor=10, device=torch.device("cpu"))
        assert weights.dtype == torch.float16
        file = stage.save("gaussian_" + "x".join(map(str, size)), weights.float().numpy())
        stage.add("gaussians", tile=size, value_scaling_factor=10, expected=file)
    for image, patch in (((10, 10, 10), (16, 24, 24)), ((15, 23, 25), (16, 24, 24)), ((16, 24, 24), (16, 24, 24)),
                         ((1, 1, 1), (16, 24, 24)), ((40, 7, 24), (16, 24, 24)), ((3, 34, 55), (3, 96, 64))):
        padded, slicer = pad_nd_image(torch.zeros((1, *image)), patch, "constant", {"value": 0}, True, None)
        low = [s.start for s in slicer[1:]]
        high = [p - s.stop for p, s in zip(padded.shape[1:], slicer[1:])]
        assert np.array_equal(np.add(low, high), np.subtract(padded.shape[1:], image))
        stage.add("padding", image=image, patch=patch, padded=padded.shape[1:], low=low, high=high)
    stage.close()
