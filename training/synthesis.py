"""Scans made from label maps that came without a CT: where the body is, and how it might look.

After SynthSeg (Billot et al., Medical Image Analysis 2023): every structure gets a gray value of its own from the
range it has in patients, with texture, and what no structure covers is fat and muscle inside a hull.
"""

import numpy as np
from scipy import ndimage

AIR = -1000
# HU of structures by the beginning of their names, in TotalSegmentator's vocabulary; the first that fits counts.
HOUNSFIELD = {
    "lung": (-880, -780), "trachea": (-1000, -950), "gallbladder": (-5, 25), "urinary_bladder": (-5, 20),
    "kidney_cyst": (-5, 20), "kidney": (30, 200), "liver": (45, 125), "spleen": (40, 135), "stomach": (-10, 60),
    "pancreas": (25, 115), "adrenal": (20, 90), "small_bowel": (0, 80), "duodenum": (0, 80), "colon": (-40, 60),
    "esophagus": (10, 60), "heart": (35, 180), "aorta": (40, 320), "pulmonary_vein": (40, 300), "atrial": (40, 250),
    "brachiocephalic": (40, 300), "subclavian": (40, 300), "common_carotid": (40, 300), "superior_vena": (40, 300),
    "inferior_vena": (35, 180), "portal": (35, 190), "iliac_": (40, 250), "spinal_cord": (10, 45), "brain": (25, 45),
    "costal": (70, 150), "thyroid": (60, 150), "prostate": (25, 70), "gluteus": (40, 70), "autochthon": (35, 70),
    "iliopsoas": (40, 70),
}
BONE = (120, 350)
CORTEX = (250, 700)
FAT, MUSCLE = -100, 55
SKIN_MM, COARSE_MM = 14, 6


def body_of(seg: np.ndarray, spacing) -> np.ndarray:
    """A hull around all structures, closed over what no structure covers."""
    steps = [max(1, round(COARSE_MM / s)) for s in spacing]
    coarse = seg[tuple(slice(None, None, n) for n in steps)] > 0
    sampling = [s * n for s, n in zip(spacing, steps)]
    pad = [(0, 0), (12, 12), (12, 12)]
    coarse = np.pad(coarse, pad)
    grown = ndimage.distance_transform_edt(~coarse, sampling=sampling) <= 50
    closed = ndimage.distance_transform_edt(grown, sampling=sampling) > 50 - SKIN_MM
    closed = np.stack([ndimage.binary_fill_holes(plane) for plane in closed])[:, 12:-12, 12:-12]
    whole = np.repeat(np.repeat(np.repeat(closed, steps[0], 0), steps[1], 1), steps[2], 2)
    return whole[tuple(slice(n) for n in seg.shape)] | (seg > 0)


def outline(seg: np.ndarray, names: dict[int, str], spacing) -> np.ndarray:
    """HU that tell air from body and nothing else."""
    ct = np.where(body_of(seg, spacing), 40, AIR).astype(np.float32)
    ct[np.isin(seg, [i for i, name in names.items() if name.startswith(("lung", "trachea"))])] = -850
    return ct


def appearance(seg: np.ndarray, names: dict[int, str], spacing, rng: np.random.Generator) -> np.ndarray:
    """HU of one patient that might have these structures."""
    def smooth(wavelength: float) -> np.ndarray:
        knots = [max(3, round(n * s / wavelength) + 1) for n, s in zip(seg.shape, spacing)]
        field = rng.normal(size=knots)
        return ndimage.zoom(field, [n / k for n, k in zip(seg.shape, knots)], order=1)[tuple(slice(n) for n in seg.shape)]

    body = body_of(seg, spacing)
    deep = ndimage.distance_transform_edt(body[::2, ::2, ::2], sampling=[2 * s for s in spacing]) > rng.uniform(8, 25)
    deep = np.repeat(np.repeat(np.repeat(deep, 2, 0), 2, 1), 2, 2)[tuple(slice(n) for n in seg.shape)]
    muscle = deep & (smooth(rng.uniform(15, 40)) > rng.uniform(-0.6, 0.6))
    ct = np.where(body, np.where(muscle, MUSCLE, FAT), AIR).astype(np.float32)
    phase = rng.uniform()  # how much contrast agent all vessels have taken up
    for i, name in names.items():
        low, high = next((v for key, v in HOUNSFIELD.items() if name.startswith(key)), BONE)
        mask = seg == i
        if not mask.any():
            continue
        value = low + (high - low) * np.clip(phase + rng.normal(0, 0.15), 0, 1)
        ct[mask] = value
        if (low, high) == BONE:
            ct[mask & ~ndimage.binary_erosion(mask, iterations=1)] = rng.uniform(*CORTEX)
        elif name in ("stomach", "colon", "small_bowel"):
            # Gas lies in front, contrast agent behind.
            field = smooth(rng.uniform(12, 30))
            ct[mask & (field > rng.uniform(0.5, 1.5))] = rng.uniform(-950, -600)
            if rng.uniform() < 0.4:
                ct[mask & (field < rng.uniform(-0.8, 0.3))] = rng.uniform(80, 350)
    texture = 12 * smooth(4 * spacing[0]) + 15 * smooth(25)
    return ndimage.gaussian_filter(ct + np.where(ct > -700, texture, 0), 0.7).astype(np.float32)
