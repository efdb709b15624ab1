"""Stage `resample`."""

import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape, determine_do_sep_z_and_axis, resample_data_or_seg_to_shape)

from common import Stage, noise, smooth

ISO, COARSE = (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)
Z5, Y5, X5 = (5.0, 1.0, 1.0), (1.0, 5.0, 1.0), (1.0, 1.0, 5.0)

# (name, input shape, output shape, current spacing, new spacing); data, order 3
CUBIC = [
    ("identity", (6, 7, 8), (6, 7, 8), ISO, ISO),
    ("up", (7, 8, 9), (12, 14, 15), COARSE, (1.2, 1.2, 1.2)),
    ("down", (12, 13, 14), (5, 6, 7), ISO, COARSE),
    ("down_by_two", (8, 10, 12), (4, 5, 6), ISO, COARSE),
    ("up_by_two", (5, 6, 7), (10, 12, 14), COARSE, ISO),
    ("mixed", (6, 15, 14), (13, 7, 9), (2.5, 1.0, 1.0), (1.2, 2.1, 1.6)),
    ("odd", (7, 11, 5), (9, 8, 13), (1.3, 0.9, 2.0), (1.0, 1.2, 0.8)),
    ("one_axis", (7, 8, 9), (7, 8, 17), ISO, (1.0, 1.0, 0.53)),
    ("from_one_slice", (1, 9, 10), (3, 14, 7), (2.0, 1.0, 1.0), (0.7, 0.65, 1.4)),
    ("one_slice", (1, 9, 10), (1, 14, 7), (2.0, 1.0, 1.0), (2.0, 0.65, 1.4)),
    ("to_one_slice", (6, 7, 8), (1, 4, 5), ISO, (2.9, 1.75, 1.6)),
    ("tiny", (2, 2, 2), (5, 6, 3), COARSE, (0.8, 0.7, 1.3)),
    ("separate_z", (5, 9, 8), (8, 13, 6), Z5, (3.0, 0.7, 1.3)),
    ("separate_z_down", (9, 9, 8), (4, 6, 11), Z5, (11.0, 1.5, 0.7)),
    ("separate_z_same_depth", (5, 9, 8), (5, 12, 12), Z5, (5.0, 0.75, 0.67)),
    ("separate_z_same_plane", (5, 9, 8), (9, 9, 8), Z5, (2.8, 1.0, 1.0)),
    ("separate_y", (9, 5, 8), (13, 8, 6), Y5, (0.7, 3.0, 1.3)),
    ("separate_x", (9, 8, 5), (6, 13, 8), X5, (1.5, 0.6, 3.1)),
    ("separate_by_new_spacing", (10, 7, 8), (4, 9, 10), (2.0, 1.0, 1.0), (5.0, 0.8, 0.8)),
    ("separate_one_slice", (1, 9, 10), (2, 12, 8), Z5, (2.5, 0.75, 1.25)),
    ("separate_nearest_tie", (8, 6, 5), (4, 7, 6), Z5, (10.0, 0.86, 0.83)),
    ("ratio_three_is_plain", (6, 8, 7), (9, 6, 8), (3.0, 1.0, 1.0), (2.0, 1.33, 0.9)),
    ("two_coarse_axes_are_plain", (8, 6, 5), (5, 9, 8), (1.0, 4.0, 4.0), (1.6, 2.7, 2.5)),
]

# data, order 3, and a spline along the separate axis
SPLINE_Z = [
    ("separate_z", (5, 9, 8), (8, 13, 6), Z5, (3.0, 0.7, 1.3)),
    ("separate_y", (9, 7, 8), (13, 4, 6), Y5, (0.7, 8.6, 1.3)),
    ("separate_x", (9, 8, 5), (6, 13, 8), X5, (1.5, 0.6, 3.1)),
]

# logits, order 1
LINEAR = [
    ("linear_up", 3, (5, 6, 7), (9, 11, 12), COARSE, (1.1, 1.1, 1.2)),
    ("linear_down", 3, (10, 9, 11), (5, 4, 7), ISO, (2.0, 2.2, 1.6)),
    ("linear_separate_z", 3, (5, 7, 6), (8, 10, 9), Z5, (3.1, 0.7, 0.67)),
    ("linear_separate_y", 2, (7, 5, 6), (10, 4, 9), Y5, (0.7, 6.3, 0.67)),
    ("linear_separate_by_new_spacing", 2, (6, 7, 6), (4, 10, 9), (2.4, 1.0, 1.0), (3.6, 0.7, 0.67)),
    ("linear_from_one_slice", 2, (1, 6, 7), (3, 9, 9), COARSE, (0.7, 1.3, 1.5)),
    ("linear_identity", 2, (4, 5, 6), (4, 5, 6), ISO, ISO),
]

# label maps, order 1
LABELS = [
    ("labels_up", (6, 7, 8), (11, 12, 15), COARSE, (1.1, 1.2, 1.1)),
    ("labels_up_by_two", (5, 6, 7), (10, 12, 14), COARSE, ISO),
    ("labels_down_by_two", (8, 10, 12), (4, 5, 6), ISO, COARSE),
    ("labels_up_by_three", (4, 5, 6), (12, 15, 18), (3.0, 3.0, 3.0), ISO),
    ("labels_separate_z", (5, 8, 7), (8, 12, 10), Z5, (3.0, 0.67, 0.7)),
    ("labels_separate_same_depth", (5, 8, 7), (5, 12, 14), Z5, (5.0, 0.67, 0.5)),
    ("labels_identity", (4, 5, 6), (4, 5, 6), ISO, ISO),
]


def resample():
    stage = Stage("resample")

    def add(name, kind, data, new_shape, current, new, order, dtype, stored, order_z=0):
        is_seg = kind == "labels"
        out = resample_data_or_seg_to_shape(data.copy(), new_shape, current, new, is_seg=is_seg,
                                            order=order, order_z=order_z, force_separate_z=None)
        assert out.dtype == data.dtype
        separate, axis = determine_do_sep_z_and_axis(None, current, new)
        stage.add("cases", name=name, kind=kind, dtype=dtype, is_seg=is_seg, order=order, order_z=order_z,
                  force_separate_z=None, shape=data.shape[1:], new_shape=new_shape,
                  current_spacing=current, new_spacing=new, separate_axis=axis if separate else None,
                  input=stage.save(name, data.astype(stored)),
                  expected=stage.save(f"{name}_expected", out.astype(stored)))

    f32, f16 = np.float32, np.float16
    for order_z in (1, 3):
        for seed, (name, shape, to, current, new) in enumerate(SPLINE_Z, 60):
            add(f"{name}_order_z_{order_z}", "image", noise((1, *shape), seed), to, current, new, 3, "f32", f32,
                order_z)
    for seed, (name, shape, to, current, new) in enumerate(CUBIC):
        add(name, "image", noise((1, *shape), seed), to, current, new, 3, "f32", f32)
    step = np.zeros((1, 6, 8, 9), f32)
    step[0, 2:4, 3:6, 4:] = 1000
    add("step_is_clipped", "image", step - 500, (10, 11, 13), COARSE, (1.2, 1.45, 1.4), 3, "f32", f32)
    thin = step[:, :4].copy()
    add("step_is_clipped_per_slice", "image", thin, (6, 13, 12), Z5, (3.3, 0.6, 0.75), 3, "f32", f32)
    add("two_channels", "image", noise((2, 5, 6, 7), 90), (8, 7, 5), COARSE, (1.25, 1.7, 2.8), 3, "f32", f32)
    for seed, (name, channels, shape, to, current, new) in enumerate(LINEAR, 100):
        logits = 4 * noise((channels, *shape), seed)
        add(name, "logits", logits, to, current, new, 1, "f32", f32)
    for name, channels, shape, to, current, new in LINEAR[:3]:
        # What prediction really feeds to the resampler: computed in f64, stored as fp16.
        half = (4 * noise((channels, *shape), 120)).astype(f16)
        add(f"{name}_f16", "logits", half, to, current, new, 1, "f16", f32)
    for seed, (name, shape, to, current, new) in enumerate(LABELS, 200):
        labels = np.clip(np.round(1.5 + 1.5 * smooth((1, *shape), seed, 0.7)), -1, 5).astype(np.int16)
        add(name, "labels", labels, to, current, new, 1, "i16", np.int16)

    shapes = [
        ((5, 5, 5), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)), ((7, 7, 7), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)),
        ((1, 3, 9), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)), ((1, 1, 1), (0.7, 0.5, 0.49), (1.0, 1.0, 1.0)),
        ((512, 512, 100), (0.7, 0.7, 5.0), (1.5, 1.5, 1.5)), ((131, 512, 512), (2.5, 0.78125, 0.78125), (3.0, 0.78015, 0.78015)),
        ((20, 44, 48), (2.5, 0.9, 0.9), (3.0, 2.0, 2.0)), ((33, 35, 37), (1.5, 1.5, 1.5), (3.0, 3.0, 3.0)),
        ((15, 25, 45), (0.3, 0.1, 0.7), (1.0, 1.0, 1.0)), ((15, 25, 45), (0.1, 0.1, 0.1), (0.3, 0.2, 0.7)),
        ((3, 5, 7), (1.1, 1.1, 1.1), (2.2, 2.2, 2.2)), ((3, 5, 7), (0.7, 0.7, 0.7), (1.4, 1.4, 1.4)),
        ((10, 10, 10), (0.1, 0.15, 0.35), (1.0, 1.0, 1.0)), ((80, 80, 80), (2.9999999, 3.0, 3.0000001), (3.0, 3.0, 3.0)),
    ]
    for shape, old, new in shapes:
        stage.add("new_shape", shape=shape, old_spacing=old, new_spacing=new,
                  expected=compute_new_shape(shape, old, new))

    spacings = [ISO, COARSE, Z5, Y5, X5, (3.0, 1.0, 1.0), (3.0000001, 1.0, 1.0), (1.0, 4.0, 4.0), (4.0, 4.0, 1.0),
                (4.0, 1.0, 2.0), (2.5, 0.78125, 0.78125), (2.4, 0.7, 0.8), (1.0, 3.1, 3.1000001), (0.3, 0.1, 0.1)]
    for current in spacings:
        for new in spacings:
            for force in (None, True, False) if new in (ISO, Z5) else (None,):
                separate, axis = determine_do_sep_z_and_axis(force, current, new)
                stage.add("separate_z", current_spacing=current, new_spacing=new, force=force,
                          axis=axis if separate else None)
    stage.close()
