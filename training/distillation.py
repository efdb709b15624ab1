#!/usr/bin/env python3
"""Teacher against student: Dice, time, memory and parameters of networks for one task.

Runs the program with each network, by turns, on the held-out patients, and prints a table in
Markdown. Dice is the mean over labels of the mean over patients; time the median over patients of
a whole case, file to file; memory the largest of the program's own peaks.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import SimpleITK as sitk

from cases import list_cases
from evaluate import dice
from tasks import TASKS

ROOT = Path(__file__).parents[1]


def parameters(path: Path) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in onnx.load(path).graph.initializer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS, help="whose grid, labels and held-out patients these networks share")
    parser.add_argument("networks", nargs="+", metavar="NAME=ONNX")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/fastnnunet")
    parser.add_argument("--patients", nargs="+", help="others than the held-out ones")
    args = parser.parse_args()
    task = TASKS[args.task]
    config = ROOT / "config" / task.configuration / f"{task.name}.json"
    networks = {name: Path(path) for name, path in (given.split("=", 1) for given in args.networks)}
    cases = [c for c in list_cases(args.data, task) if c.name in (args.patients or task.held_out) and c.seg]
    scores = {name: {} for name in networks}
    seconds = {name: [] for name in networks}
    peak = dict.fromkeys(networks, 0)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "label.nii.gz"
        for case in cases:
            reference = sitk.GetArrayFromImage(sitk.ReadImage(str(case.seg)))
            for name, path in networks.items():
                run = subprocess.run([args.program, "-i", case.ct, "-o", answer, "--model", path, "--config", config,
                                      "--overwrite", "--json"], check=True, capture_output=True, text=True)
                report = json.loads(run.stdout)
                seconds[name].append(report["total_seconds"])
                peak[name] = max(peak[name], report["peak_bytes"])
                found = sitk.GetArrayFromImage(sitk.ReadImage(str(answer)))
                for label, score in dice(found, reference, case.annotated(task)).items():
                    scores[name].setdefault(label, []).append(score)
    labels = [label.name for label in task.labels]
    print(f"{len(cases)} {'patients' if args.patients else 'held-out patients'}\n")
    print("| network | parameters | file | mean Dice | seconds per case | peak memory |")
    print("|---|---|---|---|---|---|")
    for name, path in networks.items():
        mean = np.mean([np.mean(values) for values in scores[name].values()])
        print(f"| {name} | {parameters(path) / 1e6:.2f} million | {path.stat().st_size / 1e6:.1f} MB | {mean:.3f} | "
              f"{np.median(seconds[name]):.2f} | {peak[name] / 2**20:.0f} MiB |")
    print("\n| label | " + " | ".join(networks) + " |\n" + "|---" * (len(networks) + 1) + "|")
    for i, label in enumerate(labels, 1):
        row = [f"{np.mean(scores[name][i]):.3f}" if i in scores[name] else "-" for name in networks]
        print(f"| {label} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
