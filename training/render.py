#!/usr/bin/env python3
"""Picture of a CT and its label map: two projections and a few axial slices.

Projections show the CT's maximum in gray and the label in color, brighter
where more labeled tissue lies along the ray.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import SimpleITK as sitk

SLICES = 4
WINDOW = (-300, 900)
COLORS = ("#ffb347", "#5ab4e6", "#8fd175", "#e377c2", "#c9a0ff", "#f06060")


def load(path: Path) -> sitk.Image:
    return sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")


def without_table(ct: np.ndarray, spacing) -> np.ndarray:
    """The table would draw stripes across every projection; in air it is thin."""
    image = sitk.GetImageFromArray((ct > -400).astype(np.uint8))
    radius = [max(1, round(6 / s)) for s in spacing[::-1]]
    opened = sitk.BinaryMorphologicalOpening(image, radius)
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(opened)) == 1
    body = sitk.GetArrayFromImage(sitk.BinaryDilate(largest, radius)) > 0
    return np.where(body, ct, -1000)


def overlay(axes, gray: np.ndarray, label: np.ndarray, strength: np.ndarray, aspect: float, window) -> None:
    axes.imshow(gray, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="bilinear")
    for index, value in enumerate(v for v in np.unique(label) if v > 0):
        color = np.zeros((*label.shape, 4))
        color[..., :3] = matplotlib.colors.to_rgb(COLORS[index % len(COLORS)])
        color[..., 3] = (label == value) * strength
        axes.imshow(color, aspect=aspect, interpolation="nearest")
    axes.axis("off")


def project(axes, ct: np.ndarray, label: np.ndarray, axis: int, aspect: float) -> None:
    depth = (label > 0).sum(axis)
    strength = np.clip(0.25 + 0.6 * np.sqrt(depth / max(1, depth.max())), 0, 0.85) * (depth > 0)
    overlay(axes, ct.max(axis)[::-1], label.max(axis)[::-1], strength[::-1], aspect, (-200, 1400))


def render(ct_path: Path, label_path: Path, output: Path, title: str | None) -> None:
    image = load(ct_path)
    dx, dy, dz = image.GetSpacing()
    ct = sitk.GetArrayFromImage(image)
    label = sitk.GetArrayFromImage(load(label_path))
    if label.shape != ct.shape:
        raise SystemExit(f"label is {label.shape}, CT is {ct.shape}")

    nz, ny, nx = ct.shape
    height = 5.0
    widths = [height * nx * dx / (nz * dz), height * ny * dy / (nz * dz), height * nx * dx / (ny * dy)]
    figure = plt.figure(figsize=(widths[0] + widths[1] + widths[2], height), facecolor="black")
    grid = figure.add_gridspec(2, 4, width_ratios=[widths[0], widths[1], widths[2] / 2, widths[2] / 2],
                               left=0.005, right=0.995, bottom=0.01, top=0.93, wspace=0.02, hspace=0.04)
    clean = without_table(ct, (dz, dy, dx))
    project(figure.add_subplot(grid[:, 0]), clean, label, 1, dz / dx)
    project(figure.add_subplot(grid[:, 1]), clean, label, 2, dz / dy)
    heights = np.linspace(0.88, 0.12, SLICES) * (nz - 1)
    for place, z in zip(((0, 2), (0, 3), (1, 2), (1, 3)), heights.round().astype(int)):
        flat = (label[z] > 0) * 0.5
        overlay(figure.add_subplot(grid[place]), ct[z], label[z], flat, dy / dx, WINDOW)
    if title:
        figure.suptitle(title, color="white", fontsize=10)
    figure.savefig(output, dpi=110, facecolor="black")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", type=Path)
    parser.add_argument("label", type=Path)
    parser.add_argument("png", type=Path)
    parser.add_argument("--title")
    args = parser.parse_args()
    render(args.ct, args.label, args.png, args.title)


if __name__ == "__main__":
    main()
