"""Seeded networks in nnU-Net's own results folders: plans, dataset description, checkpoint."""

import os
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

PLAIN = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
RESENC = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
LINE = np.array([0.25, 0.5, 0.25])
INTENSITIES = {"mean": 60.0, "std": 180.0, "percentile_00_5": -500.0, "percentile_99_5": 700.0,
               "median": 55.0, "min": -1000.0, "max": 1500.0}


def architecture(features, strides, kernels=None, convs=2, decoder=1, cls=PLAIN, **more):
    """The `architecture` entry of a configuration."""
    dim, stages = len(strides[0]), len(features)
    kwargs = {
        "n_stages": stages, "features_per_stage": features, "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
        "kernel_sizes": kernels or [[3] * dim] * stages, "strides": strides,
        ("n_conv_per_stage" if cls == PLAIN else "n_blocks_per_stage"):
            convs if isinstance(convs, list) else [convs] * stages,
        "n_conv_per_stage_decoder": [decoder] * (stages - 1), "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}, **more,
    }
    return {"network_class_name": cls, "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}


def resampling(fn="resample_data_or_seg_to_shape"):
    """The three resampling functions as nnU-Net's planners write them."""
    if fn == "resample_data_or_seg_to_shape":
        data = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        seg = {**data, "is_seg": True, "order": 1}
        logits = {**data, "order": 1}
    elif fn == "resample_torch_fornnunet":
        data = logits = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
        seg = {**data, "is_seg": True}
    else:
        data = seg = logits = {}
    return {"resampling_fn_data": fn, "resampling_fn_seg": fn, "resampling_fn_data_kwargs": data,
            "resampling_fn_seg_kwargs": seg, "resampling_fn_probabilities": fn,
            "resampling_fn_probabilities_kwargs": logits}


def configuration(patch, spacing, arch, normalization=("CTNormalization",), mask=None, resample=None, **more):
    """One entry of `configurations`."""
    return {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": patch, "median_image_size_in_voxels": [float(2 * n) for n in patch], "spacing": spacing,
        "normalization_schemes": list(normalization), "use_mask_for_norm": list(mask or [False] * len(normalization)),
        **resampling(*([resample] if resample else [])), "batch_dice": False,
        **({"architecture": arch} if arch else {}), **more,
    }


def plans(dataset, configurations, reader="SimpleITKIO", name="nnUNetPlans", forward=(0, 1, 2), channels=1):
    return {
        "dataset_name": dataset, "plans_name": name, "original_median_spacing_after_transp": [3.0, 2.0, 2.0],
        "original_median_shape_after_transp": [40, 60, 60], "image_reader_writer": reader,
        "transpose_forward": list(forward), "transpose_backward": [int(i) for i in np.argsort(forward)],
        "configurations": configurations, "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(c): INTENSITIES for c in range(channels)},
    }


def dataset(labels, channels=("CT",), **more):
    return {"channel_names": {str(i): c for i, c in enumerate(channels)}, "labels": labels, "numTraining": 16,
            "file_ending": ".nii.gz", **more}


def build(plans_, dataset_, configuration_, trainer, seed, fold=0):
    """The trainer's own network with seeded weights, in eval mode; folds differ a little."""
    manager = PlansManager(deepcopy(plans_))
    chosen = manager.get_configuration(configuration_)
    heads = manager.get_label_manager(dataset_).num_segmentation_heads
    inputs = determine_num_input_channels(manager, chosen, dataset_)
    build_network = recursive_find_trainer_class_by_name(trainer).build_network_architecture
    net = build_network(manager, chosen, inputs, heads, enable_deep_supervision=False).eval()
    rng, own = np.random.default_rng(seed), np.random.default_rng([seed, fold])
    state = net.state_dict()
    for key, tensor in sorted(state.items()):
        if "all_modules" in key or key.startswith("decoder.encoder") or "running" in key or "num_batches" in key:
            continue
        value = weights(key, tuple(tensor.shape), rng)
        if fold:
            value = value + 0.2 * value.std() * own.standard_normal(value.shape)
        tensor.copy_(torch.from_numpy(round_mantissa(value)))
    net.load_state_dict(state)
    return net


def weights(key, shape, rng):
    """Mostly random mixes of blurred channels: smooth features, so few voxels lie on a class border."""
    if key.endswith("norm.weight") or ".skip." in key and len(shape) == 1 and key.endswith("weight"):
        value = rng.uniform(0.7, 1.3, shape)
    elif key.endswith("bias"):
        value = rng.normal(0, 0.2, shape)
    else:
        kernel, dim = shape[2:], len(shape) - 2
        value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        if 3 in kernel:
            blur = np.ones(kernel)
            for axis, size in enumerate(kernel):
                line = LINE if size == 3 else np.ones(1)
                blur = blur * line.reshape([-1 if a == axis else 1 for a in range(dim)])
            mixed = rng.normal(0, np.sqrt(2 / shape[1]), (*shape[:2], *[1] * dim)) * blur
            value = mixed + 0.15 * value
    return value


def round_mantissa(value):
    """To 8 bits of mantissa: f32 files of such numbers compress."""
    bits = np.asarray(value, np.float32).view(np.uint32)
    return ((bits + 0x4000) & np.uint32(0xFFFF8000)).view(np.float32)


def optimizer_state(net, seed):
    """As SGD with momentum leaves it after training."""
    parameters = list(net.parameters())
    optimizer = torch.optim.SGD(parameters, 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True)
    rng = np.random.default_rng(seed)
    for p in parameters:
        p.grad = torch.from_numpy(round_mantissa(rng.normal(0, 1e-3, tuple(p.shape))))
    kept = [p.detach().clone() for p in parameters]
    optimizer.step()
    with torch.no_grad():
        for p, before in zip(parameters, kept):
            p.copy_(before)
            p.grad = None
    return optimizer.state_dict()


def save_checkpoint(path, net, trainer, plans_, configuration_, fold, dataset_, mirror, optimizer=None):
    """The dictionary `nnUNetTrainer.save_checkpoint` writes; the optimizer's state only where asked for."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = {"mean_fg_dice": [np.float64(0.5), np.float64(0.625)], "ema_fg_dice": [np.float64(0.5), np.float64(0.5125)],
           "dice_per_class_or_region": [[np.float64(0.5)]], "train_losses": [np.float32(0.25), np.float32(-0.125)],
           "val_losses": [np.float32(0.25), np.float32(-0.125)], "lrs": [0.01, 0.0099],
           "epoch_start_timestamps": [1.0, 2.0], "epoch_end_timestamps": [2.0, 3.0]}
    torch.save({
        "network_weights": net.state_dict(),
        "optimizer_state": optimizer,
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5,
                              "growth_interval": 2000, "_growth_tracker": 7} if optimizer else None,
        "logging": log, "_best_ema": np.float64(0.5125), "current_epoch": 2,
        "init_args": {"plans": plans_, "configuration": configuration_, "fold": fold, "dataset_json": dataset_,
                      "device": torch.device("cuda", 0)},
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": tuple(mirror) if mirror is not None else None,
    }, path)


def save_folder(root, name, net, plans_, dataset_, configuration_, trainer, fold=0, mirror=(0, 1, 2), optimizer=None):
    """Writes a results folder and returns its path."""
    folder = Path(root) / f"{plans_['dataset_name']}/{trainer}__{plans_['plans_name']}__{configuration_}"
    os.makedirs(folder, exist_ok=True)
    save_json(plans_, str(folder / "plans.json"), sort_keys=False, indent=None)
    save_json(dataset_, str(folder / "dataset.json"), sort_keys=False, indent=None)
    save_checkpoint(folder / f"fold_{fold}/{name}.pth", net, trainer, plans_, configuration_, fold, dataset_, mirror,
                    optimizer)
    return folder
