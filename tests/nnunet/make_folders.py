"""Tiny trained folders in every form the reader has to know, with PyTorch's own logits.

    python make_folders.py        (packages: reference/README.md)

Writes folders/<case>/ with plans.json, dataset.json, fold_*/checkpoint_*.pth, input.npy and
logits.npy. Networks are built by nnU-Net 2.8.1's own classes from those plans, with seeded
random weights; nothing was trained.
"""

import copy
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

ROOT = Path(__file__).parent / "folders"
CT = {"mean": 90.0, "std": 110.0, "percentile_00_5": -900.0, "percentile_99_5": 300.0, "max": 1.0, "min": 0.0, "median": 0.5}
UNET = "dynamic_network_architectures.architectures.unet."
RESIDUAL = "dynamic_network_architectures.building_blocks.residual."


def architecture(name, rank=3, **changes):
    blocks = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    arguments = {
        "n_stages": 3,
        "features_per_stage": [3, 4, 4],
        "conv_op": f"torch.nn.modules.conv.Conv{rank}d",
        "kernel_sizes": [[3] * rank] * 3,
        "strides": [[1] * rank, [2] * rank, [2] * rank],
        blocks: [1, 2, 1],
        "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{rank}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        **changes,
    }
    imports = ["conv_op", "norm_op", "dropout_op", "nonlin"] + (["block"] if "block" in changes else [])
    return {"network_class_name": UNET + name, "arch_kwargs": arguments, "_kw_requires_import": imports}


def configuration(patch=(8, 8, 8), channels=1, **changes):
    resampling = {}
    for kind, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        resampling[f"resampling_fn_{kind}"] = "resample_data_or_seg_to_shape"
        resampling[f"resampling_fn_{kind}_kwargs"] = {
            "is_seg": kind == "seg", "order": order, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [20.0] * len(patch),
        "spacing": [2.5, 1.5, 1.5][3 - len(patch):],
        "normalization_schemes": ["CTNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        **resampling,
        "batch_dice": False,
        **changes,
    }


def plans(configurations, channels=1, **changes):
    return {
        "dataset_name": "Dataset900_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.5, 1.5, 1.5],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(c): CT for c in range(channels)},
        **changes,
    }


def dataset(channels=1, **changes):
    return {
        "channel_names": {str(c): "CT" for c in range(channels)},
        "labels": {"background": 0, "bone": 1, "muscle": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        **changes,
    }


def randomize(network, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator)
                fan = max(value[0].numel(), 1) if value.ndim > 1 else 1
                if name.endswith("norm.weight") or ".norm.weight" in name:
                    value.copy_(1 + 0.2 * noise)
                elif "running_var" in name:
                    value.copy_(0.5 + noise.abs())
                else:
                    value.copy_(noise * (2.0 / fan) ** 0.5 if value.ndim > 1 else 0.3 * noise)


class Wrapped(torch.nn.Module):
    """A network one attribute down, as FastnnUNet's LiteResEncStudent holds it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


def save(network, path, settings, config, change=None, **checkpoint):
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.99, nesterov=True)
    weights = network.state_dict()
    if change:
        weights = change(weights)
        with torch.no_grad():  # the logits come from what is stored
            for name, value in network.state_dict().items():
                value.copy_(weights.get(name, value))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({
        "network_weights": weights,
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "_growth_tracker": 3},
        "logging": {"ema_fg_dice": [np.float64(0.25), np.float32(0.5)], "lrs": [0.01], "epoch_start_timestamps": [1.0]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 2,
        "init_args": {"plans": settings, "configuration": config, "fold": 0, "device": torch.device("cpu"),
                      **checkpoint.pop("init_args", {})},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **checkpoint,
    }, path)


def folder(name, settings, data, config="3d_fullres", trainer=nnUNetTrainer, wrap=lambda network: network,
           build=None, seed=0, folds=("fold_0/checkpoint_final.pth",), **checkpoint):
    root = ROOT / name
    root.mkdir(parents=True)
    (root / "plans.json").write_text(json.dumps(settings, indent=1))
    (root / "dataset.json").write_text(json.dumps(data, indent=1))
    # `build` holds the plans of the network that is saved, where the folder's differ.
    manager = PlansManager(copy.deepcopy(build or settings))
    chosen = manager.get_configuration(config)
    channels = determine_num_input_channels(manager, chosen, data)
    heads = manager.get_label_manager(data).num_segmentation_heads
    for k, fold in enumerate(folds):
        network = wrap(trainer.build_network_architecture(manager, chosen, channels, heads, False)).eval()
        randomize(network, seed + 1000 * k)
        save(network, root / fold, settings, config, **checkpoint)
        if k == 0:
            patch = torch.randn((1, channels, *chosen.patch_size), generator=torch.Generator().manual_seed(seed + 1))
            with torch.no_grad():
                logits = network(patch)
            np.save(root / "input.npy", patch[0].numpy())
            np.save(root / "logits.npy", logits[0].numpy())


def one(net, patch=(8, 8, 8), channels=1, **changes):
    return plans({"3d_fullres": configuration(patch, channels, architecture=net)}, channels, **changes)


def old(settings):
    """The form plans had before nnU-Net 2.4."""
    settings = copy.deepcopy(settings)
    config = settings["configurations"]["3d_fullres"]
    net = config.pop("architecture")["arch_kwargs"]
    config.update(
        UNet_class_name="ResidualEncoderUNet", UNet_base_num_features=3, unet_max_num_features=5,
        n_conv_per_stage_encoder=net["n_blocks_per_stage"], n_conv_per_stage_decoder=net["n_conv_per_stage_decoder"],
        num_pool_per_axis=[2, 2, 2], pool_op_kernel_sizes=net["strides"], conv_kernel_sizes=net["kernel_sizes"])
    settings["foreground_intensity_properties_by_modality"] = settings.pop("foreground_intensity_properties_per_channel")
    return settings


def mixed_types(weights):
    """Half, brain and double floats, and a tensor whose memory is transposed."""
    weights = copy.copy(weights)
    for name, value in list(weights.items()):
        if name.endswith("encoder.stages.1.0.convs.0.conv.weight"):
            weights[name] = value.transpose(0, 1).contiguous().transpose(0, 1)
        elif name.endswith("encoder.stages.0.0.convs.0.conv.bias"):
            weights[name] = torch.nn.Parameter(value.double())
        elif name.endswith("decoder.seg_layers.1.bias"):
            weights[name] = value.half()
        elif name.endswith("decoder.seg_layers.1.weight"):
            weights[name] = value.bfloat16()
    return weights


def main():
    torch.set_num_threads(1)
    shutil.rmtree(ROOT, ignore_errors=True)
    plain, resenc = architecture("PlainConvUNet"), architecture("ResidualEncoderUNet")

    folder("plain", one(architecture(
        "PlainConvUNet", kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]], strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]])),
        dataset(), seed=1, folds=("fold_0/checkpoint_final.pth", "fold_1/checkpoint_final.pth"))
    with open(ROOT / "plain" / "postprocessing.pkl", "wb") as file:
        from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation as largest
        pickle.dump(([largest, largest], [{"labels_or_regions": [1, 2]}, {"labels_or_regions": np.int64(2), "background_label": 0}]), file)
    folder("residual_encoder", one(resenc), dataset(), seed=2)
    folder("residual", one(architecture("ResidualUNet")), dataset(), seed=3,
           inference_allowed_mirroring_axes=None)
    folder("bottleneck", one(architecture(
        "ResidualEncoderUNet", block=RESIDUAL + "BottleneckD", bottleneck_channels=[2, 3, 2], stem_channels=5)), dataset(), seed=4)
    folder("plane", plans({"2d": configuration((16, 12), architecture=architecture("PlainConvUNet", rank=2))}),
           dataset(), config="2d", seed=5, inference_allowed_mirroring_axes=(0, 1))
    folder("batch_norm", one(plain), dataset(), trainer=nnUNetTrainerBN, trainer_name="nnUNetTrainerBN", seed=6)
    folder("options", one(architecture(
        "PlainConvUNet", nonlin_first=True, nonlin="torch.nn.ReLU", conv_bias=False, kernel_sizes=3, strides=[1, 2, 2],
        dropout_op="torch.nn.modules.dropout.Dropout3d", dropout_op_kwargs={"p": 0.1},
        norm_op_kwargs={}, n_conv_per_stage=2, n_conv_per_stage_decoder=1)), dataset(), seed=7)
    folder("old", old(one(resenc, channels=2)), dataset(2), seed=8)
    half = architecture("PlainConvUNet", features_per_stage=[8, 9, 8])
    folder("student", one(architecture("PlainConvUNet", features_per_stage=[16, 18, 8])), dataset(), build=one(half), seed=9,
           trainer_name="nnUNetDistillationTrainer", init_args={"feature_reduction_factor": 2})
    shallow = architecture("ResidualEncoderUNet", features_per_stage=[4, 5, 5], n_blocks_per_stage=[1, 1, 1])
    folder("residual_student", one(architecture("ResidualEncoderUNet", features_per_stage=[8, 10, 10])), dataset(),
           build=one(shallow), wrap=Wrapped, seed=10, trainer_name="nnUNetDistillationTrainerDA5")
    folder("types", one(plain), dataset(), seed=11, change=mixed_types,
           folds=("fold_all/checkpoint_best.pth",))
    folder("wrapped", one(plain), dataset(), seed=12,
           change=lambda weights: {f"_orig_mod.module.{name}": value for name, value in weights.items()})
    regions = dataset(2, labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3, "ignore": 4},
                      regions_class_order=[1, 2, 3])
    folder("regions", one(plain, channels=2, image_reader_writer="NibabelIOWithReorient",
                          transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0]), regions, seed=13)
    cascade = plans({
        "3d_lowres": configuration(architecture=plain, spacing=[5.0, 3.0, 3.0]),
        "3d_fullres": configuration(architecture=plain),
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    })
    folder("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres", cascade, dataset(), config="3d_cascade_fullres", seed=14)


if __name__ == "__main__":
    main()
