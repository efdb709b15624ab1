"""Compares our CPU engine with ONNX Runtime on any ONNX network.

    cargo build --release --no-default-features --example bench_engine
    python benches/peers/agree.py network.onnx 144 144 144 --ct CT.nii.gz

The input is a box from the middle of the CT, as stored (networks that want other units than HU get
those of `--scale` and `--shift`), or seeded smooth noise without one. Prints the largest difference
of the outputs relative to the largest output, and the share of voxels with the same label, for
every instruction set and precision this CPU has.
"""

import argparse
import pathlib
import subprocess
import tempfile

import numpy as np
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEVELS = ("scalar", "avx2", "avx512", "avx512-bf16/bf16", "amx/bf16")


def box(ct, patch):
    """The middle of a CT, `[z, y, x]`, with the edge repeated where it is too small."""
    import SimpleITK as sitk

    data = sitk.GetArrayFromImage(sitk.ReadImage(ct)).astype(np.float32)
    for axis, n in enumerate(patch):
        if data.shape[axis] < n:
            more = [(0, 0)] * 3
            more[axis] = (0, n - data.shape[axis])
            data = np.pad(data, more, mode="edge")
        start = (data.shape[axis] - n) // 2
        data = data.take(range(start, start + n), axis)
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("patch", type=int, nargs=3, metavar=("Z", "Y", "X"))
    parser.add_argument("--ct")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--shift", type=float, default=0.0)
    parser.add_argument("--engine", default=str(ROOT / "target/release/examples/bench_engine"))
    args = parser.parse_args()
    if args.ct:
        x = box(args.ct, args.patch)
    else:
        x = np.random.default_rng(0).standard_normal(args.patch).astype(np.float32)
        for axis in range(3):
            x = (x + np.roll(x, 1, axis)) / np.sqrt(2, dtype=np.float32)
    x = (x * np.float32(args.scale) + np.float32(args.shift))[None, None]
    session = onnxruntime.InferenceSession(args.network, providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    print(f"ONNX Runtime {onnxruntime.__version__}: output {list(expected.shape)}, up to {np.abs(expected).max():.4g}")
    with tempfile.TemporaryDirectory() as folder:
        given, answer = pathlib.Path(folder) / "in.raw", pathlib.Path(folder) / "out.raw"
        x.tofile(given)
        for level in LEVELS:
            isa, _, precision = level.partition("/")
            run = subprocess.run([args.engine, args.network, *map(str, args.patch), "--isa", isa, "--precision",
                                  precision or "f32", "--runs", "0", "--input", str(given), "--output", str(answer)],
                                 capture_output=True, text=True)
            if run.returncode:
                print(f"{level:18} {run.stderr.strip().splitlines()[-1]}")
                continue
            found = np.fromfile(answer, np.float32).reshape(expected.shape)
            relative = np.abs(found - expected).max() / np.abs(expected).max()
            same = (found.argmax(1) == expected.argmax(1)).mean()
            print(f"{level:18} difference {relative:.1e} of the largest output, same label {100 * same:.4f} %")


if __name__ == "__main__":
    main()
