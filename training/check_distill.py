#!/usr/bin/env python3
"""`distill.py` from end to end in some minutes on a CPU: the shipped `bone_low` teaches a tiny student on synthetic CTs.

usage: check_distill.py PROGRAM     (the built fastnnunet)

The command is stopped on the way and goes on. The student must run in the program and agree with its teacher on CTs that
it never saw.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

HERE = Path(__file__).resolve().parent
LEAST_DICE = 0.8


def synthetic(seed: int) -> sitk.Image:
    """A body of soft tissue with bones that are balls and rods, in air, [z, y, x] of 3 x 2 x 2 mm."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (40, 72, 80)), indexing="ij")
    values = np.full(z.shape, -1000, np.float32)
    values[((y - 36) / 30) ** 2 + ((x - 40) / 36) ** 2 < 1] = 40
    for _ in range(5):
        cy, cx, radius = random.uniform(18, 54), random.uniform(18, 62), random.uniform(4, 7)
        rod = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        values[rod & (np.abs(z - random.uniform(8, 32)) < random.uniform(6, 20))] = random.uniform(500, 1100)
    values += random.normal(0, 15, values.shape)
    image = sitk.GetImageFromArray(np.round(values).astype(np.int16))
    image.SetSpacing((2.0, 2.0, 3.0))
    return image


def distill(program: str, folder: Path, steps: int) -> None:
    words = ["--teacher", "model", "bone_low", "--images", folder / "cts", "--output", folder / "out", "--name", "tiny",
             "--features", 8, 16, 32, "--patch", 32, 32, 32, "--batch", 2, "--steps", steps, "--program", program]
    subprocess.run([sys.executable, HERE / "distill.py", *map(str, words)], check=True)


def main() -> None:
    program = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cts").mkdir()
        for seed in range(6):
            sitk.WriteImage(synthetic(seed), str(folder / "cts" / f"ct.{seed}.nii.gz"))
        distill(program, folder, 40)
        distill(program, folder, 240)
        out = folder / "out"
        card = (out / "tiny.md").read_text()
        assert "240 steps" in card, card
        config = json.loads((out / "tiny.json").read_text())
        assert config["grade"] == "external" and config["source"].endswith("teacher: bone_low"), config
        row = next(line for line in card.splitlines() if line.startswith("| bone "))
        dice = float(row.split("|")[2])
        print(f"Dice of student and teacher: {dice}")
        assert dice >= LEAST_DICE, f"{dice}, expected at least {LEAST_DICE}"


if __name__ == "__main__":
    main()
