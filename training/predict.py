#!/usr/bin/env python3
"""Segment one CT with the exported model: nnU-Net's steps, in Python, as a reference."""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import SimpleITK as sitk
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
import torch

from volume import TARGET_SPACING, Intensity, read_lps, resample

STEP = 0.5


class Predictor:
    def __init__(self, config: Path, model_folder: Path, threads: int = 2):
        settings = json.loads(config.read_text())
        self.patch = tuple(settings["patch_size"])
        self.intensity = Intensity(**settings["intensity_properties"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(model_folder / settings["model_path"], options,
                                                    providers=["CPUExecutionProvider"])
        self.weight = compute_gaussian(self.patch, sigma_scale=1 / 8, value_scaling_factor=10,
                                       dtype=torch.float32, device=torch.device("cpu")).numpy()

    def logits(self, ct: np.ndarray, spacing) -> np.ndarray:
        """Logits [class,z,y,x] of a cropped HU volume, at the target spacing."""
        x = resample(self.intensity.normalize(ct.astype(np.float32)), spacing, is_label=False)
        lack = [max(0, p - n) for p, n in zip(self.patch, x.shape)]
        margins = [(d // 2, d - d // 2) for d in lack]
        padded = np.pad(x, margins).astype(np.float32)
        total = np.zeros((2, *padded.shape), np.float32)
        weight = np.zeros(padded.shape, np.float32)
        starts = compute_steps_for_sliding_window(padded.shape, self.patch, STEP)
        for z in starts[0]:
            for y in starts[1]:
                for k in starts[2]:
                    tile = tuple(slice(s, s + p) for s, p in zip((z, y, k), self.patch))
                    out = self.session.run(["output"], {"input": padded[tile][None, None]})[0][0]
                    total[(slice(None), *tile)] += out * self.weight
                    weight[tile] += self.weight
        inner = tuple(slice(lo, n - hi) for (lo, hi), n in zip(margins, padded.shape))
        return (total / weight)[(slice(None), *inner)]

    def native(self, logits: np.ndarray, shape, spacing) -> np.ndarray:
        """Labels on the grid the volume came with: logits are resized, then compared."""
        resized = resample_data_or_seg_to_shape(logits, shape, TARGET_SPACING, spacing, is_seg=False, order=1, order_z=0)
        return resized.argmax(0).astype(np.uint8)

    def segment(self, ct: np.ndarray, spacing) -> np.ndarray:
        _, _, box = crop_to_nonzero(ct[None])
        window = tuple(slice(lo, hi) for lo, hi in box)
        label = np.zeros(ct.shape, np.uint8)
        label[window] = self.native(self.logits(ct[window], spacing), ct[window].shape, spacing)
        return label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="folder of the ONNX file")
    parser.add_argument("ct", type=Path)
    parser.add_argument("label", type=Path)
    args = parser.parse_args()

    label = Predictor(args.config, args.models).segment(*read_lps(args.ct))
    source = sitk.ReadImage(str(args.ct))
    image = sitk.GetImageFromArray(label)
    image.CopyInformation(sitk.DICOMOrient(source, "LPS"))
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(source.GetDirection())
    sitk.WriteImage(sitk.DICOMOrient(image, code), str(args.label), useCompression=True)


if __name__ == "__main__":
    main()
