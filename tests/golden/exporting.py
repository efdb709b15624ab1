"""Stage `export`: logits at the model's spacing to labels on the file's grid."""

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

import network
import reference
from common import Stage, noise, smooth

LABELS = {"background": 0, "one": 1, "two": 2, "three": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "centre": 3}


def export():
    stage = Stage("export")

    def add(name, logits, file_shape, spacing, target, bbox=None, forward=(0, 1, 2), regions=False,
            dtype="f16", probabilities=False):
        """`file_shape`, `spacing`: [z,y,x] of the file. `target`, `bbox`, `logits`: transposed axes."""
        config = dict(network.CONFIG, target_spacing=list(target), transpose_forward=list(forward))
        plans = PlansManager(reference.plans(config))
        labels = dict(reference.dataset(REGIONS if regions else LABELS))
        if regions:
            labels["regions_class_order"] = [1, 2, 3]
        manager = plans.get_label_manager(labels)
        whole = [file_shape[i] for i in forward]
        bbox = bbox or [[0, n] for n in whole]
        cropped = [high - low for low, high in bbox]
        logits = logits.astype(np.float16 if dtype == "f16" else np.float32)
        assert logits.shape[0] == manager.num_segmentation_heads
        properties = {"spacing": list(spacing), "shape_before_cropping": tuple(whole),
                      "shape_after_cropping_and_before_resampling": tuple(cropped),
                      "bbox_used_for_cropping": bbox}
        out = convert_predicted_logits_to_segmentation_with_correct_shape(
            torch.from_numpy(logits.copy()), plans, plans.get_configuration("3d_fullres"), manager, properties,
            return_probabilities=probabilities, num_threads_torch=1)
        entry = {}
        if probabilities:
            out, share = out
            entry["probabilities"] = stage.save(f"{name}_probabilities", share)
        assert out.dtype == np.uint8 and out.shape == tuple(file_shape), (out.dtype, out.shape)
        print(f"export {name}: shares {np.round(np.bincount(out.ravel(), minlength=4) / out.size, 2)}")
        stage.add("cases", name=name, task="regions" if regions else "labels",
                  regions_class_order=[1, 2, 3] if regions else None, logits_dtype=dtype,
                  logits=stage.save(f"{name}_logits", logits.astype(np.float32)),
                  model_spacing=target, file_spacing=spacing, file_shape=file_shape,
                  transpose_forward=forward, transpose_backward=plans.transpose_backward,
                  shape_before_cropping=whole, bbox=bbox, from_probabilities=probabilities,
                  expected=stage.save(f"{name}_expected", out), **entry)

    def field(channels, shape, seed):
        return 6 * smooth((channels, *shape), seed, 1.2)

    add("same_grid", field(4, (6, 7, 8), 1), (6, 7, 8), (1, 1, 1), (1, 1, 1))
    tied = np.round(noise((4, 6, 7, 8), 2))
    add("ties_take_the_first", tied, (6, 7, 8), (1, 1, 1), (1, 1, 1))
    add("up", field(4, (7, 8, 9), 3), (12, 13, 15), (1.2, 1.2, 1.2), (2, 2, 2))
    add("down", field(4, (13, 12, 11), 4), (7, 8, 6), (2.8, 2.2, 2.7), (1.5, 1.5, 1.5))
    add("crop", field(4, (6, 7, 8), 5), (14, 16, 17), (1.3, 1.2, 1.1), (2, 2, 2), [[2, 11], [0, 12], [2, 17]])
    add("separate_z", field(4, (8, 9, 8), 6), (6, 15, 14), (5, 0.8, 0.8), (4, 1.3, 1.4))
    add("separate_z_crop", field(4, (5, 9, 8), 7), (9, 18, 17), (5, 0.8, 0.8), (5, 1.3, 1.4), [[2, 7], [1, 16], [3, 17]])
    add("transpose", field(4, (9, 6, 8), 8), (8, 12, 13), (2, 1.5, 1.2), (1.8, 2.6, 2.2), [[0, 13], [1, 8], [0, 12]], (2, 0, 1))
    add("f32_logits", field(4, (7, 8, 9), 9), (12, 13, 15), (1.2, 1.2, 1.2), (2, 2, 2), dtype="f32")
    add("probabilities", field(4, (5, 6, 7), 10), (8, 9, 10), (1.2, 1.2, 1.2), (2, 2, 2), [[0, 8], [1, 9], [0, 10]], probabilities=True)
    add("regions", field(3, (7, 8, 9), 11), (12, 13, 15), (1.2, 1.2, 1.2), (2, 2, 2), regions=True)
    add("regions_crop_separate_z", field(3, (5, 9, 8), 12), (9, 17, 15), (5, 0.8, 0.8), (6, 1.3, 1.4),
        [[2, 8], [1, 16], [1, 15]], regions=True)
    faint = np.zeros((3, 5, 6, 7))
    faint[:] = np.random.default_rng(13).choice([0, 2.0**-24, 2.0**-14, 1e-3, -2.0**-24, 5e-5], faint.shape)
    add("regions_faint_logits", faint, (5, 6, 7), (1, 1, 1), (1, 1, 1), regions=True)
    add("regions_probabilities", field(3, (5, 6, 7), 14), (8, 9, 10), (1.2, 1.2, 1.2), (2, 2, 2), [[0, 8], [1, 9], [0, 10]],
        regions=True, probabilities=True)
    stage.close()
