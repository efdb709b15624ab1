"""Images of other libraries as the native part takes them, and labels as those libraries have them.

Inside, an image is an aligned int16 or float32 array ``[z, y, x]`` with slope and intercept, spacing
``[z, y, x]`` in mm, and an affine from (x, y, z) to mm right, anterior, superior, as NIfTI has it.
"""

import math
import os
import sys

import numpy as np

from ._errors import InputError, UsageError


class Lent:
    """An image, and how labels become an image of the same kind."""

    def __init__(self, stored, slope, intercept, spacing, affine, give_back):
        self.voxels, self.slope, self.intercept = _voxels(stored, slope, intercept)
        self.spacing = [float(s) for s in spacing]
        self.affine = [[float(v) for v in row] for row in np.asarray(affine)[:3]]
        self.give_back = give_back


def is_path(image):
    """Whether it stands for a file."""
    return isinstance(image, (str, os.PathLike))


def lend(image, affine=None, spacing=None):
    """The image without a copy where none is needed; docs/python.md has the table."""
    # Whoever has an image of a library has loaded it.
    nibabel, simpleitk = sys.modules.get("nibabel"), sys.modules.get("SimpleITK")
    if nibabel is not None and isinstance(image, nibabel.spatialimages.SpatialImage):
        own = _of_nibabel
    elif simpleitk is not None and isinstance(image, simpleitk.Image):
        own = _of_simpleitk
    else:
        return _of_array(np.asarray(image), type(image).__name__, affine, spacing)
    if affine is not None or spacing is not None:
        raise UsageError("affine or spacing: found one for an image that has its own, expected none")
    return own(image)


def _of_array(array, name, affine, spacing):
    if array.dtype == object:
        kinds = "a NumPy array, an image of nibabel or SimpleITK, or a path"
        raise TypeError(f"image: found {name}, expected {kinds}")
    if affine is not None:
        return _of_affine(array, affine, spacing)
    if spacing is None:
        raise UsageError("image: found an array alone, expected its affine or its spacing")
    return _of_spacing(array, spacing)


def _of_affine(array, affine, spacing):
    """Axes x, y, z as nibabel has them."""
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape not in ((4, 4), (3, 4)):
        raise UsageError(f"affine: found an array of shape {affine.shape}, expected (4, 4)")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    spacing = lengths if spacing is None else _three_numbers(spacing)
    # What float32 geometry in files explains many times over, and no wrong order of axes does.
    if not np.allclose(spacing, lengths, rtol=0.01, atol=0):
        found = f"{list(spacing)} mm where the affine steps by {lengths.tolist()}"
        raise UsageError(f"spacing: found {found}, expected the same along x, y and z")
    return Lent(_three(array).T, 1.0, 0.0, spacing[::-1], affine, lambda labels: labels.T)


def _of_spacing(array, spacing):
    """Axes z, y, x: slices from the feet up, rows from front to back, columns from right to left, as
    SimpleITK gives an axial CT."""
    z, y, x = _three_numbers(spacing)
    affine = [[-x, 0, 0, 0], [0, -y, 0, 0], [0, 0, z, 0]]
    return Lent(_three(array), 1.0, 0.0, (z, y, x), affine, lambda labels: labels)


def _of_nibabel(image):
    stored, slope, intercept = image.dataobj, 1.0, 0.0
    if hasattr(stored, "get_unscaled"):
        # As the file has it: half the memory of what it stands for.
        slope, intercept = float(stored.slope), float(stored.inter)
        stored = stored.get_unscaled()
    unit = 1.0
    if hasattr(image.header, "get_xyzt_units"):
        unit = {"meter": 1000.0, "micron": 1e-3}.get(image.header.get_xyzt_units()[0], 1.0)
    affine = np.asarray(image.affine, dtype=np.float64) * unit
    spacing = [float(zoom) * unit for zoom in image.header.get_zooms()[:3]]

    def give_back(labels):
        import nibabel

        kind = type(image) if isinstance(image, nibabel.Nifti1Pair) else nibabel.Nifti1Image
        header = image.header.copy() if kind is type(image) else None
        given = kind(labels.T.reshape(image.shape), image.affine, header)
        given.set_data_dtype(labels.dtype)
        given.header.set_slope_inter(1, 0)
        given.header["cal_min"], given.header["cal_max"] = 0, 0
        return given

    return Lent(_three(np.asanyarray(stored)).T, slope, intercept, spacing[::-1], affine, give_back)


def _of_simpleitk(image):
    import SimpleITK

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        found = f"{image.GetDimension()} axes with {image.GetNumberOfComponentsPerPixel()} numbers per voxel"
        raise InputError(f"image: found {found}, expected 3 axes with one number per voxel")
    spacing = np.array(image.GetSpacing())
    affine = np.empty((3, 4))
    affine[:, :3] = np.array(image.GetDirection()).reshape(3, 3) * spacing
    affine[:, 3] = image.GetOrigin()
    # ITK's axes run left and posterior.
    affine[:2] *= -1

    def give_back(labels):
        given = SimpleITK.GetImageFromArray(labels)
        given.CopyInformation(image)
        return given

    stored = SimpleITK.GetArrayViewFromImage(image)
    return Lent(stored, 1.0, 0.0, spacing[::-1], affine, give_back)


def _three(array):
    """The array with three axes; further ones of length 1, as files have them, are left out."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise InputError(f"image: found {array.ndim} axes, expected 3")
    return array


def _three_numbers(spacing):
    numbers = [float(s) for s in spacing]
    if len(numbers) != 3 or not all(math.isfinite(s) and s > 0 for s in numbers):
        raise UsageError(f"spacing: found {numbers}, expected 3 numbers above 0")
    return numbers


def _voxels(stored, slope, intercept):
    """int16 and float32 arrays as they are; of others a copy: small integers as int16, all else as the
    values they stand for, in float32."""
    native = stored.dtype.newbyteorder("=")
    if native.kind not in "biuf":
        raise InputError(f"image: found numbers of type {stored.dtype}, expected integers or floats")
    if native.kind in "biu" and (native.itemsize == 1 or native == np.int16):
        kept = np.int16
    elif native == np.float32 and slope == 1 and intercept == 0:
        kept = np.float32
    else:
        values = np.empty_like(stored, dtype=np.float32, subok=False)
        for k, slab in enumerate(stored):
            # In double precision, as a file is read.
            values[k] = slab.astype(np.float64) * slope + intercept
        return values, 1.0, 0.0
    apart = any(stride % stored.dtype.itemsize for stride in stored.strides)
    if stored.dtype != kept or not stored.flags.aligned or apart:
        stored = np.array(stored, dtype=kept, order="K")
    return stored, slope, intercept
