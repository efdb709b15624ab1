"""What bf16 changes: Dice per label between `--precision bf16` and `f32`, for built-in models over CTs.

    cargo build --release
    python benches/precision.py CT.nii.gz [CT.nii.gz ...] [--models bone_low headneck]

Prints each model's worst label and the Dice over all labels, of both label maps as the program
writes them, and exits with 1 if a label falls below --least.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import nibabel as nib
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODELS = ["bone_low", "bone_medium", "bone_high", "bone_2d", "bone_lowres", "headneck", "total"]


def labels(program, ct, model, precision, folder):
    out = pathlib.Path(folder) / f"{precision}.nii.gz"
    subprocess.run([program, "-i", ct, "-o", str(out), "--model", model, "--precision", precision, "--overwrite",
                    "--quiet", "--postprocess", "none"], check=True)
    return np.asarray(nib.load(out).dataobj)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", nargs="+")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--least", type=float, default=0.999)
    parser.add_argument("--program", default=str(ROOT / "target/release/fastnnunet"))
    args = parser.parse_args()
    worst = 1.0
    for model in args.models:
        for ct in args.ct:
            with tempfile.TemporaryDirectory() as folder:
                a, b = (labels(args.program, ct, model, precision, folder) for precision in ("f32", "bf16"))
            n = int(max(a.max(), b.max())) + 1
            sizes = np.bincount(a.ravel(), minlength=n) + np.bincount(b.ravel(), minlength=n)
            both = np.bincount(a[a == b].ravel(), minlength=n)
            present = np.flatnonzero(sizes[1:]) + 1
            dice = 2 * both[present] / sizes[present]
            name = pathlib.Path(ct).name
            if not len(present):
                print(f"{model:12} {name:36} no label in either")
                continue
            k = dice.argmin()
            every = 2 * both[1:].sum() / sizes[1:].sum()
            low = ", ".join(f"{i}: {d:.4f} of {s // 2}" for i, d, s in zip(present, dice, sizes[present]) if d < args.least)
            print(f"{model:12} {name:36} all {every:.5f}  worst label {present[k]}: {dice[k]:.5f} of {sizes[present[k]] // 2} voxels"
                  + (f"  below {args.least}: {low}" if low else ""))
            worst = min(worst, dice[k])
    sys.exit(worst < args.least)


if __name__ == "__main__":
    main()
