#!/usr/bin/env python3
"""Overview pictures for docs/modes.md: each mode on a public CT, with its time and memory.

Runs the program once per mode with --preview, shrinks the pictures into docs/previews/, and
writes the table and the pictures between the marks in docs/modes.md. Prints the table too.
"""

import argparse
import io
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cases import list_cases
from tasks import TASKS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "modes.md"
PICTURES = ROOT / "docs" / "previews"
BEGIN, END = "<!-- written by training/previews.py: begin -->", "<!-- end -->"
MAX_BYTES = 150_000

LIDC = "LIDC-IDRI, CC BY 3.0"
ACRIN = "ACRIN-FLT-Breast (TCIA), CC BY 3.0"
OPENKBP = "OpenKBP (TCIA data), MIT"
TOTALSEGMENTATOR = "TotalSegmentator's test data, Apache-2.0"


@dataclass(frozen=True)
class Example:
    mode: str
    ct: str  # in the data folder
    source: str
    options: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return " ".join((self.mode, *self.options))

    @property
    def picture(self) -> str:
        return "_".join((self.mode, *(option.removeprefix("--enable-") for option in self.options))) + ".png"

    @property
    def case(self) -> str:
        return Path(self.ct).name.removesuffix(".nii.gz").removesuffix("_ct")


# Where there is one, a scan that the mode's model has not been trained on; no limb of another patient is
# labeled plausibly by the demonstration of `total`.
EXAMPLES = (
    Example("bone", "trunk/example_ct.nii.gz", TOTALSEGMENTATOR),
    Example("bone", "trunk/lidc0001_ct.nii.gz", LIDC, ("--enable-subseg",)),
    Example("chest", "trunk/lidc0001_ct.nii.gz", LIDC),
    Example("abdomen", "unlabelled/acrinflt001_abdomenpelvis.nii.gz", ACRIN),
    Example("headneck", "headneck/pt_100_ct.nii.gz", OPENKBP),
    Example("pelvic", "unlabelled/acrinflt001_abdomenpelvis.nii.gz", ACRIN),
    Example("spine", "unlabelled/acrinflt001_abdomenpelvis.nii.gz", ACRIN),
    Example("limb", "trunk/lidc0001_ct.nii.gz", LIDC),
    Example("total", "trunk/lidc0001_ct.nii.gz", LIDC),
)


def run(program: Path, data: Path, example: Example, picture: Path) -> dict:
    """The program's JSON summary."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--input", data / example.ct, "--output", Path(folder) / "labels.nii.gz",
                   "--mode", example.mode, *example.options, "--preview", picture, "--json"]
        # Its notes and errors go where ours go.
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def shrink(source: Path, target: Path) -> None:
    """Fewer pixels and colors until the file is small."""
    picture = Image.open(source).convert("RGB")
    for width, grays, colors in ((1100, 64, 160), (1000, 48, 144), (900, 40, 128), (850, 32, 112), (800, 24, 96), (700, 24, 96)):
        size = (width, round(picture.height * width / picture.width))
        buffer = io.BytesIO()
        flat(picture.resize(size, Image.Resampling.LANCZOS), grays, colors).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            target.write_bytes(buffer.getvalue())
            return
    raise SystemExit(f"{source}: more than {MAX_BYTES} bytes however small")


def flat(picture: Image.Image, grays: int, colors: int) -> Image.Image:
    """With a palette. The CT's grays and the structures' colors get entries of their own, or the
    many grays would take the few colors along."""
    pixels = np.asarray(picture)
    levels = np.linspace(0, 255, grays).round().astype(np.uint8)
    indices = np.rint(pixels.mean(axis=2) / 255 * (grays - 1)).astype(np.uint8)
    palette = np.repeat(levels[:, None], 3, axis=1)
    colored = np.ptp(pixels.astype(int), axis=2) > 14
    if colored.any():
        row = Image.fromarray(pixels[colored][None])
        row = row.quantize(colors, method=Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
        indices[colored] = np.asarray(row)[0] + grays
        palette = np.concatenate([palette, np.array(row.getpalette(), np.uint8).reshape(-1, 3)])
    result = Image.fromarray(indices, "P")
    result.putpalette(palette.ravel().tolist())
    return result


def trained_on(data: Path, example: Example, models: list[str]) -> str:
    for model in models:
        task = TASKS.get(model)
        if task is None:
            return "not known"
        seen = {case.name for case in list_cases(data, task)} - set(task.held_out)
        if example.case in seen:
            return "yes"
    return "no"


def row(data: Path, example: Example, summary: dict) -> list[str]:
    found = sum(label["voxels"] > 0 for label in summary["labels"])
    wanted = len(summary["labels"]) + len(summary["not_labeled"])
    models = [model["name"] for model in summary["models"]]
    shape = "x".join(str(n) for n in summary["geometry"]["shape_xyz"])
    return [example.title, f"{example.case}, {shape}", " + ".join(models) + f", {summary['grade']}",
            trained_on(data, example, models), f"{found} of {wanted}", f"{summary['total_seconds']:.1f}",
            f"{summary['peak_bytes'] / 2**20:.0f}"]


def table(rows: list[list[str]]) -> str:
    heading = ["mode", "CT", "model, grade", "trained on it", "structures found", "seconds", "MiB at peak"]
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return f"{os.cpu_count()} cores of {names[0] if names else 'an unknown CPU'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="data folder, see training/README.md")
    parser.add_argument("--program", type=Path, default=ROOT / "target" / "release" / "fastnnunet")
    args = parser.parse_args()

    PICTURES.mkdir(exist_ok=True)
    rows, pictures, summary = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        for example in EXAMPLES:
            picture = Path(folder) / example.picture
            summary = run(args.program, args.data, example, picture)
            shrink(picture, PICTURES / example.picture)
            rows.append(row(args.data, example, summary))
            found = ", ".join(label["name"] for label in summary["labels"] if label["voxels"])
            pictures.append(f"## {example.title}\n\n`{example.case}`, {example.source}. Found: {found or 'nothing'}.\n\n"
                            f"![{example.title} on {example.case}](previews/{example.picture})")
            print(" | ".join(rows[-1]), flush=True)

    measured = f"Version {summary['version']}, `{summary['device']}`, {summary['precision']}, {cpu()}; one run each, with the picture."
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(before + "\n\n".join([BEGIN, table(rows), measured, *pictures, END]) + after)
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
