"""How far another implementation can agree with the golden labels.

The network runs in ONNX Runtime and tiles are blended here, once with f32 accumulators and f32
logits and once with the reference's fp16 ones. Reading, preprocessing and resampling are nnU-Net's.
"""

import contextlib
import io
import itertools

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

import network


def logits(image, run, config, dtype, step, gaussian, mirror):
    patch = config.patch_size
    low = [max(p - n, 0) // 2 for p, n in zip(patch, image.shape[1:])]
    pad = [(a, max(p - n, 0) - a) for a, p, n in zip(low, patch, image.shape[1:])]
    padded = np.pad(image, [(0, 0), *pad])
    weight = np.float32(1)
    if gaussian:
        weight = compute_gaussian(tuple(patch), 1 / 8, 10, device=torch.device("cpu")).float().numpy()
    total = np.zeros((4, *padded.shape[1:]), dtype)
    norm = np.zeros(padded.shape[1:], dtype)
    flips = [f for k in range(len(mirror) + 1) for f in itertools.combinations([m + 2 for m in mirror], k)]
    starts = list(itertools.product(*compute_steps_for_sliding_window(padded.shape[1:], patch, step)))
    for start in starts:
        at = tuple(slice(a, a + p) for a, p in zip(start, patch))
        x = padded[(slice(None), *at)][None]
        out = sum(np.flip(run.run(None, {"input": np.ascontiguousarray(np.flip(x, f))})[0], f) for f in flips)
        out = out[0] / np.float32(len(flips)) * weight
        total[(slice(None), *at)] = (total[(slice(None), *at)].astype(np.float32) + out).astype(dtype)
        norm[at] = (norm[at].astype(np.float32) + weight).astype(dtype)
    total = (total.astype(np.float32) / norm.astype(np.float32)).astype(dtype)
    inner = tuple(slice(a, a + n) for a, n in zip(low, image.shape[1:]))
    return total[(slice(None), *inner)], len(starts)


def preprocess(model, source):
    plans, config = model.plans_manager, model.configuration_manager
    with contextlib.redirect_stdout(io.StringIO()):
        data, _, properties = config.preprocessor_class(verbose=False).run_case(
            [str(source)], None, plans, config, model.dataset_json)
    return data, properties


def stages(model, source):
    """What the reference feeds to the tiles, and the blended logits it gets, both on the model's grid."""
    data, _ = preprocess(model, source)
    return data[0], model.predict_logits_from_preprocessed_data(torch.from_numpy(data)).float().numpy()


def agreement(model, source, payload, labels_file):
    """Share of voxels equal to the reference's labels, per accumulator type, and the tile count."""
    run = network.session(payload)
    plans, config = model.plans_manager, model.configuration_manager
    data, properties = preprocess(model, source)
    result = {}
    for name, dtype in (("f32", np.float32), ("f16", np.float16)):
        out, tiles = logits(data, run, config, dtype, model.tile_step_size, model.use_gaussian,
                            model.allowed_mirroring_axes or ())
        labels = convert_predicted_logits_to_segmentation_with_correct_shape(
            out, plans, config, model.label_manager, properties, num_threads_torch=1)
        reader = plans.image_reader_writer_class()
        golden = reader.read_seg(str(labels_file))[0][0]
        result[name] = float(np.mean(golden == labels))
    return result, tiles
