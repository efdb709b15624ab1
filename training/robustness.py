#!/usr/bin/env python3
"""Dice of `headneck` on held-out patients whose scans are changed: voxel sizes, orientation, surroundings.

Runs the program on each variant, brings the labels back to the contours' own grid and compares there.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from cases import list_cases
from evaluate import dice
from tasks import HEADNECK_HELD_OUT, TASKS

AIR = -1000


def resampled(ct: sitk.Image, spacing) -> sitk.Image:
    size = [max(1, round(n * old / new)) for n, old, new in zip(ct.GetSize(), ct.GetSpacing(), spacing)]
    return sitk.Resample(ct, size, sitk.Transform(), sitk.sitkLinear, ct.GetOrigin(), spacing, ct.GetDirection(), AIR,
                         ct.GetPixelID())


def surrounded(ct: sitk.Image) -> sitk.Image:
    """A wide field of view with noisy air and a table, as before the set's masking."""
    wide = sitk.ConstantPad(ct, (24, 24, 0), (24, 24, 0), AIR)
    hu = sitk.GetArrayFromImage(wide).astype(np.float32)
    air = hu < -950
    hu[air] += np.random.default_rng(0).normal(0, 15, air.sum())
    # The set is stored with the back at high y.
    back = np.argwhere(hu > -300)[:, 1].max() + 2
    hu[:, back : back + 1, 10:-10] = -200
    hu[:, back + 1 : back + 3, 10:-10] = -850
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(wide)
    return image


def variants(ct: sitk.Image):
    yield "as it is", ct
    yield "1x1x1 mm", resampled(ct, (1, 1, 1))
    yield "2x2x5 mm", resampled(ct, (2, 2, 5))
    yield "stored as RAS", sitk.DICOMOrient(ct, "RAS")
    yield "wide, noise, table", surrounded(ct)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--program", type=Path, default=Path(__file__).parents[1] / "target/release/fastnnunet")
    parser.add_argument("--patients", nargs="*", default=HEADNECK_HELD_OUT)
    args = parser.parse_args()
    task = TASKS["headneck"]
    names = {i: label.name for i, label in enumerate(task.labels, 1)}
    scores: dict[str, dict[int, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        given, answer = f"{folder}/ct.nii.gz", f"{folder}/label.nii.gz"
        for case in (case for case in list_cases(args.data, task) if case.name in args.patients):
            ct, truth = sitk.ReadImage(str(case.ct)), sitk.ReadImage(str(case.seg))
            reference = sitk.GetArrayFromImage(truth)
            for variant, image in variants(ct):
                sitk.WriteImage(image, given)
                subprocess.run([args.program, "-i", given, "-o", answer, "--model", "headneck", "--overwrite", "--quiet"],
                               check=True)
                back = sitk.Resample(sitk.ReadImage(answer), truth, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
                for i, score in dice(sitk.GetArrayFromImage(back), reference, list(names)).items():
                    scores.setdefault(variant, {}).setdefault(i, []).append(score)
    print(f"{'scan':<20}" + "".join(f"{name[:11]:>12}" for name in names.values()) + f"{'mean':>12}")
    for variant, by_label in scores.items():
        means = [np.mean(by_label[i]) if i in by_label else np.nan for i in names]
        print(f"{variant:<20}" + "".join(f"{mean:>12.3f}" for mean in means) + f"{np.nanmean(means):>12.3f}")


if __name__ == "__main__":
    main()
