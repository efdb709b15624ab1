"""The data folder as a list of cases: where each CT lies and how its labels are made."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bone_labels
from volume import read_lps

# Whole patients that no training step sees.
HELD_OUT_HEADNECK = ("pt_101", "pt_124", "pt_133", "pt_160", "pt_193")
HELD_OUT_LIMBS = ("STS_013",)
HELD_OUT_TRUNK = ("example",)

# headneck label values (see the data folder's README)
LARYNX, MANDIBLE = 6, 7


@dataclass(frozen=True)
class Case:
    name: str
    group: str  # trunk, headneck, limbs or unlabelled: the folder
    ct: Path
    seg: Path | None

    @property
    def held_out(self) -> bool:
        return self.name in HELD_OUT_HEADNECK + HELD_OUT_LIMBS + HELD_OUT_TRUNK

    @property
    def reference(self) -> str:
        return "TotalSegmentator" if self.group == "trunk" else "HU-derived"

    def load(self) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
        """CT in HU, bone label and spacing, all [z,y,x] in LPS."""
        ct, spacing = read_lps(self.ct)
        ct = ct.astype(np.float32)
        seg = read_lps(self.seg)[0] if self.seg else np.zeros(ct.shape, np.uint8)
        if self.group == "trunk":
            return ct, bone_labels.from_class_map(seg, class_names(self.seg), ct, spacing), spacing

        soft = (seg > 0) & (seg < LARYNX)
        # The cord's contour leaves out the fluid around it, which is as soft.
        soft |= bone_labels.grow(seg == 2, 3, spacing) & (ct < bone_labels.MARROW)
        cartilage = bone_labels.grow(seg == LARYNX, 8, spacing)
        label = bone_labels.from_hounsfield(ct, spacing, self.group == "limbs", soft, cartilage)
        # A contour drawn by a clinician settles the mandible's marrow.
        label[(seg == MANDIBLE) & (label == bone_labels.IGNORE) & (ct > 0)] = bone_labels.BONE
        if self.group == "headneck":
            label[sparse_slices(ct, spacing)] = bone_labels.IGNORE
        return ct, label, spacing


def sparse_slices(ct: np.ndarray, spacing) -> np.ndarray:
    """Slices where the set's dose mask left only an islet of the body."""
    area = (ct > -900).sum(axis=(1, 2)) * spacing[1] * spacing[2]
    return area < 5000


def class_names(seg: Path) -> dict[int, str]:
    table = seg.with_name(seg.name.replace(".nii.gz", ".tsv"))
    with table.open() as rows:
        return {int(row["id"]): row["name"] for row in csv.DictReader(rows, delimiter="\t")}


def list_cases(data: Path) -> list[Case]:
    found = []
    for group in ("trunk", "headneck", "limbs"):
        for ct in sorted((data / group).glob("*_ct.nii.gz")):
            seg = ct.with_name(ct.name.replace("_ct.", "_seg."))
            name = ct.name.removesuffix("_ct.nii.gz")
            found.append(Case(name, group, ct, seg if seg.exists() else None))
    for ct in sorted((data / "unlabelled").glob("*.nii.gz")):
        found.append(Case(ct.name.removesuffix(".nii.gz"), "unlabelled", ct, None))
    return found
