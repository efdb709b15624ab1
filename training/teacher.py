#!/usr/bin/env python3
"""Labels of abdominal organs for scans that have none, by the four-fold OBELISK network (MIT; see models/README.md).

The network was trained on boxes around the abdomen at a fixed spacing. The box is found as the one
in which the folds agree best with each other; logits of the four folds and of four boxes around it are
averaged. The right kidney, which it was not trained on, is the left one of the mirrored scan.

Written are, on the scan's own grid, the id of each structure in the label table of mode abdomen, and
IGNORE where the folds do not settle it. `annotated.json` lists the structures that the folds agree on in
that scan; the others are unlabeled there, not absent.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import onnxruntime
import SimpleITK as sitk
from scipy import ndimage

from tasks import BACKGROUND, IGNORE, TASKS

# x, y, z: no axis of the box shows more than this network was trained on.
SPACING = (2.1, 1.6, 1.3)
EDGE = 144
AIR = -1024
# The network's channel of each structure; what it is poor at is left out.
CHANNELS = {"spleen": 1, "kidney_left": 3, "gallbladder": 4, "liver": 6, "stomach": 7}
KIDNEY = CHANNELS["kidney_left"]
# Mean Dice between folds from which on a structure counts as labeled.
AGREE = {"spleen": 0.5, "kidney_left": 0.45, "kidney_right": 0.45, "gallbladder": 0.4, "liver": 0.7, "stomach": 0.4}
CONFIDENT = 0.6
SMALLEST_ML = {"spleen": 40, "kidney_left": 50, "kidney_right": 50, "gallbladder": 3, "liver": 300, "stomach": 20}
# Beside the box the network says nothing: what lies within this distance along the body may be organ.
BESIDE_MM = 40


class Teacher:
    def __init__(self, folder: Path, threads: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.folds = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                      for path in sorted(folder.glob("obelisk_allconvunet_tcia_fold*.onnx"))]
        assert len(self.folds) == 4, folder

    def logits(self, ct: np.ndarray, corner, folds: int) -> np.ndarray:
        """[fold, channel, z, y, x] of one box, LPS like the scan."""
        box = np.full((EDGE,) * 3, AIR, np.float32)
        source, target = overlap(ct.shape, corner)
        box[target] = ct[source]
        # The network's axes: x to the left, y to the front, z down, in this order.
        given = np.ascontiguousarray(box[::-1, ::-1].transpose(2, 1, 0))[None, None]
        return np.stack([fold.run(None, {"ct_hu": given})[0][0].transpose(0, 3, 2, 1)[:, ::-1, ::-1]
                         for fold in self.folds[:folds]])

    def best_corner(self, ct: np.ndarray) -> tuple[int, int, int]:
        body = np.nonzero(ct > -300)
        y, x = (round(float(np.mean(axis))) - EDGE // 2 for axis in body[1:])
        scores = {}
        for z in range(-EDGE // 4, max(1, ct.shape[0] - EDGE * 2 // 3), EDGE // 4):
            first, second = self.logits(ct, (z, y, x), 2).argmax(1)
            scores[z] = sum(dice(first == c, second == c) for c in CHANNELS.values())
        return max(scores, key=scores.get), y, x

    def segment(self, ct: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice, slice]]:
        """Mean probabilities [channel, z, y, x] and each fold's labels in the box that it found."""
        z, y, x = self.best_corner(ct)
        shape = tuple(n + 40 for n in (EDGE,) * 3)
        total, weight = np.zeros((4, 9, *shape), np.float32), np.full(shape, 1e-6, np.float32)
        ramp = np.minimum(np.arange(EDGE) + 1, EDGE - np.arange(EDGE)).clip(max=24) / 24.0
        window = (ramp[:, None, None] * ramp[:, None] * ramp).astype(np.float32)
        for dz, dy, dx in ((-12, -8, 8), (12, -8, -8), (-12, 8, -8), (12, 8, 8)):
            place = tuple(slice(20 + d, 20 + d + EDGE) for d in (dz, dy, dx))
            total[(slice(None), slice(None), *place)] += self.logits(ct, (z + dz, y + dy, x + dx), 4) * window
            weight[place] += window
        total /= weight
        total[:, 0][:, weight < 1e-5] = 1.0
        source, target = overlap(ct.shape, (z - 20, y - 20, x - 20), EDGE + 40)
        total = total[(slice(None), slice(None), *target)]
        mean = total.mean(0)
        p = np.exp(mean - mean.max(0))
        return p / p.sum(0), total.argmax(1), source


def overlap(shape, corner, edge: int = EDGE):
    """Slices of the volume and of the box where both are."""
    pairs = [(max(0, start), min(n, start + edge), start) for n, start in zip(shape, corner)]
    return tuple(slice(a, b) for a, b, _ in pairs), tuple(slice(a - s, b - s) for a, b, s in pairs)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def largest(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask)
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1 if count else mask


def label_scan(teacher: Teacher, ct: np.ndarray, ids: dict[str, int]) -> tuple[np.ndarray, dict[str, float]]:
    """Label map and the agreement of the folds about each structure."""
    found = [(name, channel, False) for name, channel in CHANNELS.items()] + [("kidney_right", KIDNEY, True)]
    answers = {False: teacher.segment(ct), True: teacher.segment(ct[..., ::-1])}
    label = np.zeros(ct.shape, np.uint8)
    agreement = {}
    milliliter = np.prod(SPACING) / 1000
    for name, channel, mirrored in found:
        p, folds, box = answers[mirrored]
        masks = folds == channel
        # On the side of the right kidney a mirrored scan shows a spleen or nothing.
        agreement[name] = float(np.mean([dice(a, b) for a, b in itertools.combinations(masks, 2)]))
        sure = largest((p.argmax(0) == channel) & (p.max(0) > CONFIDENT))
        doubt = (masks.any(0) | (p[channel] > 0.2)) & ~sure
        if agreement[name] < AGREE[name] or sure.sum() * milliliter < SMALLEST_ML[name]:
            agreement[name], sure, doubt = 0.0, sure & False, doubt | sure
        whole = np.zeros((2, *ct.shape), bool)
        whole[(slice(None), *box)] = sure, doubt
        if mirrored:
            whole = whole[..., ::-1]
        label[whole[0] & (label == BACKGROUND)] = ids[name]
        label[whole[1] & (label == BACKGROUND)] = IGNORE
    z = answers[False][2][0]
    reach = round(BESIDE_MM / SPACING[2])
    for beside in (label[max(0, z.start - reach) : z.start], label[z.stop : z.stop + reach]):
        beside[beside == BACKGROUND] = IGNORE
    return label, {name: round(a, 3) for name, a in agreement.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of NAME_seg.nii.gz and annotated.json")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(args.data / "onnx", args.threads)
    ids = {label.name: i for i, label in enumerate(TASKS["abdomen"].labels, 1)}
    annotated = {}
    for path in sorted([*(args.data / "trunk").glob("*_ct.nii.gz"), *(args.data / "unlabelled").glob("*.nii.gz")]):
        name = path.name.removesuffix(".nii.gz").removesuffix("_ct")
        if "head" in name:
            continue  # no abdomen in it
        native = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
        size = [round(n * a / b) for n, a, b in zip(native.GetSize(), native.GetSpacing(), SPACING)]
        image = sitk.Resample(native, size, sitk.Transform(), sitk.sitkLinear, native.GetOrigin(), SPACING,
                              native.GetDirection(), AIR, sitk.sitkFloat32)
        label, agreement = label_scan(teacher, np.maximum(sitk.GetArrayFromImage(image), AIR), ids)
        answer = sitk.GetImageFromArray(label)
        answer.CopyInformation(image)
        answer = sitk.Resample(answer, native, sitk.Transform(), sitk.sitkNearestNeighbor, BACKGROUND)
        sitk.WriteImage(answer, str(args.output / f"{name}_seg.nii.gz"), useCompression=True)
        annotated[name] = agreement
        print(name, agreement, flush=True)
        (args.output / "annotated.json").write_text(json.dumps(annotated, indent=2) + "\n")


if __name__ == "__main__":
    main()
