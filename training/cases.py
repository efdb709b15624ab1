"""The data folder as a list of cases: where each CT lies and how its labels are made."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bone_labels
from tasks import IGNORE, Task
from volume import read_lps

# headneck label values (see the data folder's README)
LARYNX, MANDIBLE = 6, 7
OPENKBP_NAMES = {"Brainstem": 1, "SpinalCord": 2, "RightParotid": 3, "LeftParotid": 4, "Esophagus": 5, "Larynx": 6, "Mandible": 7}
# The cord and the esophagus go on below the neck, the others do not.
ONLY_IN_HEAD = (1, 3, 4, 6, 7)



@dataclass(frozen=True)
class Case:
    name: str
    group: str  # trunk, headneck, limbs or unlabelled: the folder
    ct: Path
    seg: Path | None

    def reference(self, task: Task) -> str:
        if self.group == "trunk":
            return "TotalSegmentator"
        return "HU-derived" if task.source == "bone" else "contours"

    def annotated(self, task: Task) -> list[int]:
        """The label ids whose absence from the map means absence from the patient."""
        everything = list(range(1, len(task.labels) + 1))
        if task.source != "organs":
            return everything
        if self.group != "headneck":
            return list(ONLY_IN_HEAD)
        with (self.ct.parent / "index.tsv").open() as rows:
            listed = {row["patient"]: row["labels"] for row in csv.DictReader(rows, delimiter="\t")}
        return sorted(OPENKBP_NAMES[name] for name in listed[self.name].split(","))

    def load(self, task: Task) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
        """CT in HU, label map and spacing, all [z,y,x] in LPS."""
        ct, spacing = read_lps(self.ct)
        ct = ct.astype(np.float32)
        seg = read_lps(self.seg)[0] if self.seg else np.zeros(ct.shape, np.uint8)
        if task.source == "bone" and spacing[1] < 1 and spacing[2] < 1:
            ct, seg, spacing = halve(ct, seg, spacing)
        label = {"bone": self.bone, "organs": self.organs, "total": self.total}[task.source]
        return ct, label(ct, seg, spacing, task), spacing

    def organs(self, ct, seg, spacing, task: Task) -> np.ndarray:
        # Other groups teach where no organ of the head is.
        return seg if self.group == "headneck" else np.zeros(ct.shape, np.uint8)

    def total(self, ct, seg, spacing, task: Task) -> np.ndarray:
        """By name, since the numbers of a map are its own."""
        ids = {label.name: i for i, label in enumerate(task.labels, 1)}
        table = np.zeros(256, np.uint8)
        for old, name in class_names(self.seg).items():
            table[old] = ids[name]
        return table[seg]

    def bone(self, ct, seg, spacing, task: Task) -> np.ndarray:
        if self.group == "trunk":
            return bone_labels.from_class_map(seg, class_names(self.seg), ct, spacing)
        soft = (seg > 0) & (seg < LARYNX)
        # The cord's contour leaves out the fluid around it, which is as soft.
        soft |= bone_labels.grow(seg == 2, 3, spacing) & (ct < bone_labels.MARROW)
        cartilage = bone_labels.grow(seg == LARYNX, 8, spacing)
        label = bone_labels.from_hounsfield(ct, spacing, self.group == "limbs", soft, cartilage)
        # A contour drawn by a clinician settles the mandible's marrow.
        label[(seg == MANDIBLE) & (label == IGNORE) & (ct > 0)] = bone_labels.BONE
        if self.group == "headneck":
            label[sparse_slices(ct, spacing)] = IGNORE
        return label


def halve(ct: np.ndarray, seg: np.ndarray, spacing):
    """Pixels of twice the size: finer ones than any bone model's only make the rules slow."""
    z, y, x = ct.shape
    blocks = ct[:, : y // 2 * 2, : x // 2 * 2].reshape(z, y // 2, 2, x // 2, 2)
    return blocks.mean((2, 4)), seg[:, : y // 2 * 2 : 2, : x // 2 * 2 : 2], (spacing[0], 2 * spacing[1], 2 * spacing[2])


def sparse_slices(ct: np.ndarray, spacing) -> np.ndarray:
    """Slices where the set's dose mask left only an islet of the body."""
    area = (ct > -900).sum(axis=(1, 2)) * spacing[1] * spacing[2]
    return area < 5000


def class_names(seg: Path) -> dict[int, str]:
    table = seg.with_name(seg.name.replace(".nii.gz", ".tsv"))
    with table.open() as rows:
        return {int(row["id"]): row["name"] for row in csv.DictReader(rows, delimiter="\t")}


def list_cases(data: Path, task: Task) -> list[Case]:
    """All cases that a task can use; of large groups an even part if the task says so."""
    found = []
    for group in ("trunk", "headneck", "limbs"):
        cases = []
        for ct in sorted((data / group).glob("*_ct.nii.gz")):
            seg = ct.with_name(ct.name.replace("_ct.", "_seg."))
            name = ct.name.removesuffix("_ct.nii.gz")
            cases.append(Case(name, group, ct, seg if seg.exists() else None))
        every = round(1 / task.share.get(group, 1.0))
        found += [case for i, case in enumerate(cases) if i % every == 0 or case.name in task.held_out]
    for ct in sorted((data / "unlabelled").glob("*.nii.gz")):
        found.append(Case(ct.name.removesuffix(".nii.gz"), "unlabelled", ct, None))
    # Patients of groups that nothing is learned from may still be held out.
    wanted = [case for case in found if case.group in task.weights or case.name in task.held_out]
    return [case for case in wanted if usable(case, task)]


def usable(case: Case, task: Task) -> bool:
    # For the organs of the head only a scan without a head teaches anything unlabeled.
    return task.source != "organs" or case.group != "unlabelled" or "abdomen" in case.name
