"""The data folder as a list of cases: where each CT lies and how its labels are made."""

import csv
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

import bone_labels
import synthesis
from tasks import EXCLUDED, IGNORE, Task
from volume import read_lps

# headneck label values (see the data folder's README)
LARYNX, MANDIBLE = 6, 7
OPENKBP_NAMES = {"Brainstem": 1, "SpinalCord": 2, "RightParotid": 3, "LeftParotid": 4, "Esophagus": 5, "Larynx": 6, "Mandible": 7}
# The cord and the esophagus go on below the neck, the others do not.
ONLY_IN_HEAD = (1, 3, 4, 6, 7)



# An expert's contours (headneck_contours/labels.tsv) in the numbers of mode headneck. Of the cord this expert and the
# clinicians draw different things.
EXPERT_NAMES = {"Brainstem": 1, "Parotid-Rt": 3, "Parotid-Lt": 4, "Mandible": 7, "Submandibular-Rt": 8, "Submandibular-Lt": 9}
# How often a label map without a CT is given an appearance.
APPEARANCES = 3


@dataclass(frozen=True)
class Case:
    name: str
    group: str  # trunk, headneck, limbs, shapes or unlabelled: the folder
    ct: Path | None  # none for shapes
    seg: Path | None

    @property
    def patient(self) -> str:
        return self.name.removesuffix("_expert").split("+")[0]

    def reference(self, task: Task) -> str:
        if self.group in ("trunk", "shapes"):
            return "TotalSegmentator"
        if task.source == "limb":
            return "semi-automatic"
        if self.group == "unlabelled":
            return "HU-derived" if task.source == "bone" else "teacher"
        return "HU-derived" if task.source == "bone" else "contours"

    def annotated(self, task: Task) -> list[int]:
        """The label ids whose absence from the map means absence from the patient."""
        everything = list(range(1, len(task.labels) + 1))
        if task.source == "abdomen" and self.group == "unlabelled":
            return taught(self.seg.parent, self.name, task)
        if task.source != "organs":
            return everything
        if self.group != "headneck":
            return list(ONLY_IN_HEAD)
        if self.name != self.patient:
            return sorted(EXPERT_NAMES.values())
        with (self.ct.parent / "index.tsv").open() as rows:
            listed = {row["patient"]: row["labels"] for row in csv.DictReader(rows, delimiter="\t")}
        return sorted(OPENKBP_NAMES[name] for name in listed[self.name].split(","))

    def load(self, task: Task) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
        """CT in HU, label map and spacing, all [z,y,x] in LPS."""
        seg, spacing = read_lps(self.seg) if self.seg else (None, None)
        if self.ct is None:
            names = class_names(self.seg)
            if task.source == "names":
                ct = synthesis.outline(seg, names, spacing)
            else:
                ct = synthesis.appearance(seg, names, spacing, np.random.default_rng(zlib.crc32(self.name.encode())))
        else:
            ct, spacing = read_lps(self.ct)
            ct = ct.astype(np.float32)
        seg = np.zeros(ct.shape, np.uint8) if seg is None else seg
        if task.source == "bone" and spacing[1] < 1 and spacing[2] < 1:
            ct, seg, spacing = halve(ct, seg, spacing)
        label = {"bone": self.bone, "organs": self.organs, "abdomen": self.abdomen}.get(task.source, self.named)
        return ct, label(ct, seg, spacing, task), spacing

    def organs(self, ct, seg, spacing, task: Task) -> np.ndarray:
        if self.group != "headneck":
            # Other groups teach where no organ of the head is.
            return np.zeros(ct.shape, np.uint8)
        if self.name == self.patient:
            return seg
        table = np.zeros(256, np.uint8)
        for old, name in class_names(self.seg).items():
            table[old] = EXPERT_NAMES.get(name, 0)
        label = table[seg]
        # The map ends with the body's mask, the structures may not.
        label[~ndimage.binary_erosion(ct > -900, iterations=2, border_value=1) & (label == 0)] = IGNORE
        return label

    def abdomen(self, ct, seg, spacing, task: Task) -> np.ndarray:
        return seg if self.group == "unlabelled" else self.named(ct, seg, spacing, task)

    def named(self, ct, seg, spacing, task: Task) -> np.ndarray:
        """By name, since the numbers of a map are its own."""
        ids = {label.name: i for i, label in enumerate(task.labels, 1)}
        table = np.zeros(256, np.uint8)
        if self.group == "limbs":
            # Bones that too few of these patients show are not learned, nor learned to be none.
            table[1:] = IGNORE
        for old, name in class_names(self.seg).items():
            if old != IGNORE:
                table[old] = ids.get(name, table[old] if old else 0)
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
    """Of the table beside the map, or of the one for all maps of its folder."""
    own = seg.with_name(seg.name.replace(".nii.gz", ".tsv"))
    table = own if own.exists() else next(p for p in (seg.with_name("seg_labels.tsv"), seg.with_name("labels.tsv")) if p.exists())
    with table.open() as rows:
        return {int(row["id"]): row["name"] for row in csv.DictReader(rows, delimiter="\t")}


def taught(folder: Path, name: str, task: Task) -> list[int]:
    """What `teacher.py` is sure about in this scan."""
    agreement = json.loads((folder / "annotated.json").read_text()).get(name, {})
    return [i for i, label in enumerate(task.labels, 1) if agreement.get(label.name)]


def list_cases(data: Path, task: Task, teacher: Path | None = None) -> list[Case]:
    """All cases that a task can use; of large groups an even part if the task says so.

    `teacher` is the folder that `teacher.py` wrote.
    """
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
        name = ct.name.removesuffix(".nii.gz").removesuffix("_ct")
        seg = teacher / f"{name}_seg.nii.gz" if teacher and task.source == "abdomen" else None
        found.append(Case(name, "unlabelled", ct, seg))
    for seg in sorted((data / "shapes").glob("*_seg.nii.gz")):
        name = seg.name.removesuffix("_seg.nii.gz")
        names = [name] if task.source == "names" else [f"{name}+{k}" for k in range(APPEARANCES)]
        found += [Case(name, "shapes", None, seg) for name in names]
    if task.source == "organs":
        for seg in sorted((data / "headneck_contours").glob("*_deepmind_seg.nii.gz")):
            name = seg.name.removesuffix("_deepmind_seg.nii.gz")
            found.append(Case(f"{name}_expert", "headneck", data / "headneck" / f"{name}_ct.nii.gz", seg))
    # Patients of groups that nothing is learned from may still be held out.
    wanted = [case for case in found if case.group in task.weights or case.name in task.held_out]
    return [case for case in wanted if usable(case, task)]


def usable(case: Case, task: Task) -> bool:
    if case.patient in EXCLUDED:
        return False
    if case.group != "unlabelled":
        return True
    if task.source == "abdomen":
        return case.seg is not None and len(case.annotated(task)) > 0
    if task.source == "bone":
        # The bone models were trained before the other scans were there.
        return case.name in ("acrinflt001_abdomenpelvis", "acrinflt001_headneckarms", "head")
    # For the organs of the head only a scan without a head teaches anything unlabeled.
    return task.source == "organs" and case.name == "acrinflt001_abdomenpelvis"
