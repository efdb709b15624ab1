#!/usr/bin/env python3
"""Derive labels, measure the intensity statistics and cache every case at 3 mm."""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from bone_labels import BONE
from cases import Case, list_cases
from volume import Intensity, crop, resample

# HU kept beyond the clipping range, so that augmentation can shift and stretch
# before the final clip. Clipping must come before resampling, as in nnU-Net.
HEADROOM = 150
SAMPLES_PER_CASE = 10_000


def load_cropped(case: Case, folder: Path):
    """Label derivation is the slow part, hence this first cache at native resolution."""
    ct, label, spacing = case.load()
    ct, label = crop(ct, label)
    np.savez(folder / f"{case.name}.native.npz", ct=ct.astype(np.int16), label=label.astype(np.uint8), spacing=spacing)
    bone = ct[label == BONE]
    rng = np.random.default_rng(0)
    return rng.choice(bone, SAMPLES_PER_CASE) if len(bone) else bone


def cache(case: Case, folder: Path, intensity: Intensity) -> str:
    with np.load(folder / f"{case.name}.native.npz") as native:
        ct, label, spacing = native["ct"], native["label"], tuple(native["spacing"])
    low, high = intensity.percentile_00_5 - HEADROOM, intensity.percentile_99_5 + HEADROOM
    image = resample(np.clip(ct.astype(np.float32), low, high), spacing, is_label=False)
    small = resample(label.astype(np.int8), spacing, is_label=True)
    np.savez(folder / f"{case.name}.npz", image=np.rint(image).astype(np.int16), label=small.astype(np.uint8))
    return f"{case.name}: {image.shape}, bone {100 * (small == BONE).mean():.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)

    cases = list_cases(args.data)
    with ProcessPoolExecutor(args.workers) as pool:
        samples = list(pool.map(partial(load_cropped, folder=args.cache), cases))
        # Only training patients may shape the statistics.
        bone = np.concatenate([s for s, case in zip(samples, cases) if not case.held_out])
        intensity = Intensity(float(bone.mean()), float(bone.std()), *map(float, np.percentile(bone, (0.5, 99.5))))
        (args.cache / "intensity.json").write_text(json.dumps(asdict(intensity), indent=2) + "\n")
        print(intensity)
        for line in pool.map(partial(cache, folder=args.cache, intensity=intensity), cases):
            print(line, flush=True)


if __name__ == "__main__":
    main()
