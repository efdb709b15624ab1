"""The Python wheel beside the command line: time and memory of one case as whole processes, and the import.

    bindings/python/wheel dist && pip install dist/fastnnunet-*.whl nibabel SimpleITK
    python benches/wheel.py CT.nii.gz [--model bone_medium] [--rounds 3] [--program target/release/fastnnunet]

Per round and way in: wall and processor seconds and the most memory held; the least of the rounds, and its
ratio to the command line's. All ways must give the same labels.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import nibabel as nib
import numpy as np

WAYS = {
    "path": "fastnnunet.segment(ct, output=out, **options)",
    "nibabel": "import nibabel; nibabel.save(fastnnunet.segment(nibabel.load(ct), **options), out)",
    "SimpleITK": "import SimpleITK as sitk; sitk.WriteImage(fastnnunet.segment(sitk.ReadImage(ct), **options), out, True)",
}


def measured(command):
    """Wall and processor seconds of a process, and MiB at its largest."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command[:3]} ended with {child.returncode}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def import_milliseconds():
    code = "import time, numpy; t = time.perf_counter(); import fastnnunet; print(1000 * (time.perf_counter() - t))"
    return sorted(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(11))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct")
    parser.add_argument("--model", default="bone_medium")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--program", default=str(pathlib.Path(__file__).resolve().parents[1] / "target/release/fastnnunet"))
    args = parser.parse_args()

    times = import_milliseconds()
    print(f"import beyond NumPy's: {times[0]:.1f} to {times[-1]:.1f} ms, median {times[len(times) // 2]:.1f}")
    shape = nib.load(args.ct).shape
    print(f"{args.ct}: {'x'.join(map(str, shape))}, {args.model}, f32, {os.cpu_count()} threads")
    with tempfile.TemporaryDirectory() as folder:
        best = {}
        for _ in range(args.rounds):
            for way in ("command line", *WAYS):
                out = f"{folder}/{way}.nii.gz"
                if way == "command line":
                    command = [args.program, "-i", args.ct, "-o", out, "--model", args.model, "--precision", "f32", "--overwrite"]
                else:
                    options = dict(model=args.model, precision="f32", **({"overwrite": True} if way == "path" else {}))
                    code = f"import fastnnunet; ct, out, options = {args.ct!r}, {out!r}, {options!r}; {WAYS[way]}"
                    command = [sys.executable, "-c", code]
                best[way] = min(best.get(way, (np.inf, 0, 0)), measured(command))
        expected = np.asarray(nib.load(f"{folder}/command line.nii.gz").dataobj)
        base = best["command line"]
        for way, (wall, cpu, mib) in best.items():
            same = np.array_equal(np.asarray(nib.load(f"{folder}/{way}.nii.gz").dataobj), expected)
            print(f"{way:13} {wall:7.2f} s wall ({wall / base[0]:.3f}) {cpu:7.2f} s processor ({cpu / base[1]:.3f}) "
                  f"{mib:6.0f} MiB  {'same labels' if same else 'OTHER LABELS'}")


if __name__ == "__main__":
    main()
