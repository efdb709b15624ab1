"""What nnU-Net v1 makes of a folder of its own, with tiny seeded weights.

usage: v1.py [RUN...]     (in the environment of make.py, with `pip install medpy==0.5.2` and `pip install --no-deps nnunet==1.7.1`)

Writes v1/ (folders as nnU-Net v1 leaves them: plans.pkl, checkpoints, two folds; one in 3-D, one in 2-D) and expected/v1_*.nii.gz, through its own
predictor from files to files. Its code is of 2022: names that NumPy dropped are put back, and PyTorch reads its own pickles.
"""

import builtins
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
ROOM = tempfile.mkdtemp(prefix="nnunet_v1_")
for name in ("nnUNet_raw_data_base", "nnUNet_preprocessed", "RESULTS_FOLDER"):
    os.environ[name] = ROOM

import numpy as np

for name in ("int", "float", "bool", "object"):
    if name not in np.__dict__:
        setattr(np, name, getattr(builtins, name))

import torch
from nnunet.inference.predict import predict_from_folder
from nnunet.network_architecture.generic_UNet import Generic_UNet
from nnunet.network_architecture.initialization import InitWeights_He
from nnunet.preprocessing.preprocessing import GenericPreprocessor

HERE = Path(__file__).resolve().parent
FOLDERS = {kind: HERE / "v1" / kind / "Task001_Seeded/nnUNetTrainerV2__nnUNetPlansv2.1" for kind in ("3d_fullres", "2d")}
CLASSES, FEATURES = 3, 6
POOLS, KERNELS = [[1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
PATCH, SPACING = [12, 24, 28], [2.4, 1.4, 1.5]
CT = OrderedDict(median=40.0, mean=60.0, sd=150.0, mn=-900.0, mx=1500.0, percentile_99_5=420.0, percentile_00_5=-320.0)


def plans(kind):
    # In 2-D all that is of the network has two axes; the spacing keeps three.
    axes = 2 if kind == "2d" else 3
    last = lambda lists: [list(one[-axes:]) for one in lists]
    stage = dict(
        batch_size=2, num_pool_per_axis=[1, 2, 2][-axes:], patch_size=np.array(PATCH[-axes:]),
        median_patient_size_in_voxels=np.array([30, 60, 60]), current_spacing=np.array(SPACING),
        original_spacing=np.array(SPACING), do_dummy_2D_data_aug=False, pool_op_kernel_sizes=last(POOLS),
        conv_kernel_sizes=last(KERNELS))
    return dict(
        num_stages=1, num_modalities=1, modalities={0: "CT"}, normalization_schemes=OrderedDict({0: "CT"}),
        dataset_properties=dict(all_sizes=[(30, 60, 60)] * 3, all_spacings=[np.array(SPACING)] * 3, all_classes=[1, 2, 3],
                                modalities={0: "CT"}, intensityproperties=OrderedDict({0: CT}), size_reductions=OrderedDict(a=1.0)),
        list_of_npz_files=["a.npz"], original_spacings=[np.array(SPACING)] * 3, original_sizes=[(30, 60, 60)] * 3,
        preprocessed_data_folder="preprocessed", num_classes=CLASSES, all_classes=[1, 2, 3], base_num_features=FEATURES,
        use_mask_for_norm=OrderedDict({0: False}), keep_only_largest_region=None, min_region_size_per_class=None,
        min_size_per_class=None, transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2],
        data_identifier="nnUNetData_plans_v2.1", plans_per_stage={0: stage},
        preprocessor_name="PreprocessorFor2D" if kind == "2d" else "GenericPreprocessor", conv_per_stage=2)


def network(seed, stage):
    torch.manual_seed(seed)
    axes = len(stage["patch_size"])
    layer = lambda name: getattr(torch.nn, f"{name}{axes}d")
    net = Generic_UNet(
        1, FEATURES, CLASSES + 1, len(POOLS), 2, 2, layer("Conv"), layer("InstanceNorm"), dict(eps=1e-5, affine=True),
        layer("Dropout"), dict(p=0, inplace=True), torch.nn.LeakyReLU, dict(negative_slope=1e-2, inplace=True), True, False,
        lambda x: x, InitWeights_He(1e-2), stage["pool_op_kernel_sizes"], stage["conv_kernel_sizes"], False, True, True)
    with torch.no_grad():
        for value in net.parameters():
            if value.dim() == 1:
                value.add_(torch.randn_like(value) * 0.2)
    return net.eval()


@torch.no_grad()
def balance(net, patch):
    """The last layer, which has no bias: logits of mean 0 and deviation 3, so that every class wins somewhere."""
    kept = []
    hook = net.seg_outputs[-1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0][0].flatten(1)))
    net.do_ds = False
    net(patch)
    hook.remove()
    mean = kept[0].mean(1)
    head = net.seg_outputs[-1].weight
    rows = torch.randn(CLASSES + 1, len(mean))
    rows -= (rows @ mean / (mean @ mean))[:, None] * mean
    rows *= 3 / (rows @ (kept[0] - mean[:, None])).std(1)[:, None]
    head.copy_(rows.reshape(head.shape))


def weights(kind, folder):
    folder.mkdir(parents=True)
    written = plans(kind)
    (folder / "plans.pkl").write_bytes(pickle.dumps(written))
    import SimpleITK as sitk

    values = sitk.GetArrayFromImage(sitk.ReadImage(str(HERE / "images/plain.nii.gz"))).astype(np.float32)[None]
    properties = dict(original_spacing=np.array([2.5, 1.2, 1.2]))
    preprocessor = GenericPreprocessor(written["normalization_schemes"], written["use_mask_for_norm"], [0, 1, 2],
                                       written["dataset_properties"]["intensityproperties"])
    data, _, _ = preprocessor.resample_and_normalize(values, np.array(SPACING), properties, np.zeros_like(values))
    patch = data[:, 6, 8:32, 8:36] if kind == "2d" else data[:, :12, 8:32, 8:36]
    patch = torch.from_numpy(np.ascontiguousarray(patch))[None].float()
    for fold in (0, 1):
        net = network(fold, written["plans_per_stage"][0])
        balance(net, patch)
        place = folder / f"fold_{fold}"
        place.mkdir()
        torch.save(dict(epoch=1000, state_dict=net.state_dict(), optimizer_state_dict=dict(state={}, param_groups=[]),
                        plot_stuff=([0.1], [0.1], [], [0.5]), best_stuff=(0.1, 0.5, 0.1)), place / "model_final_checkpoint.model")
        init = ("plans.pkl", fold, str(folder.relative_to(HERE)), "preprocessed", False, 0, True, False, True)
        with open(place / "model_final_checkpoint.model.pkl", "wb") as file:
            pickle.dump(OrderedDict(init=init, name="nnUNetTrainerV2", plans=written,
                                    **{"class": "<class 'nnunet.training.network_training.nnUNetTrainerV2.nnUNetTrainerV2'>"}), file)


# name of the image first: folds, mirroring, and what is kept of components, if anything
RUNS = {"plain": ((0,), False, None), "plain_mirrored": ((0,), True, None), "thick": ((0, 1), False, None), "box": ((0,), False, None),
        "box_kept": ((0,), False, [[1, 2], 3]), "plain_2d": ((0,), True, None)}


def main():
    if not sys.argv[1:]:
        shutil.rmtree(HERE / "v1", ignore_errors=True)
        for kind, folder in FOLDERS.items():
            weights(kind, folder)
    for name in sys.argv[1:] or RUNS:
        folds, tta, kept = RUNS[name]
        folder = FOLDERS["2d" if name.endswith("2d") else "3d_fullres"]
        rule = folder / "postprocessing.json"
        rule.unlink(missing_ok=True)
        if kept:
            rule.write_text(json.dumps(dict(for_which_classes=kept, min_valid_object_sizes="None")))
        source, out = Path(ROOM) / f"in_{name}", Path(ROOM) / f"out_{name}"
        source.mkdir()
        shutil.copy(HERE / f"images/{name.split('_')[0]}.nii.gz", source / "case_0000.nii.gz")
        predict_from_folder(str(folder), str(source), str(out), list(folds), False, 1, 1, None, 0, 1, tta, mixed_precision=False,
                            overwrite_existing=True, overwrite_all_in_gpu=False, step_size=0.5)
        for log in folder.glob("**/training_log_*.txt"):
            log.unlink()
        shutil.copy(out / "case.nii.gz", HERE / f"expected/v1_{name}.nii.gz")


if __name__ == "__main__":
    main()
