"""Label maps that TotalSegmentator itself writes with tiny seeded weights.

usage: make.py [weights|DATASET...] [RUN...]     (in the environment of reference/; without arguments, everything)

Writes results/ (folders as released), images/ (synthetic), expected/ and index.json beside this file.
Everything is TotalSegmentator's own code but one thing: nnU-Net adds tiles up in 16-bit floats, whose
rounding decides many voxels of random networks; here it adds in 32 bits, as this program does.
"""
import json
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(tempfile.mkdtemp(prefix="totalseg_home_"))
os.environ["TOTALSEG_HOME_DIR"] = str(HOME)
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ[name] = str(HOME / "nnunet" / "results")
warnings.filterwarnings("ignore")

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

sys.path.insert(0, str(HERE))
import folders

def levels(dense, denser, bone, lung):
    return dict(levels=[(dense, 1.0, -1.0), (denser, 3.0, -4.6), (bone, 5.0, -10.0), (lung, -1.0, -0.6)])


# What each data set needs beside its id.
DATASETS = {
    297: {}, 298: dict(levels=[*levels(5, 2, 74, 11)["levels"], (91, 8.0, -18.4)]),
    291: dict(features=(4, 8)), 292: dict(features=(4, 8)), 293: dict(features=(4, 8)),
    294: dict(features=(4, 8)), 295: dict(features=(4, 8)),
    299: {}, 300: {}, 803: levels(20, 21, 23, 5), 305: {}, 789: {}, 117: dict(features=(4, 8)),
    778: dict(features=(4, 8)), 779: dict(features=(4, 8)),
    8: dict(spacing=[2.0, 1.6, 1.6], features=(4, 8)),
    315: dict(spacing=[2.0, 1.6, 1.6], features=(4, 8), folds=(0, 1, 2)),
    850: dict(features=(4, 8)), 851: dict(features=(4, 8)), 852: {}, 598: dict(features=(4, 8)), 576: dict(features=(4, 8)),
    775: dict(features=(4, 8)), 952: dict(features=(4, 8)),
    301: dict(spacing=[2.0, 1.6, 1.6], features=(4, 8)), 304: dict(features=(4, 8)),
    113: dict(features=(4, 8)), 115: dict(levels=[(4, 1.0, -1.0), (2, 3.0, -4.6), (7, 5.0, -10.0)]),
}

# name: image, task, arguments of the Python interface
RUNS = {
    "total_low": ("las", "total", dict(fast=True)),
    "total_lowest": ("oblique", "total", dict(fastest=True)),
    "total": ("pir", "total", {}),
    "total_roi": ("pir", "total", dict(roi_subset=["liver", "lung_lower_lobe_left"])),
    "total_v3_low": ("las", "total_v3", dict(fast=True)),
    "total_v3_low_small": ("pir", "total_v3", dict(fast=True, model_size="small")),
    "body": ("las", "body", {}),
    "body_low": ("pir", "body", dict(fast=True)),
    "vertebrae_pp": ("oblique", "vertebrae_pp", {}),
    "vertebrae_pp_refined": ("las", "vertebrae_pp_refined", {}),
    "kidney_cysts": ("pir", "kidney_cysts", {}),
    "lung_vessels": ("las", "lung_vessels", {}),
    "headneck_muscles": ("pir", "headneck_muscles", {}),
    "liver_vessels": ("pir", "liver_vessels", {}),
    "pleural_pericard_effusion": ("las", "pleural_pericard_effusion", {}),
    "total_mr": ("float", "total_mr", {}),
    "total_mr_low": ("float", "total_mr", dict(fast=True)),
    "body_mr_low": ("float", "body_mr", dict(fast=True)),
    "liver_segments_mr": ("float", "liver_segments_mr", {}),
    "four_dimensions": ("four", "total", dict(fastest=True)),
    "already_there": ("there", "total", dict(fast=True)),
    "empty": ("empty", "liver_vessels", {}),
    "heartchambers_highres": ("las", "heartchambers_highres", {}),
    "appendicular_bones": ("pir", "appendicular_bones", {}),
    "vertebrae_body": ("oblique", "vertebrae_body", {}),
    "abdominal_muscles": ("jaw", "abdominal_muscles", {}),
    "head_glands_cavities": ("jaw", "head_glands_cavities", {}),
    "teeth": ("jaw", "teeth", {}),
}


def tissue(seed=3):
    """Blurred noise in a body with a dense organ, a lung and bone, in air; x, y, z."""
    random = np.random.default_rng(seed)
    shape = (44, 38, 30)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    ball = lambda a, b, c, r: (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < r * r
    values = np.full(shape, -1000.0)
    values[x * x / 0.8 + y * y / 0.7 < 1] = 20
    values[ball(0.35, 0.1, 0.2, 0.3)] = 260
    values[ball(-0.35, -0.1, -0.1, 0.35)] = -800
    values[ball(0.0, -0.5, 0.3, 0.16)] = 900
    noise = ndimage.gaussian_filter(random.normal(size=shape), 1.5)
    return np.round(values + 60 * noise / noise.std()).astype(np.int16)


def images(to):
    values, las = tissue(), np.diag([-2.1, 1.9, 2.7, 1.0])
    las[:3, 3] = [40, -30, -25]
    image = nib.Nifti1Image(values, las)
    turn = nib.orientations.ornt_transform(nib.io_orientation(las), nib.orientations.axcodes2ornt("PIR"))
    a, b = np.deg2rad(12), np.deg2rad(7)
    rotation = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ \
        np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    oblique = las.copy()
    oblique[:3, :3] = rotation @ las[:3, :3]
    scaled = nib.Nifti1Image(values.astype(np.float32) * 0.37 + 100.3, las)
    nib.save(image, to / "las.nii.gz")
    nib.save(image.as_reoriented(turn), to / "pir.nii.gz")
    nib.save(nib.Nifti1Image(values, oblique), to / "oblique.nii.gz")
    nib.save(scaled, to / "float.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([values, values[::-1]], 3), las), to / "four.nii.gz")
    nib.save(nib.Nifti1Image(values, np.diag([3.0, 3.0, 3.0, 1.0])), to / "there.nii.gz")
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), -1000, np.int16), las), to / "empty.nii.gz")
    # Small, as the grid of its task is fine, and with what data set 298 takes for skull.
    jaw = values[12:36, 8:28, 6:24].copy()
    jaw[8:14, 7:12, 5:10] = 1500
    jaw[10:12, 9:11, 7:9] = 2000
    nib.save(nib.Nifti1Image(jaw, np.diag([-1.6, 1.5, 2.0, 1.0])), to / "jaw.nii.gz")
    return image


def weights(to, image, asked=()):
    torch.set_num_threads(2)
    for dataset, settings in DATASETS.items():
        if not asked or dataset in asked:
            folders.write(to, dataset, image, **settings)
    if asked:
        return
    # The third version has two trainings per data set.
    folders.write(to, 836, image, features=(4, 8), old=False)
    folders.write(to, 836, image, features=(4, 8), old=False, residual=True,
                  plans_name="nnUNetResEncUNetLPlans_8")


# What calls of its nnU-Net say for every licensed task.
ALIKE = dict(model="3d_fullres", folds=[0], tta=False, multilabel_image=True, nr_threads_saving=1, quiet=True,
             device=torch.device("cpu"))


def heartchambers(source, to):
    """What the task does after it has asked for the license that its released weights need: here the weights
    are our own. Its steps are those of python_api.totalsegmentator."""
    from totalsegmentator.map_to_binary import class_map
    from totalsegmentator.nnunet import nnUNet_predict_image
    found, _, _ = nnUNet_predict_image(
        source, None, 297, trainer="nnUNetTrainer_4000epochs_NoMirroring", resample=3.0, task_name="total",
        crop_addon=None, **ALIKE)
    names = {name: label for label, name in class_map["total"].items()}
    mask = lambda classes: nib.Nifti1Image(
        np.isin(found.get_fdata(), [names[name] for name in classes]).astype(np.uint8), found.affine)
    outside = mask(["heart", "aorta", "inferior_vena_cava"])
    nnUNet_predict_image(
        source, to, 301, trainer="nnUNetTrainer", resample=None, task_name="heartchambers_highres",
        crop=mask(["heart"]), crop_addon=[20, 20, 20], remove_outside_mask=outside,
        remove_outside_dilation=10, **ALIKE)


def appendicular_bones(source, to):
    """As `heartchambers`."""
    from totalsegmentator.nnunet import nnUNet_predict_image
    nnUNet_predict_image(
        source, to, 304, trainer="nnUNetTrainerNoMirroring", resample=1.5, task_name="appendicular_bones",
        crop=None, crop_addon=None, **ALIKE)


LICENSED = dict(heartchambers_highres=heartchambers, appendicular_bones=appendicular_bones)


class Wide:
    """PyTorch whose 16-bit floats are 32-bit floats."""
    half = torch.float32

    def __getattr__(self, name):
        return getattr(torch, name)


def main():
    import nnunetv2.inference.predict_from_raw_data as predict
    from totalsegmentator import python_api
    from totalsegmentator.python_api import totalsegmentator
    predict.torch = Wide()
    # Version 2.18 forgets the device of a model that a task is cropped by when it is the CPU.
    python_api.convert_device_to_string = lambda device: "cpu"
    asked = [name for name in sys.argv[1:] if name in RUNS] or list(RUNS)
    for name in ("images", "results", "expected"):
        (HERE / name).mkdir(exist_ok=True)
    image = images(HERE / "images")
    datasets = [int(number) for number in sys.argv[1:] if number.isdigit()]
    if not sys.argv[1:] or "weights" in sys.argv or datasets:
        weights(HERE / "results", image, datasets)
    shutil.copytree(HERE / "results", HOME / "nnunet" / "results", dirs_exist_ok=True)
    (HOME / "config.json").write_text(json.dumps(dict(
        totalseg_id="totalseg_tests", send_usage_stats=False, prediction_counter=0,
        statistics_disclaimer_shown=True)))
    for name in asked:
        source, task, arguments = RUNS[name]
        to = HERE / "expected" / f"{name}.nii.gz"
        if task in LICENSED:
            LICENSED[task](HERE / "images" / f"{source}.nii.gz", to)
        else:
            totalsegmentator(HERE / "images" / f"{source}.nii.gz", to, ml=True, task=task, device="cpu",
                             nr_thr_saving=1, quiet=True, **arguments)
        found = np.asanyarray(nib.load(to).dataobj)
        print(name, found.shape, len(np.unique(found)) - 1, "classes", int((found > 0).sum()), "voxels",
              flush=True)
    index = {name: dict(image=f"images/{source}.nii.gz", task=task, arguments=arguments,
                        expected=f"expected/{name}.nii.gz")
             for name, (source, task, arguments) in RUNS.items()}
    (HERE / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    shutil.rmtree(HOME)


if __name__ == "__main__":
    main()
