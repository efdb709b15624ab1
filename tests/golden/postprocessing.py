"""Stage `postprocess`: SciPy, scikit-image and nnU-Net's own rule on small label maps."""

import numpy as np
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
from scipy import ndimage
from skimage.measure import label as components

from common import Stage, smooth

# Exactly representable, so that equal distances are equal in f32 as well.
ISO, THICK, MIXED = (1.0, 1.0, 1.0), (2.5, 0.75, 0.75), (1.5, 0.5, 1.25)


def anatomy(shape, seed, labels=4, sigma=2.0):
    """Blobs that touch, with holes, crumbs and background between them."""
    best, count = smooth(shape, seed, sigma), labels
    out = np.zeros(shape, np.uint8)
    for k in range(count):
        field = smooth(shape, seed + 1 + k, sigma)
        out[(field > 0.4) & (field > best)] = k + 1
        best = np.maximum(best, field)
    crumbs = np.random.default_rng(seed + 50).random(shape)
    out[crumbs < 0.02] = 0
    out[crumbs > 0.985] = 1 + (seed % labels)
    return out


def noise(shape, seed, labels=3, share=0.5):
    rng = np.random.default_rng(seed)
    return (rng.integers(1, labels + 1, shape) * (rng.random(shape) < share)).astype(np.uint8)


VOLUMES = [
    ("noise", noise((9, 13, 17), 1), MIXED),
    ("dense_noise", noise((8, 9, 10), 2, 1, 0.7), ISO),
    ("sparse_noise", noise((10, 12, 70), 3, 2, 0.15), THICK),
    ("anatomy", anatomy((20, 27, 31), 4), MIXED),
    ("anatomy_thick", anatomy((12, 33, 40), 20, sigma=3.0), THICK),
    ("long_rows", anatomy((7, 9, 150), 30), ISO),
    ("empty", np.zeros((5, 6, 7), np.uint8), ISO),
    ("full", np.ones((5, 6, 7), np.uint8), THICK),
    ("one_plane", noise((1, 20, 22), 5), MIXED),
    ("one_row", anatomy((18, 1, 20), 6, sigma=1.0), MIXED),
    ("one_column", anatomy((20, 22, 1), 7, sigma=1.0), THICK),
    ("one_voxel", np.full((1, 1, 1), 2, np.uint8), ISO),
]


def within(mask, spacing, radius):
    """Voxels at most `radius` from a voxel of the mask."""
    if not mask.any():
        return np.zeros_like(mask)
    return ndimage.distance_transform_edt(~mask, sampling=spacing) <= radius * (1 + 1e-6)


def ball(spacing, radius):
    reach = [int(radius * (1 + 1e-6) / s) for s in spacing]
    grid = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    return sum((g * s) ** 2 for g, s in zip(grid, spacing)) <= (radius * (1 + 1e-6)) ** 2


def dilate(mask, spacing, radius):
    out = within(mask, spacing, radius)
    assert np.array_equal(out, ndimage.binary_dilation(mask, ball(spacing, radius)))
    return out


def erode(mask, spacing, radius):
    """Beyond the volume nothing is known, so nothing is eroded from there."""
    out = ~within(~mask, spacing, radius)
    assert np.array_equal(out, ndimage.binary_erosion(mask, ball(spacing, radius), border_value=1))
    return out


OPERATIONS = {
    "dilate": dilate,
    "erode": erode,
    "open": lambda m, s, r: dilate(erode(m, s, r), s, r),
    "close": lambda m, s, r: erode(dilate(m, s, r), s, r),
}


def each_label(labels, operation):
    """Every label as it was on entry: removed voxels become 0, added ones only replace 0."""
    out = labels.copy()
    for k in np.unique(labels[labels > 0]):
        mask = labels == k
        new = operation(mask)
        out[mask & ~new] = 0
        out[new & ~mask & (labels == 0) & (out == 0)] = k
    return out


def filled(mask, axis):
    if axis is None:
        return ndimage.binary_fill_holes(mask)
    slices = [ndimage.binary_fill_holes(m) for m in np.moveaxis(mask, axis, 0)]
    return np.moveaxis(np.array(slices), 0, axis)


def without_small(labels, union, connectivity, least):
    named = components((labels > 0).astype(np.uint8) if union else labels, connectivity=connectivity)
    sizes = np.bincount(named.ravel())
    out = labels.copy()
    out[(labels > 0) & (sizes[named] < least)] = 0
    return out


def nearest(labels, removed, spacing, limit):
    """The nearest label by SciPy's distances, the smallest among equals."""
    kept = np.where(removed, 0, labels)
    names = np.unique(kept[kept > 0])
    if not len(names):
        return kept
    distances = np.array([ndimage.distance_transform_edt(kept != k, sampling=spacing) for k in names])
    squares = np.round(distances ** 2, 9)
    best = names[squares.argmin(0)]
    take = removed & (distances.min(0) <= limit * (1 + 1e-6))
    return np.where(take, best, kept).astype(np.uint8)


def in_order(named):
    """Components numbered by their first voxels."""
    _, first, inverse = np.unique(named.ravel(), return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    shift = 0 if (named == 0).any() else 1
    if shift == 0:
        order[0], rest = -1, order[1:]
        order[1:] = np.argsort(np.argsort(rest))
    return (order[inverse] + 1).reshape(named.shape).astype(np.int16)


def postprocess():
    stage = Stage("postprocess")
    for name, labels, spacing in VOLUMES:
        stage.add("volumes", name=name, shape=labels.shape, spacing=spacing, labels=stage.save(name, labels))
        voxel = float(np.prod(spacing))

        def add(section, results, **entry):
            stage.add(section, volume=name, expected=stage.save(f"{name}_{section}", np.array(results)), **entry)

        kinds = [(c, union) for c in (6, 18, 26) for union in (False, True)]
        rank = {6: 1, 18: 2, 26: 3}
        masks = {True: (labels > 0).astype(np.uint8), False: labels}
        add("components", [in_order(components(masks[u], connectivity=rank[c])) for c, u in kinds],
            kinds=[{"connectivity": c, "union": u} for c, u in kinds])
        add("remove_small", [without_small(labels, u, rank[c], 4) for c, u in kinds],
            kinds=[{"connectivity": c, "union": u} for c, u in kinds], min_mm3=4 * voxel)
        rules = [1, [1, 2], [[1, 2], 3], 2, [2, 3]]
        calls = [1, [1, 2], [(1, 2), 3], 2, [2, 3]]
        add("nnunet", [remove_all_but_largest_component_from_segmentation(labels, c) for c in calls]
            + [remove_all_but_largest_component_from_segmentation(labels, [1], background_label=7)],
            kwargs=[{"labels_or_regions": r} for r in rules]
            + [{"labels_or_regions": [1], "background_label": 7}])
        axes = [None, 0, 1, 2]
        add("fill_holes", [each_label(labels, lambda m: filled(m, a)) for a in axes], axes=axes)
        radii = [0.75, 1.5, 2.5, 4.0]
        runs = [(o, r) for o in OPERATIONS for r in radii]
        add("morphology", [each_label(labels, lambda m: OPERATIONS[o](m, spacing, r)) for o, r in runs],
            runs=[{"operation": o, "radius_mm": r} for o, r in runs])
        rng = np.random.default_rng(len(name))
        removed = (labels > 0) & (ndimage.uniform_filter(rng.random(labels.shape), 3) > 0.5)
        limits = [0.75, 2.0, 50.0]
        add("nearest", [nearest(labels, removed, spacing, m) for m in limits], within_mm=limits,
            removed=stage.save(f"{name}_removed", removed.astype(np.uint8)))
        near = [1.0, 3.0]
        add("clip", [np.where((labels == 1) & ~within(labels == 2, spacing, d), 0, labels) for d in near],
            distances_mm=near)
        if (labels == 1).any():
            distance = ndimage.distance_transform_edt(labels != 1, sampling=spacing)
            add("distance", (distance ** 2).astype(np.float32))
    stage.close()
