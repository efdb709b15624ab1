"""CT volumes as nnU-Net sees them: LPS arrays, cropped, normalized, resampled."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

from tasks import Task


@dataclass(frozen=True)
class Intensity:
    """nnU-Net's foreground intensity properties (HU of bone voxels)."""

    mean: float
    std: float
    percentile_00_5: float
    percentile_99_5: float

    def normalize(self, ct: np.ndarray) -> np.ndarray:
        clipped = np.clip(ct, self.percentile_00_5, self.percentile_99_5)
        return (clipped - np.float32(self.mean)) / np.float32(max(self.std, 1e-8))


def intensity_of(task: Task) -> Intensity:
    return Intensity(*task.intensity)


def read_lps(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Array [z,y,x] with z toward Superior, y toward Posterior, x toward Left; spacing likewise."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    return sitk.GetArrayFromImage(image), tuple(abs(s) for s in image.GetSpacing()[::-1])


def crop(ct: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """nnU-Net's crop to the non-zero region; its -1 outside the mask is not wanted here."""
    _, _, box = crop_to_nonzero(ct[None])
    window = tuple(slice(lo, hi) for lo, hi in box)
    return ct[window], label[window]


def resample(array: np.ndarray, spacing, target, is_label: bool, order: int = 1) -> np.ndarray:
    """Images with order 3, labels with order 1 per class, as nnU-Net does, or another `order`."""
    shape = compute_new_shape(array.shape, spacing, target)
    return resample_data_or_seg_to_shape(array[None], shape, spacing, target, is_seg=is_label,
                                         order=order if is_label else 3, order_z=0)[0]
