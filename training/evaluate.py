#!/usr/bin/env python3
"""Dice of the exported model on the held-out patients, whole volumes, as nnU-Net predicts them.

Columns: Dice at 3 mm and at the scan's own resolution, and false bone in
milliliters: outside the body, inside structures that the reference names as soft
tissue, and anywhere more than 6 mm from reference bone. Ignored voxels do not count.
"""

import argparse
from pathlib import Path

import numpy as np

from bone_labels import BONE, IGNORE, body_mask, grow
from cases import Case, class_names, list_cases
from predict import Predictor
from volume import crop, read_lps, resample

HEADER = f"{'patient':<12}{'reference':<18}{'Dice 3 mm':>10}{'Dice native':>12}{'outside':>9}{'in soft':>9}{'far':>7}"


def dice(prediction: np.ndarray, label: np.ndarray) -> float:
    known = label != IGNORE
    p, t = (prediction == BONE) & known, (label == BONE) & known
    return 2 * (p & t).sum() / max(1, p.sum() + t.sum())


def soft_structures(case: Case) -> np.ndarray | None:
    """What the reference calls something other than bone."""
    if case.group != "trunk":
        return None
    seg = read_lps(case.seg)[0]
    _, label, _ = case.load()
    named = list(class_names(case.seg))
    return np.isin(seg, named) & (label != BONE)


def row(case: Case, predictor: Predictor) -> str:
    full_ct, full_label, spacing = case.load()
    ct, label = crop(full_ct, full_label)
    logits = predictor.logits(ct, spacing)
    small = resample(label.astype(np.int8), spacing, is_label=True)
    prediction = predictor.native(logits, ct.shape, spacing)

    milliliters = np.prod(spacing) / 1000
    false = (prediction == BONE) & (label != BONE) & (label != IGNORE)
    outside = (false & ~body_mask(ct, spacing)).sum() * milliliters
    far = (false & ~grow(label == BONE, 6, spacing)).sum() * milliliters
    soft = soft_structures(case)
    in_soft = "-"
    if soft is not None:
        soft = crop(full_ct, soft.astype(np.uint8))[1] > 0
        in_soft = f"{(false & soft).sum() * milliliters:.2f}"
    return (f"{case.name:<12}{case.reference:<18}{dice(logits.argmax(0), small):>10.4f}"
            f"{dice(prediction, label):>12.4f}{outside:>9.2f}{in_soft:>9}{far:>7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="folder of the ONNX file")
    parser.add_argument("--patients", nargs="*", help="others than the held-out ones")
    args = parser.parse_args()

    predictor = Predictor(args.config, args.models)
    print(HEADER)
    for case in list_cases(args.data):
        if case.name in args.patients if args.patients else case.held_out:
            print(row(case, predictor), flush=True)


if __name__ == "__main__":
    main()
