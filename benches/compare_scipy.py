"""Times nnU-Net's own resampling on the shapes of benches/resample.rs, next to ours.

    pip install -c reference/lock.txt nnunetv2
    python benches/compare_scipy.py

Runs `cargo bench --bench resample` (optimized, no default features) and then the reference, one
after the other on the same machine. The reference is single threaded; ours uses RAYON_NUM_THREADS.
"""

import json
import pathlib
import subprocess
import time

import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

SCAN, COARSE, FINE = (133, 512, 512), (111, 119, 119), (166, 367, 367)
ROOT = pathlib.Path(__file__).parent.parent


def reference():
    rng = np.random.default_rng(0)
    scan = rng.uniform(-1024, 3072, (1, *SCAN)).astype(np.float32)

    def image(shape, axis=None):
        return resample_data_or_seg(scan, shape, False, axis, 3, axis is not None, 0)

    def label(classes):
        # To spare memory one class is timed, and multiplied by the number of classes.
        logits = rng.normal(size=(1, *COARSE)).astype(np.float16)
        start = time.perf_counter()
        fine = resample_data_or_seg(logits, SCAN, False, None, 1, False, 0)
        each = time.perf_counter() - start
        pair = np.concatenate([fine, fine])
        start = time.perf_counter()
        pair.argmax(0)
        return each * classes + (time.perf_counter() - start) * classes / 2

    def timed(work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    yield "image/3mm", timed(lambda: image(COARSE))
    yield "image/fine", timed(lambda: image(FINE))
    yield "image/fine/separate", timed(lambda: image(FINE, 0))
    yield "label/2-classes", label(2)
    yield "label/61-classes", label(61)


def ours(name):
    group, bench = name.split("/", 1)
    folder = ROOT / "target/criterion" / group / bench.replace("/", "_")
    return json.loads((folder / "new/estimates.json").read_text())["median"]["point_estimate"] / 1e9


subprocess.run(["cargo", "bench", "--no-default-features", "--bench", "resample"], cwd=ROOT, check=True)
print(f"\n{'':22}{'ours s':>10}{'nnU-Net s':>12}{'ratio':>8}")
for name, seconds in reference():
    mine = ours(name)
    print(f"{name:22}{mine:10.3f}{seconds:12.2f}{seconds / mine:8.0f}", flush=True)
print("label: nnU-Net's time is that of one class, times the number of classes")
