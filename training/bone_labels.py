"""Binary bone labels: 0 soft tissue, 1 bone, IGNORE where the truth is unknown.

Two sources:
- a TotalSegmentator label map, whose bone classes are merged, or
- thresholds on the CT itself, cleaned up. Wherever a threshold cannot decide
  (cavities that may be marrow or spinal canal, metal streaks, the partial-volume
  rim of bone) the voxel is marked IGNORE and takes no part in the loss.

All lengths are in millimeters, so the rules work on any voxel size. Arrays are [z,y,x].
"""

import numpy as np
from scipy import ndimage

from tasks import BACKGROUND, IGNORE

BONE = 1

BONE_NAMES = ("vertebrae_", "rib_", "sternum", "scapula_", "clavicula_", "humerus_",
              "hip_", "sacrum", "femur_", "skull")

# HU. Enhanced vessels stay below SEED after averaging over a coarse voxel; a
# component counts as bone only if part of it is brighter.
SEED = 350
EDGE = 200
LIMB_EDGE = 150  # no contrast there, and the knee's cortex is thin
RIM = 130
MARROW = 90
FATTY_MARROW = -60
DENSE_MARROW = 140
DENSE_CONTRAST = 1000  # undiluted in a vein; no bone of the trunk is as bright
METAL = 2800
AIR = -200


def from_class_map(class_map: np.ndarray, names: dict[int, str], ct: np.ndarray, spacing) -> np.ndarray:
    """Merge the bone classes; doubt bright voxels just outside them (the map misses some bone ends)."""
    bone = np.isin(class_map, [i for i, name in names.items() if name.startswith(BONE_NAMES)])
    label = bone.astype(np.uint8)
    missed = (class_map == 0) & (ct > EDGE) & (ct < DENSE_CONTRAST) & grow(bone, 5, spacing)
    label[missed] = IGNORE
    return label


def from_hounsfield(ct: np.ndarray, spacing, is_limb: bool, soft: np.ndarray, doubtful: np.ndarray) -> np.ndarray:
    """Bone from thresholds. `soft` is known soft tissue, `doubtful` (calcified cartilage) is ignored."""
    body = body_mask(ct, spacing)
    hard = (ct > (LIMB_EDGE if is_limb else EDGE)) & body & ~soft
    bone, uncertain = keep_bones(hard, ct, spacing)

    # A shell of cortex with gaps closes at 6 mm; what it then encloses may be marrow.
    # A ring of cortex in a slice is the stronger sign: discs lie between bones, not in rings.
    shell = close(bone, 6, spacing)
    max_hole = 6000 if is_limb else 2000  # square millimeters: marrow, never the brain
    ring = fill_slices(shell, spacing, max_hole) | fill_slices(bone, spacing, max_hole)
    hull = shell | ring
    if is_limb:
        # Wider gaps in the thin shell of a knee: unknown rather than background.
        uncertain |= close(bone, 12, spacing) & (ct > AIR)
    inside = hull & ~bone & body & ~soft & (ct > AIR)
    smooth = ndimage.gaussian_filter(np.clip(ct, AIR, 1000).astype(np.float32), 2 / np.asarray(spacing))
    # The spinal canal is a ring too, but never this wide: what a wider ring holds is marrow,
    # however fatty.
    wide = ring & ~fill_slices(bone, spacing, 600) & ~fill_slices(shell, spacing, 600)
    fatty = wide & (smooth > FATTY_MARROW)
    marrow = inside & (is_limb | fatty | (ring & (smooth > MARROW)) | (smooth > DENSE_MARROW))

    label = np.zeros(ct.shape, np.uint8)
    label[inside] = IGNORE
    label[uncertain] = IGNORE
    label[bone | marrow] = BONE
    # Partial volume: nobody can say from the HU which side of the surface this is.
    label[(label == BACKGROUND) & (ct > RIM) & body & grow(bone, 3.5, spacing)] = IGNORE
    label[near_metal(ct, spacing) & (label == BONE)] = IGNORE
    label[doubtful & (ct > RIM)] = IGNORE
    label[soft] = BACKGROUND
    return label


def body_mask(ct: np.ndarray, spacing) -> np.ndarray:
    """Body without the table: thin sheets vanish in an opening, small remains are dropped."""
    solid = ct > -300
    opened = shrink(solid, 5, spacing)
    parts, count = ndimage.label(opened)
    if count == 0:
        return solid
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    core = np.isin(parts, np.flatnonzero(sizes > 0.05 * sizes.max()))
    body = solid & grow(core, 7, spacing)
    return np.stack([ndimage.binary_fill_holes(s) for s in body])


def keep_bones(hard: np.ndarray, ct: np.ndarray, spacing) -> tuple[np.ndarray, np.ndarray]:
    """Components with a bright seed and enough volume; medium-sized ones are uncertain."""
    parts, count = ndimage.label(hard, np.ones((3, 3, 3)))
    voxels = np.bincount(parts.ravel(), minlength=count + 1) * np.prod(spacing)
    peak = np.asarray(ndimage.maximum(ct, parts, np.arange(count + 1)))
    seeded = peak > SEED
    seeded[0] = False
    bone = (seeded & (voxels >= 1500))[parts]
    uncertain = (seeded & (voxels >= 250) & (voxels < 1500))[parts]
    return bone, uncertain


def fill_slices(mask: np.ndarray, spacing, max_area: float) -> np.ndarray:
    """Holes of axial slices up to an area."""
    filled = np.zeros_like(mask)
    pixel = spacing[1] * spacing[2]
    for z, plane in enumerate(mask):
        holes, count = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
        small = np.bincount(holes.ravel(), minlength=count + 1) * pixel <= max_area
        small[0] = False
        filled[z] = small[holes]
    return filled


def near_metal(ct: np.ndarray, spacing) -> np.ndarray:
    """Dental metal makes streaks within its slice and the next ones."""
    metal = ct > METAL
    parts, count = ndimage.label(metal, np.ones((3, 3, 3)))
    if count == 0:
        return metal
    voxels = np.bincount(parts.ravel(), minlength=count + 1) * np.prod(spacing)
    voxels[0] = 0
    return grow((voxels > 60)[parts], 20, spacing)


def grow(mask: np.ndarray, radius: float, spacing) -> np.ndarray:
    if not mask.any():
        return mask.copy()
    return ndimage.distance_transform_edt(~mask, sampling=spacing) <= radius


def close(mask: np.ndarray, radius: float, spacing) -> np.ndarray:
    return shrink(grow(mask, radius, spacing), radius, spacing) | mask


def shrink(mask: np.ndarray, radius: float, spacing) -> np.ndarray:
    """Erosion that leaves the volume's border alone: bodies run on beyond the scan."""
    if mask.all():
        return mask.copy()
    return ndimage.distance_transform_edt(mask, sampling=spacing) > radius
