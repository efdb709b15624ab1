"""How long a folder that nnU-Net trained takes to open, and what it holds.

    cargo build --release --no-default-features --example bench_engine
    python benches/peers/folder.py

Makes two results folders with seeded residual encoder U-Nets, nnU-Net's preset M (409 MB of weights)
and one half as wide (102 MB), opens each three times and runs one patch of 128x128x128 voxels. Needs
what reference/README.md names for golden arrays.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, "unused")
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "nnunet"))

import networks  # noqa: E402

BLOCKS = [1, 3, 4, 6, 6, 6]
PRESETS = {"ResEnc-M": [32, 64, 128, 256, 320, 320], "half as wide": [16, 32, 64, 128, 160, 160]}
PATCH = [128, 128, 128]
ENGINE = ROOT / "target/release/examples/bench_engine"


def make(folder, features):
    """A results folder and the bytes of its weights."""
    stages = len(features)
    arch = networks.architecture(features, [[1] * 3] + [[2] * 3] * (stages - 1), convs=BLOCKS, cls=networks.RESENC)
    config = networks.configuration(PATCH, [1.5] * 3, arch)
    plans = networks.plans("Dataset900_Bench", {"3d_fullres": config}, name="nnUNetResEncUNetMPlans")
    data = networks.dataset({"background": 0, **{f"l{i}": i for i in range(1, 10)}}, ("CT",))
    net = networks.build(plans, data, "3d_fullres", "nnUNetTrainer", 1, 0)
    path = networks.save_folder(pathlib.Path(folder), "checkpoint_final", net, plans, data, "3d_fullres", "nnUNetTrainer",
                                0, mirror=None)
    return path, sum(p.numel() for p in net.parameters()) * 4


def main():
    mb = 1e6
    print(f"{'network':14} {'precision':9} {'weights MB':>10} {'engine MB':>9} {'open s':>7} {'peak of open':>12} {'peak':>6} "
          f"{'peak / engine':>13}")
    for name, features in PRESETS.items():
        with tempfile.TemporaryDirectory() as folder:
            path, weights = make(folder, features)
            for precision in ("f32", "bf16"):
                runs = [json.loads(subprocess.run(
                    [ENGINE, path, *map(str, PATCH), "--runs", "0", "--threads", "2", "--precision", precision],
                    check=True, capture_output=True, text=True).stdout) for _ in range(3)]
                opened = statistics.median(run["open_seconds"] for run in runs)
                # Input and output of the bench itself are not the engine's.
                caller = 11 * 4 * 128**3
                held, peak = runs[0]["engine_bytes"], max(run["peak_bytes"] for run in runs) - caller
                print(f"{name:14} {precision:9} {weights / mb:10.0f} {held / mb:9.0f} {opened:7.2f} "
                      f"{runs[0]['peak_bytes_of_open'] / mb:12.0f} {peak / mb:6.0f} {peak / held:13.2f}", flush=True)


if __name__ == "__main__":
    main()
