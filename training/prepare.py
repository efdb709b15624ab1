#!/usr/bin/env python3
"""Derive a student's labels and cache every training case on its grid."""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from cases import Case, list_cases
from tasks import TASKS, Task
from volume import crop, intensity_of, resample

# HU kept beyond the clipping range, so that augmentation can shift and stretch
# before the final clip. Clipping must come before resampling, as in nnU-Net.
HEADROOM = 150
# Interpolating label by label takes minutes for a hundred labels and hardly differs from the nearest one.
MANY = 20


def derived(case: Case, task: Task, folder: Path):
    """Label derivation is the slow part, hence this first cache at native resolution for all grids."""
    path = folder / "native" / task.source / f"{case.name}.npz"
    if not path.exists():
        ct, label, spacing = case.load(task)
        ct, label = crop(ct, label)
        np.savez(path, ct=ct.astype(np.int16), label=label.astype(np.uint8), spacing=spacing)
    with np.load(path) as native:
        return native["ct"], native["label"], tuple(native["spacing"])


def cache(case: Case, task: Task, folder: Path) -> str:
    ct, label, spacing = derived(case, task, folder)
    intensity = intensity_of(task)
    low, high = intensity.percentile_00_5 - HEADROOM, intensity.percentile_99_5 + HEADROOM
    image = resample(np.clip(ct.astype(np.float32), low, high), spacing, task.spacing, is_label=False)
    small = resample(label.astype(np.int16), spacing, task.spacing, is_label=True, order=0 if len(task.labels) > MANY else 1)
    np.savez(folder / task.cache / f"{case.name}.npz", image=np.rint(image).astype(np.int16), label=small.astype(np.uint8))
    return f"{case.name}: {image.shape}, foreground {100 * ((small > 0) & (small < 255)).mean():.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    task = TASKS[args.task]
    for name in (f"native/{task.source}", task.cache):
        (args.cache / name).mkdir(parents=True, exist_ok=True)
    cases = [case for case in list_cases(args.data, task) if case.name not in task.held_out]
    with ProcessPoolExecutor(args.workers) as pool:
        for line in pool.map(partial(cache, task=task, folder=args.cache), cases):
            print(line, flush=True)


if __name__ == "__main__":
    main()
