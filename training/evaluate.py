#!/usr/bin/env python3
"""Dice of exported models on their held-out patients: whole volumes at the scan's own resolution.

Per patient: Dice of each label that was annotated, `-` for the others. Then mean, minimum and number of
patients per label, and the mean over labels; beside them the mean Dice of those slices alone in which both maps
have the label, which leaves out where along the body it ends. For bone also false bone in milliliters outside
the body and more than 6 mm from reference bone. Ignored voxels do not count.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np

import bone_labels
from cases import Case, list_cases
from export import configuration
from predict import Predictor
from tasks import IGNORE, TASKS, Task
from volume import crop

# With more labels than these a line of Dice per patient is too long.
SHORT = 14


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


def score(task: Task, case: Case, predictor: Predictor, wanted: set[int]) -> dict[int, tuple[float, float]]:
    """Dice, and Dice of shared slices, of each label that the patient's reference holds; prints a line."""
    start = time.time()
    ct, label, spacing = case.load(task)
    ct, label = crop(ct, label)
    # A map without a CT stands for the bones that a previous stage would find.
    given = (label > 0).astype(np.uint8) if case.ct is None else None
    prediction = predictor.native(predictor.logits(ct, spacing, given), ct.shape, spacing)
    scores = dice(prediction, label, sorted(wanted & set(case.annotated(task))))
    line = ""
    if len(wanted) <= SHORT:
        line = "".join(f"{scores[i]:>12.3f}" if i in scores else f"{'-':>12}" for i in sorted(wanted))
    if task.source == "bone":
        line += false_bone(prediction, label, ct, spacing)
    print(f"{case.name:<10}{case.reference(task):<18}{line}   {time.time() - start:.0f} s", flush=True)
    found = {i: (one, dice_of_shared_slices(prediction, label, i)) for i, one in scores.items()}
    # Paired structures once more without regard to their side, under the negative id of the first.
    for a, b in task.swaps:
        if a in found or b in found:
            merged = [np.where(m == b, a, m) for m in (prediction, label)]
            found[-a] = dice(*merged, [a])[a], dice_of_shared_slices(*merged, a)
    return found


def table(task: Task, patients: list[dict[int, tuple[float, float]]]) -> None:
    print(f"\n{'label':<32}{'mean':>7}{'min':>7}{'patients':>10}{'shared slices':>15}")
    means = []
    for i in sorted({i for found in patients for i in found}, key=lambda i: (i < 0, abs(i))):
        scores = [found[i] for found in patients if i in found]
        mean, shared = np.mean(scores, 0)
        name = task.labels[abs(i) - 1].name
        if i > 0:
            means.append((mean, shared))
        else:
            name = name.replace("_left", "").replace("_right", "") + ", either side"
        print(f"{name:<32}{mean:>7.3f}{min(scores)[0]:>7.3f}{len(scores):>10}{shared:>15.3f}")
    mean, shared = np.mean(means, 0)
    print(f"{'mean of labels':<32}{mean:>7.3f}{shared:>32.3f}", flush=True)


def good_scans(data: Path) -> set[str]:
    with (data / "limbs" / "seg_index.tsv").open() as rows:
        return {row["patient"] for row in csv.DictReader(rows, delimiter="\t") if row["quality"] == "good"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="folder of models/ and config/")
    parser.add_argument("--onnx", type=Path, help="other weights than the committed ones")
    parser.add_argument("--folds", type=Path, help="folder of TASK_0.onnx, TASK_1.onnx, ...: each on the patients that it has not seen")
    parser.add_argument("--patients", nargs="+", help="others than the held-out ones")
    parser.add_argument("--shared-with", help="only labels that this patient's reference holds too")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    for name in args.tasks:
        task = TASKS[name]
        cases = list_cases(args.data, task)
        wanted = set(range(1, len(task.labels) + 1))
        for case in cases:
            if case.name == args.shared_with:
                wanted &= {int(i) for i in np.unique(case.load(task)[1])}
        # What the task says holds for weights that are not shipped yet, too.
        settings = {**configuration(task), "flat": task.flat} if args.folds or args.onnx else None
        tested = [(args.onnx, args.patients or task.held_out)]
        if args.folds:
            tested = [(args.folds / f"{name}_{k}.onnx", patients) for k, patients in enumerate(task.folds)]
        print(f"# {name}")
        if len(wanted) <= SHORT:
            print(f"{'patient':<10}{'reference':<18}" + "".join(f"{task.labels[i - 1].name[-11:]:>12}" for i in sorted(wanted)))
        found = {}
        for onnx, patients in tested:
            chosen = [c for c in cases if c.name in patients]
            if chosen:
                predictor = Predictor(args.root, name, onnx, args.threads, settings)
                found |= {case.name: score(task, case, predictor, wanted) for case in chosen}
        if not found:
            print("no patient is held out")
            continue
        table(task, list(found.values()))
        if task.source == "limb":
            good = good_scans(args.data)
            print("\nof these, scans whose labels are good")
            table(task, [scores for patient, scores in found.items() if patient in good])
        print()


if __name__ == "__main__":
    main()
