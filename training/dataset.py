"""An endless stream of training patches."""

import json
import random
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

import augment
from cases import Case
from volume import Intensity

# How often each group is drawn. The head-and-neck set has many patients of one
# coarse kind; the few trunks carry the labels that come closest to the truth.
GROUP_WEIGHT = {"trunk": 0.36, "unlabelled": 0.26, "headneck": 0.20, "limbs": 0.18}


class Patches(IterableDataset):
    def __init__(self, cases: list[Case], cache: Path, patch, seed: int):
        self.intensity = load_intensity(cache)
        self.patch = patch
        self.seed = seed
        self.groups = {}
        for case in cases:
            with np.load(cache / f"{case.name}.npz") as stored:
                pair = torch.from_numpy(stored["image"]), torch.from_numpy(stored["label"])
            self.groups.setdefault(case.group, []).append(pair)

    def __iter__(self):
        names = sorted(self.groups)
        weights = [GROUP_WEIGHT[name] for name in names]
        for index in range(10**9):
            rng = random.Random(self.seed * 10**9 + index)
            group = self.groups[rng.choices(names, weights)[0]]
            yield self.draw(*group[rng.randrange(len(group))], rng)

    def draw(self, image: torch.Tensor, label: torch.Tensor, rng: random.Random):
        # Scanners pad with -1024, -2048 or -3024; after the clip all are this.
        empty = self.intensity.percentile_00_5
        ct, target = augment.sample_patch(image.float(), label, self.patch, rng, empty)
        ct = augment.scanner_effects(ct, target, rng, empty)
        x = torch.clip(ct, self.intensity.percentile_00_5, self.intensity.percentile_99_5)
        x = (x - self.intensity.mean) / self.intensity.std
        padding = torch.isnan(x)
        x = augment.image_quality(torch.nan_to_num(x), rng)
        # nnU-Net's padding is an exact 0 that no scanner has touched.
        x[padding] = 0
        return x[None], target


def load_intensity(cache: Path) -> Intensity:
    return Intensity(**json.loads((cache / "intensity.json").read_text()))
