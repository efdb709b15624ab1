"""All training cases of a task in one file, in memory as one array, and random patches of them.

Everything is a batch of tensors on one device with shapes that never change, so that a graphics card can
repeat a recorded step (CUDA graphs) and a CPU runs the same code.
"""

import io
import lzma
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tasks import BACKGROUND, IGNORE, Task

# Of each label in each case, this many voxels are remembered as places for a patch.
CENTERS = 500
# HU in which soft tissue differs are stored in steps of FINE, far less than noise; the others in what is left of LEVELS.
SOFT, FINE, LEVELS = (-200, 250), 10, 96


def gray_levels(low: float, high: float) -> np.ndarray:
    fine = np.arange(max(low, SOFT[0]), min(high, SOFT[1]), FINE)
    return np.sort(np.concatenate([fine, np.linspace(low, high, LEVELS - len(fine))])).round().astype(np.int16)


def store(path: Path, cases: list[dict], low: float, high: float) -> None:
    """Cases have `name`, `group`, `image` (HU, int16), `label` (uint8) and `annotated` (label ids)."""
    levels = gray_levels(low, high)
    middle = (levels[1:].astype(np.float32) + levels[:-1]) / 2
    arrays = {"levels": levels, "names": np.array([c["name"] for c in cases]), "groups": np.array([c["group"] for c in cases]),
              "shapes": np.array([c["image"].shape for c in cases], np.int64)}
    codes = [np.searchsorted(middle, c["image"]).astype(np.uint8) for c in cases]
    # Neighbors along x are alike: differences pack better.
    arrays["codes"] = np.concatenate([np.diff(code, axis=2, prepend=np.uint8(0)).ravel() for code in codes])
    arrays["labels"] = np.concatenate([c["label"].ravel() for c in cases])
    annotated = np.zeros((len(cases), 256), bool)
    for row, case in zip(annotated, cases):
        row[[0, *case["annotated"]]] = True
    arrays["annotated"] = annotated
    with lzma.open(path, "wb", preset=6) as packed:
        np.savez(packed, **arrays)


@dataclass
class Batch:
    """`ct` in HU, `target` and `padding` are [b, z, y, x]; `annotated` [b, label] tells which labels the target can
    be trusted about; where `padding` is set there is no scan."""

    ct: torch.Tensor
    target: torch.Tensor
    padding: torch.Tensor
    annotated: torch.Tensor


class Pool:
    def __init__(self, path: Path, device: torch.device):
        stored = dict(np.load(io.BytesIO(lzma.decompress(path.read_bytes()))))
        self.names = [str(name) for name in stored["names"]]
        self.groups = [str(group) for group in stored["groups"]]
        self.shapes = stored["shapes"]
        sizes = self.shapes.prod(1)
        self.starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        images = [stored["levels"][np.cumsum(codes.reshape(shape), axis=2, dtype=np.uint8)].ravel() for codes, shape in
                  zip(np.split(stored["codes"], self.starts[1:]), self.shapes)]
        self.labels = stored["labels"]
        self.annotated = stored["annotated"]
        self.device = device
        self.flat_image = torch.from_numpy(np.concatenate(images)).to(device)
        self.flat_label = torch.from_numpy(self.labels).to(device)
        self.centers = [self.places(k) for k in range(len(self.names))]

    def places(self, k: int) -> dict[int, np.ndarray]:
        """Voxels of each label, [n, 3]."""
        label = self.labels[self.starts[k] : self.starts[k] + self.shapes[k].prod()]
        rng = np.random.default_rng(k)
        flat = np.flatnonzero((label > BACKGROUND) & (label < IGNORE))
        ids = label[flat]
        return {int(i): np.stack(np.unravel_index(rng.choice(flat[ids == i], CENTERS), self.shapes[k]), 1) for i in np.unique(ids)}


class Sampler:
    """Patches of a pool for one network: `without` are the cases that it must not see."""

    def __init__(self, pool: Pool, task: Task, without=()):
        seen = [k for k, name in enumerate(pool.names)
                if name.removesuffix("_expert").split("+")[0] not in without and pool.groups[k] in task.weights]
        assert seen, f"no case of {task.name} is left"
        self.names = [pool.names[k] for k in seen]
        self.pool, self.task = pool, task
        device = pool.device
        labels = len(task.labels) + 1

        def put(values, kind=torch.float32):
            return torch.as_tensor(np.asarray(values), dtype=kind, device=device)

        self.shapes = put(pool.shapes[seen])
        self.starts = put(pool.starts[seen], torch.int64)
        self.annotated = put(pool.annotated[seen][:, :labels], torch.bool)
        centers = np.zeros((len(seen), labels, CENTERS, 3), np.float32)
        present = np.zeros((len(seen), labels), np.float32)
        for row, k in enumerate(seen):
            for i, places in pool.centers[k].items():
                centers[row, i], present[row, i] = places, 1
        self.centers = put(centers)
        self.has_label = put(present.any(1), torch.bool)
        self.label_odds = cumulative(put(present + (present.sum(1, keepdims=True) == 0)))
        # One row of odds for a draw of any case, then one for each label.
        groups = [pool.groups[k] for k in seen]
        # A patient left out makes way for all others, not for those of its group alone.
        weight = np.array([task.weights[g] / pool.groups.count(g) for g in groups])
        found = [i for i in range(1, labels) if present[:, i].any()]
        self.case_odds = cumulative(put(np.stack([weight] + [weight * present[:, i] for i in found])))
        self.row_label = put([0, *found], torch.int64)
        steps = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in task.patch]
        self.offsets = (steps[0].view(1, -1, 1, 1), steps[1].view(1, 1, -1, 1), steps[2].view(1, 1, 1, -1))
        self.patch = put(task.patch)
        self.spacing = put(task.spacing)
        self.flips = put(task.flips)
        swapped = np.arange(256)
        for a, b in task.swaps:
            swapped[a], swapped[b] = b, a
        self.swapped = put(swapped, torch.int64)

    def uniform(self, *shape, low=0.0, high=1.0) -> torch.Tensor:
        return torch.rand(shape, device=self.pool.device) * (high - low) + low

    def draw(self, batch: int, empty: float) -> Batch:
        """Random patches. `empty` is the HU of what lies outside the scan in one half of them; in the other
        half nothing is known there, as where nnU-Net pads a small scan."""
        task = self.task
        row = torch.randint(len(self.case_odds), (batch,), device=self.pool.device)
        row = torch.where(self.uniform(batch) < (0.7 if task.balanced else 0.0), row, 0)
        case = pick(self.case_odds[row])
        shape = self.shapes[case]
        center = self.center(case, shape, self.row_label[row])

        spatial = self.uniform(batch) < task.spatial
        turn = rotations(torch.randn(batch, 3, device=self.pool.device) * 0.2)
        # The patch turns in millimeters, not in voxels.
        turn = turn * self.spacing[None, None, :] / self.spacing[None, :, None]
        zoom = self.uniform(batch, 1, low=0.75, high=1.3) * self.uniform(batch, 3, low=0.93, high=1.07)
        matrix = torch.where(spatial[:, None, None], turn * zoom[:, None, :], torch.eye(3, device=self.pool.device))
        flips = torch.where(self.uniform(batch, 3) < self.flips, -1.0, 1.0)
        matrix = matrix * flips[:, None, :]
        # Whole-voxel positions keep the resampled values untouched.
        center = torch.where(spatial[:, None], center, (center - (self.patch - 1) / 2).round() + (self.patch - 1) / 2)
        position = [center[:, axis].view(-1, 1, 1, 1) + sum(matrix[:, axis, k].view(-1, 1, 1, 1) * self.offsets[k] for k in range(3))
                    for axis in range(3)]
        if task.elastic:
            amplitude = torch.where(spatial, self.uniform(batch, high=task.elastic), 0.0)
            position = [p + self.waves(batch) * (amplitude / s).view(-1, 1, 1, 1) for p, s in zip(position, task.spacing)]

        ct, target, outside = self.read(case, shape, position)
        # A mirrored patient's left is right.
        mirrored = flips.prod(1) < 0
        target = torch.where(mirrored.view(-1, 1, 1, 1), self.swapped[target], target)
        annotated = self.annotated[case]
        annotated = torch.where(mirrored[:, None], annotated[:, self.swapped[: annotated.shape[1]]], annotated)
        padding = outside & (self.uniform(batch) < 0.5).view(-1, 1, 1, 1)
        ct = torch.where(outside, empty, ct)
        target = torch.where(outside, torch.where(padding, IGNORE, BACKGROUND), target)
        return Batch(ct, target, padding, annotated)

    def center(self, case: torch.Tensor, shape: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Two patches of three are centered on a label; all stay inside the scan as far as they fit."""
        batch = len(case)
        anywhere = self.uniform(batch, 3) * (shape - 1)
        label = pick(self.label_odds[case])
        # A case drawn for a label shows that one.
        label = torch.where((wanted > 0) & (self.uniform(batch) < 0.5), wanted, label)
        place = self.centers[case, label, torch.randint(CENTERS, (batch,), device=self.pool.device)]
        place = place + self.uniform(batch, 3, low=-0.25, high=0.25) * self.patch
        chosen = self.has_label[case] & (self.uniform(batch) < 0.67)
        center = torch.where(chosen[:, None], place, anywhere)
        low = torch.minimum((self.patch - 1) / 2, (shape - 1) / 2)
        return torch.maximum(torch.minimum(center, shape - 1 - low), low)

    def waves(self, batch: int) -> torch.Tensor:
        """A smooth random displacement of about unit size."""
        knots = [max(2, math.ceil(n / 24) + 1) for n in self.task.patch]
        noise = torch.randn(batch, 1, *knots, device=self.pool.device)
        return F.interpolate(noise, size=self.task.patch, mode="trilinear", align_corners=True)[:, 0]

    def read(self, case: torch.Tensor, shape: torch.Tensor, position: list[torch.Tensor]):
        """Gray values between voxels, the label of the nearest one, and what lies outside the scan."""
        size = [shape[:, axis].view(-1, 1, 1, 1) for axis in range(3)]
        start = self.starts[case].view(-1, 1, 1, 1)
        rows, columns = size[1].long(), size[2].long()
        outside = torch.zeros((), dtype=torch.bool, device=self.pool.device)
        low, high, part, near = [], [], [], []
        for p, n in zip(position, size):
            outside = outside | (p < -0.5) | (p > n - 0.5)
            p = torch.minimum(p.clamp(min=0), n - 1)
            floor = p.floor()
            low.append(floor.long())
            high.append(torch.minimum(floor + 1, n - 1).long())
            part.append(p - floor)
            near.append(p.round().long())

        def at(z, y, x):
            return start + (z * rows + y) * columns + x

        ct = torch.zeros((), device=self.pool.device)
        for z, wz in ((low[0], 1 - part[0]), (high[0], part[0])):
            for y, wy in ((low[1], 1 - part[1]), (high[1], part[1])):
                for x, wx in ((low[2], 1 - part[2]), (high[2], part[2])):
                    ct = ct + self.pool.flat_image[at(z, y, x)].float() * (wz * wy * wx)
        return ct, self.pool.flat_label[at(*near)].long(), outside


def cumulative(odds: torch.Tensor) -> torch.Tensor:
    total = odds.cumsum(-1)
    return total / total[..., -1:]


def pick(odds: torch.Tensor) -> torch.Tensor:
    """An index by its odds, one for each row of cumulative odds."""
    draw = torch.rand(len(odds), 1, device=odds.device)
    return (draw >= odds).sum(1).clamp(max=odds.shape[1] - 1)


def rotations(angles: torch.Tensor) -> torch.Tensor:
    """[b, 3, 3] from an angle about each axis."""
    c, s = angles.cos(), angles.sin()
    one, zero = torch.ones_like(c[:, 0]), torch.zeros_like(c[:, 0])
    about_z = (one, zero, zero, zero, c[:, 0], -s[:, 0], zero, s[:, 0], c[:, 0])
    about_y = (c[:, 1], zero, -s[:, 1], zero, one, zero, s[:, 1], zero, c[:, 1])
    about_x = (c[:, 2], -s[:, 2], zero, s[:, 2], c[:, 2], zero, zero, zero, one)
    z, y, x = (torch.stack(m, 1).view(-1, 3, 3) for m in (about_z, about_y, about_x))
    return x @ y @ z
