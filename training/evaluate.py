#!/usr/bin/env python3
"""Dice of exported models on their held-out patients: whole volumes at the scan's own resolution.

Per patient: Dice of each label that was annotated, `-` for the others. Then mean, minimum and number of
patients per label, and the mean over labels; beside them the mean Dice of those slices alone in which both maps
have the label, which leaves out where along the body it ends. For bone also false bone in milliliters outside
the body and more than 6 mm from reference bone. Ignored voxels do not count.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import bone_labels
from cases import Case, list_cases
from predict import Predictor
from tasks import IGNORE, TASKS, Task
from volume import crop


def dice(prediction: np.ndarray, label: np.ndarray, wanted: list[int]) -> dict[int, float]:
    """Of the labels that the reference holds."""
    known = label != IGNORE
    scores = {}
    for i in wanted:
        p, t = (prediction == i) & known, label == i
        if t.any():
            scores[i] = 2 * (p & t).sum() / (p.sum() + t.sum())
    return scores


def dice_of_shared_slices(prediction: np.ndarray, label: np.ndarray, i: int) -> float:
    shared = (prediction == i).any((1, 2)) & (label == i).any((1, 2))
    return dice(prediction[shared], label[shared], [i]).get(i, 0.0)


def false_bone(prediction: np.ndarray, label: np.ndarray, ct: np.ndarray, spacing) -> str:
    milliliters = np.prod(spacing) / 1000
    false = (prediction == bone_labels.BONE) & (label != bone_labels.BONE) & (label != IGNORE)
    outside = (false & ~bone_labels.body_mask(ct, spacing)).sum() * milliliters
    far = (false & ~bone_labels.grow(label == bone_labels.BONE, 6, spacing)).sum() * milliliters
    return f"   outside {outside:.2f} ml, far {far:.2f} ml"


def evaluate(task: Task, cases: list[Case], predictor: Predictor, wanted: set[int]) -> None:
    everyone: dict[int, list[tuple[float, float]]] = {i: [] for i in sorted(wanted)}
    short = len(wanted) <= 10
    if short:
        print(f"{'patient':<10}{'reference':<18}" + "".join(f"{task.labels[i - 1].name[:11]:>12}" for i in everyone))
    for case in cases:
        start = time.time()
        ct, label, spacing = case.load(task)
        ct, label = crop(ct, label)
        prediction = predictor.native(predictor.logits(ct, spacing), ct.shape, spacing)
        scores = dice(prediction, label, sorted(wanted & set(case.annotated(task))))
        for i, score in scores.items():
            everyone[i].append((score, dice_of_shared_slices(prediction, label, i)))
        line = "".join(f"{scores[i]:>12.3f}" if i in scores else f"{'-':>12}" for i in everyone) if short else ""
        if task.source == "bone":
            line += false_bone(prediction, label, ct, spacing)
        print(f"{case.name:<10}{case.reference(task):<18}{line}   {time.time() - start:.0f} s", flush=True)
    print(f"\n{'label':<32}{'mean':>7}{'min':>7}{'patients':>10}{'shared slices':>15}")
    means = []
    for i, scores in everyone.items():
        if scores:
            mean, shared = np.mean(scores, 0)
            means.append((mean, shared))
            print(f"{task.labels[i - 1].name:<32}{mean:>7.3f}{min(scores)[0]:>7.3f}{len(scores):>10}{shared:>15.3f}")
    mean, shared = np.mean(means, 0)
    print(f"{'mean of labels':<32}{mean:>7.3f}{shared:>32.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="folder of models/ and config/")
    parser.add_argument("--onnx", type=Path, help="other weights than the committed ones")
    parser.add_argument("--patients", nargs="+", help="others than the held-out ones")
    parser.add_argument("--shared-with", help="only labels that this patient's reference holds too")
    args = parser.parse_args()

    for name in args.tasks:
        task = TASKS[name]
        cases = list_cases(args.data, task)
        wanted = set(range(1, len(task.labels) + 1))
        for case in cases:
            if case.name == args.shared_with:
                wanted &= {int(i) for i in np.unique(case.load(task)[1])}
        cases = [c for c in cases if c.name in (args.patients or task.held_out)]
        print(f"# {name}")
        if not cases:
            print("no patient is held out")
            continue
        evaluate(task, cases, Predictor(args.root, name, args.onnx), wanted)
        print()


if __name__ == "__main__":
    main()
