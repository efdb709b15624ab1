#!/usr/bin/env python3
"""Derive a student's labels and put every training case on its grid into one file, CACHE/TASK.pool."""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

import pool
from cases import Case, list_cases
from tasks import TASKS, Task
from volume import crop, intensity_of, resample

# HU kept beyond the clipping range, so that augmentation can shift and stretch
# before the final clip. Clipping must come before resampling, as in nnU-Net.
HEADROOM = 150
# Interpolating label by label takes minutes for a hundred labels and hardly differs from the nearest one.
MANY = 20


def bounds(task: Task) -> tuple[float, float]:
    intensity = intensity_of(task)
    return intensity.percentile_00_5 - HEADROOM, intensity.percentile_99_5 + HEADROOM


def derived(case: Case, task: Task, folder: Path):
    """Label derivation is the slow part, hence this first cache at native resolution for all grids."""
    path = folder / "native" / task.source / f"{case.name}.npz"
    if not path.exists():
        ct, label, spacing = case.load(task)
        ct, label = crop(ct, label)
        np.savez(path, ct=ct.astype(np.int16), label=label.astype(np.uint8), spacing=spacing)
    with np.load(path) as native:
        return native["ct"], native["label"], tuple(native["spacing"])


def on_grid(case: Case, task: Task, folder: Path) -> dict:
    ct, label, spacing = derived(case, task, folder)
    image = resample(np.clip(ct.astype(np.float32), *bounds(task)), spacing, task.spacing, is_label=False)
    small = resample(label.astype(np.int16), spacing, task.spacing, is_label=True, order=0 if len(task.labels) > MANY else 1)
    return {"name": case.name, "group": case.group, "annotated": case.annotated(task),
            "image": np.rint(image).astype(np.int16), "label": small.astype(np.uint8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, help="what teacher.py wrote, for the task that learns from it")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    task = TASKS[args.task]
    (args.cache / "native" / task.source).mkdir(parents=True, exist_ok=True)
    cases = [case for case in list_cases(args.data, task, args.teacher) if case.patient not in task.held_out]
    done = []
    with ProcessPoolExecutor(args.workers) as workers:
        for case in workers.map(partial(on_grid, task=task, folder=args.cache), cases):
            foreground = ((case["label"] > 0) & (case["label"] < 255)).mean()
            print(f"{case['name']}: {case['image'].shape}, foreground {100 * foreground:.1f} %", flush=True)
            done.append(case)
    path = args.cache / f"{task.cache}.pool"
    pool.store(path, done, *bounds(task))
    print(f"{path.name}: {len(done)} cases, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
