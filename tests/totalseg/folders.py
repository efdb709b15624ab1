"""Folders with the layout of TotalSegmentator's released weights and tiny seeded networks.

A network is random, its last layer balanced so that every class wins somewhere, or (`by_intensity`)
follows the intensity, so that what it finds is smaller than the image and rough crops cut something.
"""
import json
import os

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from scipy import ndimage
from totalsegmentator import map_tasks_config as T
from totalsegmentator import map_to_binary as B

CT = dict(max=3000.0, mean=-50.387, median=-50.0, min=-1024.0, percentile_00_5=-1004.0,
          percentile_99_5=1588.0, std=503.3927)
RESAMPLE = "resample_data_or_seg_to_shape"
NETWORKS = "dynamic_network_architectures.architectures.unet."
PARTS = {"total": (B.class_map_5_parts, B.map_taskid_to_partname_ct),
         "total_v3": (B.class_map_5_parts_total_v3, B.map_taskid_to_partname_ct_v3),
         "total_mr": (B.class_map_parts_mr, B.map_taskid_to_partname_mr),
         "headneck_muscles": (B.class_map_parts_headneck_muscles,
                              B.map_taskid_to_partname_headneck_muscles)}


def task_of(dataset):
    """Task, its settings and the classes of a data set, from TotalSegmentator's own tables."""
    for task, config in T.TASK_CONFIGS.items():
        for settings in config["sub_modes"].values() if "sub_modes" in config else [config]:
            ids = settings["task_id"] if isinstance(settings["task_id"], list) else [settings["task_id"]]
            if dataset not in ids:
                continue
            if len(ids) > 1:
                parts, names = PARTS[task]
                classes = parts[names[dataset]]
            else:
                classes = {**B.class_map[task], **B.class_map.get(task + "_auxiliary", {})}
            return task, {**T.DEFAULT_CONFIG, **settings}, classes
    raise SystemExit(f"no task has data set {dataset}")


def old_plan(patch, spacing, features, scheme):
    n = len(features)
    kwargs = dict(force_separate_z=None, order_z=0)
    return dict(
        data_identifier="nnUNetPlans_3d_fullres", preprocessor_name="DefaultPreprocessor", batch_size=2,
        patch_size=patch, median_image_size_in_voxels=[float(p) for p in patch], spacing=spacing,
        normalization_schemes=[scheme], use_mask_for_norm=[False], UNet_class_name="PlainConvUNet",
        UNet_base_num_features=features[0], n_conv_per_stage_encoder=[2] * n,
        n_conv_per_stage_decoder=[2] * (n - 1), num_pool_per_axis=[n - 1] * 3,
        pool_op_kernel_sizes=[[1, 1, 1]] + [[2, 2, 2]] * (n - 1), conv_kernel_sizes=[[3, 3, 3]] * n,
        unet_max_num_features=max(features), batch_dice=True,
        resampling_fn_data=RESAMPLE, resampling_fn_seg=RESAMPLE, resampling_fn_probabilities=RESAMPLE,
        resampling_fn_data_kwargs=dict(is_seg=False, order=3, **kwargs),
        resampling_fn_seg_kwargs=dict(is_seg=True, order=1, **kwargs),
        resampling_fn_probabilities_kwargs=dict(is_seg=False, order=1, **kwargs))


def new_plan(patch, spacing, features, scheme, residual):
    plan, n = old_plan(patch, spacing, features, scheme), len(features)
    for key in ("UNet_class_name", "UNet_base_num_features", "n_conv_per_stage_encoder",
                "n_conv_per_stage_decoder", "num_pool_per_axis", "pool_op_kernel_sizes",
                "conv_kernel_sizes", "unet_max_num_features"):
        del plan[key]
    stages = dict(n_blocks_per_stage=[1] * n, n_conv_per_stage_decoder=[1] * (n - 1)) if residual else \
        dict(n_conv_per_stage=[2] * n, n_conv_per_stage_decoder=[2] * (n - 1))
    arguments = dict(
        n_stages=n, features_per_stage=features, conv_op="torch.nn.modules.conv.Conv3d",
        kernel_sizes=[[3, 3, 3]] * n, strides=[[1, 1, 1]] + [[2, 2, 2]] * (n - 1), **stages,
        conv_bias=True, norm_op="torch.nn.modules.instancenorm.InstanceNorm3d",
        norm_op_kwargs=dict(eps=1e-05, affine=True), dropout_op=None, dropout_op_kwargs=None,
        nonlin="torch.nn.LeakyReLU", nonlin_kwargs=dict(inplace=True))
    plan["architecture"] = dict(
        network_class_name=NETWORKS + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        arch_kwargs=arguments, _kw_requires_import=["conv_op", "norm_op", "dropout_op", "nonlin"])
    return plan


def network(features, classes, residual):
    n = len(features)
    blocks = [1] * n if residual else [2] * n
    return (ResidualEncoderUNet if residual else PlainConvUNet)(
        1, n, features, torch.nn.Conv3d, [[3, 3, 3]] * n, [[1, 1, 1]] + [[2, 2, 2]] * (n - 1), blocks,
        classes, ([1] if residual else [2]) * (n - 1), conv_bias=True, norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs=dict(eps=1e-5, affine=True), nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs=dict(inplace=True), deep_supervision=True)


def sample(image, spacing, patch, scheme):
    """A patch of the image on the network's grid, normalized, `[1, 1, z, y, x]`."""
    values = ndimage.zoom(image.get_fdata(), np.array(image.header.get_zooms()) / np.array(spacing[::-1]),
                          order=1).transpose(2, 1, 0)
    if scheme == "CTNormalization":
        values = (np.clip(values, CT["percentile_00_5"], CT["percentile_99_5"]) - CT["mean"]) / CT["std"]
    else:
        values = (values - values.mean()) / values.std()
    values = np.pad(values, [(0, max(p - s, 0)) for p, s in zip(patch, values.shape)])
    cut = tuple(slice((s - p) // 2, (s - p) // 2 + p) for s, p in zip(values.shape, patch))
    return torch.from_numpy(values[cut].astype(np.float32).copy())[None, None]


def balance(net, patch):
    """Gives every class logits of mean 0 and deviation 1 on the patch."""
    net.eval()
    net.decoder.deep_supervision = False
    head = net.decoder.seg_layers[-1]
    with torch.no_grad():
        logits = net(patch)[0]
        mean, std = logits.mean((1, 2, 3)), logits.std((1, 2, 3)).clamp_min(1e-3)
        head.weight.div_(std.view(-1, 1, 1, 1, 1))
        head.bias.sub_(mean).div_(std)
    net.decoder.deep_supervision = True


def by_intensity(weights, levels):
    """Turns the weights of a plain network into identity, and its head into one line per level:
    `(class, slope, offset)` of the first channel, every other class far below."""
    for name, value in weights.items():
        if ".seg_layers." in name:
            continue
        if value.dim() == 5 and ".transpconvs." not in name and value.shape[-1] == 3:
            value.zero_()
            # After a concatenation the skip comes second.
            skip = value.shape[1] // 2 if "decoder.stages" in name and "convs.0" in name else 0
            value[0, skip, 1, 1, 1] = 1
            if value.shape[1] == 1:
                value[1, 0, 1, 1, 1] = -1
            else:
                value[1, skip + 1, 1, 1, 1] = 1
        elif value.dim() == 1:
            is_scale = "norm.weight" in name or "all_modules.1.weight" in name
            value.fill_(1.0 if is_scale else 0.0)
    last = max(int(n.split(".seg_layers.")[1].split(".")[0]) for n in weights if ".seg_layers." in n)
    for name, value in weights.items():
        if f".seg_layers.{last}." in name:
            value.zero_()
            if value.dim() == 5:
                for label, slope, _ in levels:
                    value[label, 0], value[label, 1] = slope, -slope
            else:
                value.fill_(-30.0)
                value[0] = 0
                for label, _, offset in levels:
                    value[label] = offset


def write(root, dataset, image, features=(4, 8, 8), patch=(24, 28, 32), folds=(0,), old=True,
          residual=False, plans_name="nnUNetPlans", spacing=None, levels=None):
    task, config, classes = task_of(dataset)
    grid = config["resample"] or spacing
    grid = [float(grid)] * 3 if isinstance(grid, (int, float)) else [float(v) for v in grid[::-1]]
    scheme = "ZScoreNormalization" if task.endswith("_mr") else "CTNormalization"
    features, patch = list(features), list(patch)
    plan = old_plan(patch, grid, features, scheme) if old else \
        new_plan(patch, grid, features, scheme, residual)
    model, trainer = config["model"], config["trainer"]
    configurations = {"3d_fullres": plan}
    if model != "3d_fullres":
        # As released: it inherits and changes the spacing.
        configurations = {"3d_fullres": dict(plan, spacing=[1.5] * 3),
                          model: dict(inherits_from="3d_fullres", spacing=grid,
                                      data_identifier=f"{plans_name}_{model}")}
    name = T.TASK_ID_WEIGHTS_CONFIGS[dataset]["foldername"]
    plans = dict(
        dataset_name=name, plans_name=plans_name, original_median_spacing_after_transp=grid,
        original_median_shape_after_transp=patch, image_reader_writer="NibabelIOWithReorient",
        transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2], configurations=configurations,
        experiment_planner_used="ExperimentPlanner", label_manager="LabelManager",
        foreground_intensity_properties_per_channel={"0": CT})
    labels = {"background": 0, **{label: number for number, label in classes.items()}}
    description = dict(
        name="TotalSegmentator", description="seeded random weights", licence="CC0-1.0",
        channel_names={"0": "MR" if scheme[0] == "Z" else "CT"}, labels=labels, numTraining=1,
        file_ending=".nii.gz", overwrite_image_reader_writer="NibabelIOWithReorient")
    folder = f"{root}/{name}/{trainer}__{plans_name}__{model}"
    os.makedirs(folder, exist_ok=True)
    for file, content in (("plans.json", plans), ("dataset.json", description)):
        with open(f"{folder}/{file}", "w") as out:
            json.dump(content, out, indent=1)
    mirror = None if "NoMirroring" in trainer else (0, 1) if "onlyMirror01" in trainer else (0, 1, 2)
    for fold in folds:
        torch.manual_seed(dataset + 1000 * fold + len(plans_name))
        net = network(features, len(labels), residual)
        with torch.no_grad():
            for value in net.parameters():
                if value.dim() == 1:
                    value.add_(torch.randn_like(value) * 0.2)
        balance(net, sample(image, grid, patch, scheme))
        weights = net.state_dict()
        if levels:
            by_intensity(weights, levels)
        os.makedirs(f"{folder}/fold_{fold}", exist_ok=True)
        log = dict(mean_fg_dice=[np.float64(0.5)] * 3, train_losses=[np.float64(0.1)] * 3, lrs=[0.01] * 3)
        torch.save(dict(
            network_weights=weights, optimizer_state=dict(state={}, param_groups=[]), logging=log,
            grad_scaler_state=dict(scale=65536.0), _best_ema=np.float64(0.9), current_epoch=3,
            init_args=dict(configuration=model, fold=fold, device=torch.device("cuda", 0)),
            trainer_name=trainer, inference_allowed_mirroring_axes=mirror),
            f"{folder}/fold_{fold}/checkpoint_final.pth")
