"""An endless stream of training patches."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

import augment
from cases import Case
from tasks import IGNORE, Task
from volume import intensity_of

# Of each label, this many voxels are remembered as places for a patch.
CENTERS = 2000


@dataclass
class Sample:
    image: torch.Tensor
    label: torch.Tensor
    annotated: torch.Tensor  # bool, per label id; background is always
    centers: dict[int, torch.Tensor]  # flat indices of each label present


class Patches(IterableDataset):
    """Yields image channels, target and which labels the target can be trusted about."""

    def __init__(self, cases: list[Case], cache: Path, task: Task, seed: int, degraded: float = 1.0):
        self.task = task
        self.degraded = degraded
        self.seed = seed
        self.intensity = intensity_of(task)
        self.swaps = task.swaps
        self.groups: dict[str, list[Sample]] = {}
        for case in cases:
            self.groups.setdefault(case.group, []).append(load_sample(case, cache, task))

    def __iter__(self):
        names = sorted(self.groups)
        weights = [self.task.weights[name] for name in names]
        for index in range(10**9):
            rng = random.Random(self.seed * 10**9 + index)
            group = self.groups[rng.choices(names, weights)[0]]
            if self.task.balanced and rng.random() < 0.7:
                # A label first, then a patient who has it: few have the rare ones.
                label = rng.randrange(1, len(self.task.labels) + 1)
                group = [s for s in group if label in s.centers] or group
            yield self.draw(group[rng.randrange(len(group))], rng)

    def draw(self, sample: Sample, rng: random.Random):
        task = self.task
        # Scanners pad with -1024, -2048 or -3024; after the clip all are this.
        empty = self.intensity.percentile_00_5
        ct, target, mirrored = augment.sample_patch(sample, task, rng, empty)
        annotated = sample.annotated
        if mirrored:
            target, annotated = augment.swap_sides(target, annotated, self.swaps)
        if task.source == "bone":
            ct = augment.bone_effects(ct, target, rng)
        elif task.source == "organs":
            ct = augment.surroundings(ct, target, rng)
        else:
            ct = augment.surroundings(augment.recolor(ct, target, rng), target, rng)
        degraded = rng.random() < self.degraded
        if degraded:
            ct = augment.scanner_effects(ct, target, rng, empty)
        x = torch.clip(ct, self.intensity.percentile_00_5, self.intensity.percentile_99_5)
        x = (x - self.intensity.mean) / self.intensity.std
        padding = torch.isnan(x)
        x = torch.nan_to_num(x)
        if degraded:
            x = augment.image_quality(x, rng)
        # nnU-Net's padding is an exact 0 that no scanner has touched.
        x[padding] = 0
        channels = [x]
        if task.previous_stage:
            channels += augment.previous_stage(target, task.input_channels - 1, rng)
        x = torch.stack(channels)
        if task.flat:
            x, target = x[:, 0], target[0]
        return x, target, annotated


def load_sample(case: Case, cache: Path, task: Task) -> Sample:
    with np.load(cache / task.cache / f"{case.name}.npz") as stored:
        image, label = stored["image"], stored["label"]
    annotated = torch.zeros(len(task.labels) + 1, dtype=torch.bool)
    annotated[[0, *case.annotated(task)]] = True
    rng = np.random.default_rng(0)
    flat = np.flatnonzero((label > 0) & (label != IGNORE))
    ids = label.ravel()[flat]
    centers = {}
    for i in np.unique(ids):
        places = flat[ids == i]
        centers[int(i)] = torch.from_numpy(rng.choice(places, CENTERS) if len(places) > CENTERS else places)
    return Sample(torch.from_numpy(image), torch.from_numpy(label), annotated, centers)
