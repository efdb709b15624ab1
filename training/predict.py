#!/usr/bin/env python3
"""Segment one CT with an exported model: nnU-Net's steps, in Python, as a reference."""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import SimpleITK as sitk
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from volume import Intensity, read_lps, resample

STEP = 0.5


class Predictor:
    """A model by its name. `onnx` names other weights than the committed ones."""

    def __init__(self, root: Path, name: str, onnx: Path | None = None, threads: int = 2, settings: dict | None = None):
        if settings is None:
            [config] = root.glob(f"config/[23]d*/{name}.json")
            settings = json.loads(config.read_text())
            settings["flat"] = config.parent.name == "2d"
        self.flat = settings.get("flat", False)
        self.patch = (1,) * self.flat + tuple(settings["patch_size"])
        self.spacing = settings["target_spacing"]
        self.classes = len(settings["labels"]) + 1
        self.intensity = Intensity(**settings["intensity_properties"])
        stage = settings.get("previous_stage")
        self.previous = Predictor(root, stage, threads=threads) if stage else None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Waiting by spinning costs a shared machine more than it gains.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(onnx or root / "models" / settings["model_path"], options,
                                                    providers=["CPUExecutionProvider"])
        weight = compute_gaussian(self.patch[self.flat:], sigma_scale=1 / 8, value_scaling_factor=10,
                                  dtype=torch.float32, device=torch.device("cpu")).numpy()
        self.weight = weight.reshape(self.patch)

    def grid(self, spacing) -> tuple[float, ...]:
        """A 2-D model keeps the distance of the slices."""
        return (spacing[0], *self.spacing) if self.flat else tuple(self.spacing)

    def logits(self, ct: np.ndarray, spacing, given: np.ndarray | None = None) -> np.ndarray:
        """Logits [class,z,y,x] of a cropped HU volume, at the model's spacing.

        `given` are labels on the volume's grid that stand for the previous stage's.
        """
        x = resample(self.intensity.normalize(ct.astype(np.float32)), spacing, self.grid(spacing), is_label=False)
        channels = [x]
        if self.previous:
            if given is None:
                coarse, grid = self.previous.logits(ct, spacing), self.previous.spacing
            else:
                coarse, grid = np.stack([given == i for i in range(self.previous.classes)]).astype(np.float32), spacing
            coarse = resize(coarse, x.shape, grid, self.spacing).argmax(0)
            channels += [coarse == label for label in range(1, self.previous.classes)]
        return self.sliding_window(np.stack(channels).astype(np.float32))

    def sliding_window(self, x: np.ndarray) -> np.ndarray:
        lack = [max(0, p - n) for p, n in zip(self.patch, x.shape[1:])]
        margins = [(d // 2, d - d // 2) for d in lack]
        padded = np.pad(x, [(0, 0), *margins])
        shape = padded.shape[1:]
        total = np.zeros((self.classes, *shape), np.float32)
        weight = np.zeros(shape, np.float32)
        starts = compute_steps_for_sliding_window(shape[self.flat:], self.patch[self.flat:], STEP)
        if self.flat:
            starts = [list(range(shape[0])), *starts]
        for corner in ((z, y, k) for z in starts[0] for y in starts[1] for k in starts[2]):
            tile = tuple(slice(s, s + p) for s, p in zip(corner, self.patch))
            given = padded[(slice(None), *tile)]
            given = given[:, 0] if self.flat else given
            out = self.session.run(["output"], {"input": given[None]})[0][0]
            total[(slice(None), *tile)] += out.reshape(total.shape[0], *self.patch) * self.weight
            weight[tile] += self.weight
        inner = tuple(slice(lo, n - hi) for (lo, hi), n in zip(margins, shape))
        return (total / weight)[(slice(None), *inner)]

    def native(self, logits: np.ndarray, shape, spacing) -> np.ndarray:
        """Labels on the grid the volume came with: logits are resized, then compared, class by class to save memory."""
        best, label = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.uint8)
        for i, one in enumerate(logits):
            resized = resize(one[None], shape, self.grid(spacing), spacing)[0]
            better = resized > best
            best[better], label[better] = resized[better], i
        return label

    def segment(self, ct: np.ndarray, spacing) -> np.ndarray:
        _, _, box = crop_to_nonzero(ct[None])
        window = tuple(slice(lo, hi) for lo, hi in box)
        label = np.zeros(ct.shape, np.uint8)
        label[window] = self.native(self.logits(ct[window], spacing), ct[window].shape, spacing)
        return label


def resize(logits: np.ndarray, shape, spacing, target) -> np.ndarray:
    return resample_data_or_seg_to_shape(logits, shape, spacing, target, is_seg=False, order=1, order_z=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="its name")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="folder of models/ and config/")
    parser.add_argument("ct", type=Path)
    parser.add_argument("label", type=Path)
    args = parser.parse_args()

    label = Predictor(args.root, args.model).segment(*read_lps(args.ct))
    source = sitk.ReadImage(str(args.ct))
    image = sitk.GetImageFromArray(label)
    image.CopyInformation(sitk.DICOMOrient(source, "LPS"))
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(source.GetDirection())
    sitk.WriteImage(sitk.DICOMOrient(image, code), str(args.label), useCompression=True)


if __name__ == "__main__":
    main()
