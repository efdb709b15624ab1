#!/usr/bin/env python3
"""A slim student of any model that the program runs: a folder of unlabelled CTs in, ONNX, JSON and a model card out.

The teacher answers once per CT through the program itself; a network of a million parameters learns its probabilities;
both then segment CTs that neither learned from, and the card says how far they agree and what they cost. Interrupted,
the same command goes on where it stopped.
"""

import argparse
import hashlib
import json
import math
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

import export
import volume
from augment import image_quality
from losses import distance
from muon import AdamW, Muon
from network import Student

# Classes that are kept of each voxel; the rest of a teacher's probability is next to nothing.
KEPT = 4
# Steps between two checkpoints.
SAVE_EVERY = 200


@dataclass(frozen=True)
class Plan:
    """What must stay the same when a stopped command goes on."""

    teacher: list[str]
    spacing: list[float]
    patch: list[int]
    features: list[int]
    batch: int
    seed: int


# 1. The teacher


def run(program: str, arguments: list[str]) -> dict:
    """A run of the program; its summary."""
    done = subprocess.run([program, *arguments, "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{program} {' '.join(arguments)}\n{done.stderr.strip()}")
    return json.loads(done.stdout)


def probabilities(path: Path):
    """The classes of an archive one after the other, [z, y, x]: all at once they may not fit."""
    with zipfile.ZipFile(path) as archive, archive.open("probabilities.npy") as file:
        version = np.lib.format.read_magic(file)
        assert version == (1, 0), version
        (classes, *shape), fortran, kind = np.lib.format.read_array_header_1_0(file)
        assert not fortran and kind == np.float32, (fortran, kind)
        count = math.prod(shape)
        for _ in range(classes):
            yield np.frombuffer(file.read(4 * count), np.float32).reshape(shape)


def most_likely(classes, resample) -> tuple[np.ndarray, np.ndarray]:
    """Of each voxel the KEPT most likely classes and their probabilities, [k, z, y, x], the likeliest first."""
    ids = values = None
    for number, plane in enumerate(classes):
        plane = np.clip(resample(plane), 0, 1)
        if ids is None:
            ids = np.zeros((KEPT, *plane.shape), np.uint16)
            values = np.zeros((KEPT, *plane.shape), np.float32)
        # Moves down whatever is less likely.
        own = np.full(plane.shape, number, np.uint16)
        for k in range(KEPT):
            higher = plane > values[k]
            values[k], plane = np.where(higher, plane, values[k]), np.where(higher, values[k], plane)
            ids[k], own = np.where(higher, own, ids[k]), np.where(higher, ids[k], own)
    return ids, values / np.maximum(values.sum(0), 1e-6)


def teach(image: Path, to: Path, plan: Plan, program: str) -> None:
    """Runs the teacher on one CT and keeps image and answer on the student's grid."""
    labels, archive = beside(to, ".nii.gz"), beside(to, ".npz")
    has_probabilities = "--mode" not in plan.teacher
    extra = ["--save-probabilities"] if has_probabilities else []
    summary = run(program, ["-i", str(image), "-o", str(labels), "--overwrite", *plan.teacher, *extra])
    ct, spacing = volume.read_lps(image)
    answer, _ = volume.read_lps(labels)
    _, _, box = crop_to_nonzero(ct[None])
    box = tuple(slice(low, high) for low, high in box)
    ids = [0] + [label["id"] for label in summary["labels"]]
    on_grid = lambda plane: resampled(plane[box].astype(np.float32), spacing, plan, order=1)
    if has_probabilities:
        classes = probabilities(archive)
        # The archive has the axes of the file, of which some are turned here.
        turn = turned(image)
        planes = (turn(plane) for plane in classes)
    else:
        planes = ((answer == label).astype(np.float32) for label in ids)
    kept, values = most_likely(planes, on_grid)
    # Values of the image where the teacher found something: what the student's window is made of.
    found = ct[answer > 0]
    sample = np.random.default_rng(plan.seed).choice(found, min(len(found), 20000), replace=False) if len(found) else found
    np.savez(beside(to, ".part.npz"), ct=ct[box], spacing=spacing, ids=kept, sample=sample.astype(np.float32),
             values=np.round(values * 65535).astype(np.uint16))
    beside(to, ".part.npz").rename(beside(to, ".case.npz"))
    archive.unlink(missing_ok=True)
    # The last to be written: where it is, the case is complete.
    beside(to, ".json").write_text(json.dumps(summary, indent=1))


def resampled(array: np.ndarray, spacing, plan: Plan, order: int) -> np.ndarray:
    """An array [z, y, x] on the student's grid, by nnU-Net's own function."""
    shape = compute_new_shape(array.shape, spacing, plan.spacing)
    return resample_data_or_seg_to_shape(array[None], shape, spacing, plan.spacing, is_seg=False, order=order, order_z=0)[0]


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def turned(image: Path):
    """Brings an array of the file's axes to left, posterior, superior."""
    source = sitk.ReadImage(str(image))

    def turn(plane: np.ndarray) -> np.ndarray:
        copy = sitk.GetImageFromArray(plane)
        copy.CopyInformation(source)
        return sitk.GetArrayFromImage(sitk.DICOMOrient(copy, "LPS"))

    return turn


# 2. The student


class Cases:
    """Patches of the training cases, half of them about a voxel that the teacher labels."""

    def __init__(self, paths: list[Path], plan: Plan, classes: int, device: torch.device):
        self.plan, self.classes, self.device = plan, classes, device
        self.random = np.random.default_rng(plan.seed)
        self.all = [dict(np.load(path)) for path in paths]
        for case in self.all:
            case["labelled"] = np.flatnonzero(case["ids"][0])
        samples = np.concatenate([case["sample"] for case in self.all])
        if not len(samples):
            raise SystemExit("the teacher found nothing in any of the training CTs")
        low, high = np.percentile(samples, [0.5, 99.5])
        self.intensity = volume.Intensity(float(samples.mean()), float(max(samples.std(), 1e-3)), float(low), float(high))
        for case in self.all:
            x = self.intensity.normalize(case["ct"].astype(np.float32))
            case["x"] = resampled(x, case["spacing"], plan, order=3).astype(np.float16)
            del case["ct"]

    def corner(self, case: dict) -> list[int]:
        shape, patch = case["x"].shape, self.plan.patch
        if len(case["labelled"]) and self.random.random() < 0.5:
            at = np.unravel_index(self.random.choice(case["labelled"]), shape)
            low = [int(v) - p // 2 + int(self.random.integers(-p // 4, p // 4 + 1)) for v, p in zip(at, patch)]
        else:
            low = [int(self.random.integers(min(0, n - p), max(0, n - p) + 1)) for n, p in zip(shape, patch)]
        return [min(max(v, min(0, n - p)), max(0, n - p)) for v, n, p in zip(low, shape, patch)]

    def cut(self, array: np.ndarray, corner: list[int], fill) -> np.ndarray:
        """A patch; what lies outside the image is `fill`."""
        patch = self.plan.patch
        out = np.full((*array.shape[:-3], *patch), fill, array.dtype)
        source = tuple(slice(max(c, 0), min(c + p, n)) for c, p, n in zip(corner, patch, array.shape[-3:]))
        target = tuple(slice(s.start - c, s.stop - c) for s, c in zip(source, corner))
        out[(..., *target)] = array[(..., *source)]
        return out

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalized patches [b, 1, z, y, x] and the teacher's probabilities [b, c, z, y, x]."""
        images, taught = [], []
        for _ in range(self.plan.batch):
            case = self.all[self.random.integers(len(self.all))]
            corner = self.corner(case)
            x = self.cut(case["x"], corner, np.nan).astype(np.float32)
            nothing = np.isnan(x)
            images.append(np.where(nothing, 0, x))
            ids = torch.from_numpy(self.cut(case["ids"], corner, 0).astype(np.int64))
            values = self.cut(case["values"], corner, 0).astype(np.float32) / 65535
            values[0][nothing] = 1  # background
            dense = torch.zeros(self.classes, *self.plan.patch)
            taught.append(dense.scatter_add_(0, ids, torch.from_numpy(values)))
        x = torch.from_numpy(np.stack(images)).to(self.device)
        return image_quality(x)[:, None], torch.stack(taught).to(self.device)


def loss_of(outputs: list[torch.Tensor], taught: torch.Tensor) -> torch.Tensor:
    """Weights halve per level; the coarsest takes no part."""
    weights = [0.5**level for level in range(max(1, len(outputs) - 1))]
    total = taught.new_zeros(())
    for weight, logits in zip(weights, outputs):
        q = F.adaptive_avg_pool3d(taught, logits.shape[2:])
        total = total + weight / sum(weights) * distance(logits, (q + 1e-6).log())
    return total


def train(cases: Cases, plan: Plan, checkpoint: Path, steps: int, minutes: float, device: torch.device) -> dict:
    torch.manual_seed(plan.seed)
    net = Student(1, plan.features, cases.classes, flat=False, deep_supervision=True).to(device)
    rate = torch.zeros((), device=device)
    # The head of the coarsest level takes no part, where there is another.
    idle = "decoder.seg_layers.0." if len(plan.features) > 2 else None
    learned = [p for n, p in net.named_parameters() if idle is None or not n.startswith(idle)]
    kernels, others = ([p for p in learned if (p.dim() > 2) == large] for large in (True, False))
    optimizers = [Muon(kernels, rate, 3.0), AdamW(others, rate)]
    state = {"step": 0, "minutes": 0.0}
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True, map_location=device)
        net.load_state_dict(stored["weights"])
        for optimizer, kept in zip(optimizers, stored["optimizers"]):
            restore(optimizer, kept)
        state = {"step": stored["step"], "minutes": stored["minutes"]}
        print(f"goes on at step {state['step']}")
    # A resumed run draws other patches than those it has seen.
    cases.random = np.random.default_rng([plan.seed, state["step"]])
    torch.manual_seed(plan.seed + state["step"])
    start, before, last = time.time(), state["minutes"], 0.0
    while state["step"] < steps and state["minutes"] < minutes:
        progress = max(state["step"] / steps, state["minutes"] / minutes if math.isfinite(minutes) else 0)
        warm = min(1.0, (state["step"] + 1) / 50)
        rate.fill_(1e-3 * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))
        x, taught = cases.batch()
        net.zero_grad(set_to_none=True)
        loss = loss_of(net(x), taught)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        state["step"] += 1
        state["minutes"] = before + (time.time() - start) / 60
        if state["step"] % SAVE_EVERY == 0:
            last = float(loss)
            print(f"step {state['step']}, {state['minutes']:.1f} min, loss {last:.4f}", flush=True)
            save(checkpoint, net, optimizers, state)
    save(checkpoint, net, optimizers, state)
    return state | {"weights": {name: w.cpu() for name, w in net.state_dict().items()}}


def tensors_of(optimizer) -> list[torch.Tensor]:
    return optimizer.velocity if isinstance(optimizer, Muon) else [optimizer.mean, optimizer.square, optimizer.powers]


def restore(optimizer, kept: list[torch.Tensor]) -> None:
    for own, stored in zip(tensors_of(optimizer), kept):
        own.copy_(stored)


def save(path: Path, net: Student, optimizers, state: dict) -> None:
    part = path.with_suffix(".part")
    torch.save({"weights": net.state_dict(), "optimizers": [tensors_of(o) for o in optimizers], **state}, part)
    part.rename(path)


# 3. What comes out


def write_model(trained: dict, cases: Cases, plan: Plan, summary: dict, name: str, output: Path) -> int:
    net = Student(1, plan.features, cases.classes, flat=False, deep_supervision=False)
    kept = {n: w.bfloat16().float() if w.dim() > 2 else w for n, w in trained["weights"].items()}
    missing, unknown = net.load_state_dict(kept, strict=False)
    assert not missing and all("seg_layers" in n for n in unknown), (missing, unknown)
    net.eval()
    onnx = output / f"{name}.onnx"
    export.write_onnx(net, 1, tuple(plan.patch), onnx)
    difference = export.largest_difference(net, 1, tuple(plan.patch), onnx)
    if difference >= export.TOLERANCE:
        raise SystemExit(f"ONNX differs from PyTorch by {difference:.2e} of the largest logit")
    licenses = sorted({m["license"] for m in summary["models"] if m.get("license")})
    teachers = ", ".join(m["name"] for m in summary["models"])
    labels = [{"id": k, "name": label["name"]} for k, label in enumerate(summary["labels"], 1)]
    config = {
        "model_path": onnx.name,
        "patch_size": plan.patch,
        "target_spacing": plan.spacing,
        "intensity_properties": asdict(cases.intensity),
        "orientation": "LPS",
        "labels": labels,
        "grade": "external",
        "source": f"training/distill.py; teacher: {teachers}",
    }
    if licenses:
        config["license"] = " and ".join(licenses)
    (output / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n")
    return sum(p.numel() for p in net.parameters())


def agreement(teacher: dict, student: dict) -> dict[str, float]:
    """Dice of each structure, where either has a voxel."""
    a, b = (sitk.GetArrayFromImage(sitk.ReadImage(s["output"])) for s in (teacher, student))
    dice = {}
    for number, label in enumerate(teacher["labels"], 1):
        theirs, own = a == label["id"], b == number
        size = int(theirs.sum()) + int(own.sum())
        if size:
            dice[label["name"]] = 2 * int((theirs & own).sum()) / size
    return dice


def card(name: str, plan: Plan, trained: dict, parameters: int, pairs: list[tuple[dict, dict]], cases: int) -> str:
    scores: dict[str, list[float]] = {}
    for teacher, student in pairs:
        for structure, dice in agreement(teacher, student).items():
            scores.setdefault(structure, []).append(dice)
    mean = lambda key: [sum(s[key] for s in side) / len(pairs) for side in zip(*pairs)]
    seconds, peak = mean("total_seconds"), mean("peak_bytes")
    rows = "".join(f"| {s} | {np.mean(d):.3f} | {min(d):.3f} | {len(d)} |\n" for s, d in sorted(scores.items()))
    return f"""# {name}

Learned from {' '.join(plan.teacher)} by `training/distill.py`, without labels of its own: it can be no better than
its teacher, and its license is what the teacher's allows. {parameters} parameters, grid {plan.spacing} mm (z, y, x), patch
{plan.patch}, {cases} CTs, {trained['step']} steps in {trained['minutes']:.1f} minutes.

Teacher and student on what was held out ({len(pairs)} of {cases + len(pairs)} CTs), one run each:

| | teacher | student |
|---|---:|---:|
| seconds | {seconds[0]:.2f} | {seconds[1]:.2f} |
| memory at peak, MiB | {peak[0] / 2**20:.0f} | {peak[1] / 2**20:.0f} |

Dice between the two, where either found the structure (mean, least, CTs):

| structure | mean | least | CTs |
|---|---:|---:|---:|
{rows}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", nargs="+", required=True, metavar="WORD",
                        help="what the program is told: `model NAME` (probabilities), `mode NAME` (labels), and a further word for --models-dir")
    parser.add_argument("--images", type=Path, required=True, help="folder of CTs, .nii.gz")
    parser.add_argument("--output", type=Path, required=True, help="folder for the student, and for what a stopped run goes on from")
    parser.add_argument("--name", default="student")
    parser.add_argument("--spacing", type=float, nargs=3, default=[3.0, 3.0, 3.0], help="the student's grid, mm along z, y, x")
    parser.add_argument("--patch", type=int, nargs=3, default=[80, 80, 80])
    parser.add_argument("--features", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--held-out", type=float, default=0.2, help="part of the CTs that only the card is about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", default=shutil.which("fastnnunet") or "fastnnunet")
    args = parser.parse_args()

    kind, name, *folder = args.teacher
    if kind not in ("model", "mode") or len(folder) > 1:
        parser.error("--teacher: model NAME or mode NAME, and perhaps a folder of models")
    teacher = [f"--{kind}", name] + (["--models-dir", *folder] if folder else [])
    factor = 2 ** (len(args.features) - 1)
    if any(p % factor for p in args.patch):
        parser.error(f"--patch {args.patch}: multiples of {factor}, as the network halves it {len(args.features) - 1} times")
    plan = Plan(teacher, args.spacing, args.patch, args.features, args.batch, args.seed)
    cache = args.output / "work"
    cache.mkdir(parents=True, exist_ok=True)
    kept, written = cache / "plan.json", json.dumps(asdict(plan), indent=1)
    if kept.exists() and kept.read_text() != written:
        raise SystemExit(f"{kept} is of another command: give another --output, or remove it")
    kept.write_text(written)

    images = sorted(path for path in args.images.iterdir() if path.name.endswith((".nii.gz", ".nii")))
    if len(images) < 2:
        raise SystemExit(f"{args.images}: {len(images)} CTs, expected at least 2")
    # Which are held out depends on the names alone.
    by_chance = sorted(images, key=lambda path: hashlib.sha256(path.name.encode()).digest())
    held_out = by_chance[: min(len(images) - 1, max(1, round(args.held_out * len(images))))]
    learned = [path for path in images if path not in held_out]

    place = lambda image: cache / image.name.removesuffix(".gz").removesuffix(".nii")
    summaries = {}
    for number, image in enumerate(images, 1):
        done = beside(place(image), ".json")
        if not done.exists():
            print(f"teacher on {number} of {len(images)}", flush=True)
            teach(image, place(image), plan, args.program)
        summaries[image] = json.loads(done.read_text())
    first = summaries[learned[0]]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = Cases([beside(place(image), ".case.npz") for image in learned], plan, len(first["labels"]) + 1, device)
    trained = train(cases, plan, cache / "student.pt", args.steps, args.minutes, device)
    parameters = write_model(trained, cases, plan, first, args.name, args.output)
    pairs = []
    for image in held_out:
        student = ["--model", args.name, "--models-dir", str(args.output)]
        both = [("teacher", plan.teacher), ("student", student)]
        words = lambda who, own: ["-i", str(image), "-o", str(beside(place(image), f"_{who}.nii.gz")), "--overwrite", *own]
        pairs.append(tuple(run(args.program, words(who, own)) for who, own in both))
    text = card(args.name, plan, trained, parameters, pairs, len(learned))
    (args.output / f"{args.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
