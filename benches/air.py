"""Tiles answered once because they hold one value, and what `--skip-air` adds to them and changes.

    cargo build --release --no-default-features --features cli
    python benches/air.py CT.nii.gz [CT.nii.gz ...] [--models bone_high total]

Per model and CT: the tiles, those that `fastnnunet` did not have to run, processor seconds of the whole
case without and with `--skip-air`, voxels whose label that changes, and the least Dice of a label.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import tempfile

import nibabel as nib
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(args, ct, model, folder, *more):
    out = pathlib.Path(folder) / f"{len(more)}.nii.gz"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run([args.program, "-i", ct, "-o", str(out), "--model", model, "--overwrite", "--json", "--threads",
                           str(args.threads), *more], check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return np.asarray(nib.load(out).dataobj), json.loads(told)["network"], seconds


def least_dice(a, b):
    n = int(max(a.max(), b.max())) + 1
    sizes = np.bincount(a.ravel(), minlength=n) + np.bincount(b.ravel(), minlength=n)
    both = np.bincount(a[a == b].ravel(), minlength=n)
    present = np.flatnonzero(sizes[1:]) + 1
    return (2 * both[present] / sizes[present]).min() if len(present) else 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", nargs="+")
    parser.add_argument("--models", nargs="*", default=["bone_high", "total"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--program", default=str(ROOT / "target/release/fastnnunet"))
    args = parser.parse_args()
    print("| model | CT | tiles | answered once | with `--skip-air` | CPU s | with `--skip-air` | voxels changed | least Dice |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for model in args.models:
        for ct in args.ct:
            with tempfile.TemporaryDirectory() as folder:
                a, plain, plain_s = run(args, ct, model, folder)
                b, skipped, skipped_s = run(args, ct, model, folder, "--skip-air")
            print(f"| {model} | {pathlib.Path(ct).name.split('.')[0]} | {plain['tiles']} | {plain['known_tiles']} "
                  f"| {skipped['known_tiles']} | {plain_s:.1f} | {skipped_s:.1f} | {np.count_nonzero(a != b)} "
                  f"| {least_dice(a, b):.5f} |", flush=True)


if __name__ == "__main__":
    main()
