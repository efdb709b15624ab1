"""One description per student: what it labels, on which grid, from which patients."""

import json
from dataclasses import dataclass, field
from pathlib import Path

# A label map holds ids up to 254 and this where the truth is unknown.
BACKGROUND, IGNORE = 0, 255

SLIM = (8, 16, 32, 64, 80)
WIDE = (16, 32, 64, 128, 160)

# Whole patients that no training step sees, by source of the labels.
# This one is among the patients of a blind test under another name.
EXCLUDED = ("pt_36",)
BONE_HELD_OUT = ("example", "STS_013", "pt_101", "pt_124", "pt_133", "pt_160", "pt_193")
HEADNECK_HELD_OUT = ("pt_101", "pt_124", "pt_133", "pt_160", "pt_193") + tuple(
    f"pt_{n}" for n in (1, 10, 20, 33, 45, 55, 66, 77, 88, 100, 122, 150, 180, 210, 230))


@dataclass(frozen=True)
class Label:
    name: str
    color: str
    snomed: str | None = None


@dataclass(frozen=True)
class Task:
    name: str
    source: str  # bone, organs, total, abdomen, limb or names: how cases.py makes the labels
    labels: tuple[Label, ...]
    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    held_out: tuple[str, ...]
    weights: dict[str, float]  # how often each group of cases is drawn
    # Where nobody can be spared: a network for each of these, trained without them, tells how good the shipped
    # one is, which is trained on all.
    folds: tuple[tuple[str, ...], ...] = ()
    configuration: str = "3d_fullres"
    features: tuple[int, ...] = SLIM
    # HU: mean, standard deviation, lower and upper bound of the normalization.
    intensity: tuple[float, float, float, float] = (0.0, 300.0, -1000.0, 1000.0)
    batch: int = 1
    grade: str = "starter"
    previous_stage: str | None = None
    # Probability of flipping [z,y,x]; a flip along x swaps left and right labels.
    flips: tuple[float, float, float] = (0.0, 0.0, 0.0)
    # Probability of turning and scaling a patch. Little of it suits many patients and few steps.
    spatial: float = 0.6
    # Local deformation, in millimeters.
    elastic: float = 0.0
    # Draw a label before a patient.
    balanced: bool = False
    # How large a part of head-and-neck and limb cases to use: 1 is all of them.
    share: dict[str, float] = field(default_factory=dict)
    # Part of the voxels that enter the loss: with many labels it costs more than the network.
    loss_share: float = 1.0
    # Another task that has the same cases on the same grid, when only the networks differ.
    cases_of: str | None = None

    @property
    def flat(self) -> bool:
        return self.configuration == "2d"

    @property
    def cache(self) -> str:
        return self.cases_of or self.name

    @property
    def input_channels(self) -> int:
        return 1 if self.previous_stage is None else 1 + len(TASKS[self.previous_stage].labels)

    def without(self, fold: int | None) -> tuple[str, ...]:
        """Patients that this fold's network, or the shipped one, does not see."""
        return self.held_out if fold is None else self.held_out + self.folds[fold]

    @property
    def swaps(self) -> list[tuple[int, int]]:
        """Pairs of label ids that trade places when left and right do."""
        ids = {label.name: i for i, label in enumerate(self.labels, 1)}
        pairs = []
        for name, i in ids.items():
            other = name.replace("left", "right")
            if other != name and other in ids:
                pairs.append((i, ids[other]))
        return pairs



def labels_of(table: str, wanted=lambda name: True) -> tuple[Label, ...]:
    """The program's own label table or what is wanted of it; a network counts its labels from 1."""
    folder = Path(__file__).parents[1] / "config" / "labels"
    content = json.loads((folder / f"{table}.json").read_text())
    given = {label.name: label for label in labels_of(content["of"])} if "of" in content else {}
    rows = (given[row] if isinstance(row, str) else Label(row["name"], row["color"], row.get("snomed"))
            for row in content["labels"])
    return tuple(label for label in rows if wanted(label.name))


def limb_folds(count: int = 5) -> tuple[tuple[str, ...], ...]:
    """By patient; neighbors in the list are alike in nothing, so every fifth is as good as a random choice."""
    return tuple(tuple(f"STS_{n:03}" for n in range(1 + fold, 52, count)) for fold in range(count))


LIMB_BONES = ("femur_", "hip_", "patella_", "tibia_", "fibula_", "humerus_", "scapula_")
# Cartilage is no bone, and a patella or a forearm has no name in TotalSegmentator's maps.
NAMED_BONES = ("vertebrae_", "rib_", "sternum", "scapula_", "clavicula_", "humerus_", "hip_", "sacrum", "femur_", "skull")

# The head-and-neck set has many patients of one coarse kind; the few trunks carry the
# labels that come closest to the truth.
BONE_WEIGHTS = {"trunk": 0.36, "unlabelled": 0.26, "headneck": 0.20, "limbs": 0.18}
FINE_WEIGHTS = {"trunk": 0.42, "unlabelled": 0.34, "headneck": 0.12, "limbs": 0.12}
FEW = {"headneck": 0.05, "limbs": 0.1}
BONE_FLIPS = (0.1, 0.1, 0.5)
# mean, standard deviation, percentiles 0.5 and 99.5 of bone in the training patients at 3 mm
BONE_INTENSITY = (533.322509765625, 379.0211486816406, -43.0, 1577.0)


def bone(name: str, spacing: float, patch, **changes) -> Task:
    settings = {"weights": BONE_WEIGHTS, "flips": BONE_FLIPS, "intensity": BONE_INTENSITY, **changes}
    return Task(name, "bone", labels_of("bone"), (spacing,) * 3, patch, BONE_HELD_OUT, **settings)


def headneck(name: str, **changes) -> Task:
    settings = {
        # The gray of soft tissue must stay apart; mandible and air only need to be extreme.
        "intensity": (60.0, 250.0, -700.0, 1200.0),
        "flips": (0.0, 0.0, 0.5), "spatial": 0.35, "balanced": True, **changes,
    }
    weights = {"headneck": 0.94, "trunk": 0.04, "unlabelled": 0.02}
    labels = labels_of("headneck_9")
    return Task(name, "organs", labels, (2.5, 3.9, 3.9), (48, 80, 80), HEADNECK_HELD_OUT, weights, **settings)


TASKS = {
    task.name: task
    for task in (
        bone("bone_low", 3.0, (80, 80, 80)),
        bone("bone_medium", 2.0, (80, 80, 80), weights=FINE_WEIGHTS, share=FEW),
        # Scans with voxels of 3 to 5 mm teach this grid no detail: some limbs, so that it knows them.
        bone("bone_high", 1.5, (80, 80, 80), weights={"trunk": 0.45, "unlabelled": 0.35, "limbs": 0.2},
             share={"limbs": 0.12}, grade="demo"),
        bone("bone_2d", 3.0, share=FEW, patch=(1, 128, 128), configuration="2d", batch=8, features=(16, 32, 64, 96, 128)),
        bone("bone_lowres", 5.0, (64, 64, 64), share=FEW, configuration="3d_lowres", grade="demo"),
        bone("bone_cascade", 3.0, (64, 64, 64), share=FEW, configuration="3d_cascade_fullres", previous_stage="bone_lowres", grade="demo"),
        headneck("headneck", grade="demo"),
        headneck("headneck_high", features=WIDE, cases_of="headneck", grade="demo"),
        Task("total", "total", labels_of("total"), (3.0, 3.0, 3.0), (64, 80, 80), (), {"trunk": 1.0},
             intensity=(40.0, 300.0, -1000.0, 1000.0), grade="demo", loss_share=0.25),
        Task("abdomen", "abdomen", labels_of("abdomen_standard"), (3.0, 3.0, 3.0), (64, 80, 80), (),
             {"trunk": 0.45, "unlabelled": 0.37, "shapes": 0.18}, folds=(("lidc0001",), ("example",)),
             intensity=(50.0, 150.0, -250.0, 450.0), spatial=0.8, elastic=6.0),
        Task("limb", "limb", labels_of("limb", lambda name: name.startswith(LIMB_BONES)), (3.0, 3.0, 3.0),
             (80, 64, 64), (), {"limbs": 0.85, "trunk": 0.15}, folds=limb_folds(), balanced=True,
             intensity=(300.0, 400.0, -200.0, 1500.0), flips=(0.0, 0.0, 0.5), spatial=0.6, elastic=3.0),
        # Its image only tells air from body: names come from the bones' shape and place.
        Task("bone_names", "names", labels_of("total", lambda name: name.startswith(NAMED_BONES)), (4.0, 4.0, 4.0),
             (96, 64, 96), (), {"trunk": 0.5, "shapes": 0.5},
             folds=(("lidc0001",), ("example",), ("s0327",), ("s0328",)),
             configuration="3d_cascade_fullres", previous_stage="bone_medium", intensity=(-250.0, 50.0, -300.0, -200.0),
             flips=(0.0, 0.0, 0.5), spatial=1.0, elastic=12.0, loss_share=0.25, grade="demo"),
    )
}
