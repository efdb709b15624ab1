"""Small NIfTI files in chosen orientations."""

import gzip

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt

from common import smooth


def affine(codes, spacing_xyz, origin, tilt_degrees=0.0):
    """A RAS+ affine whose voxel axes point along `codes`, tilted about x and then about z."""
    a = np.eye(4)
    a[:3, :3] = 0
    for column, (row, sign) in enumerate(axcodes2ornt(codes)):
        a[int(row), column] = sign * spacing_xyz[column]
    if tilt_degrees:
        c, s = np.cos(np.radians(tilt_degrees)), np.sin(np.radians(tilt_degrees))
        about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        a[:3, :3] = about_z @ about_x @ a[:3, :3]
    a[:3, 3] = origin
    return a


def write(path, data_xyz, codes, spacing_xyz, origin=(-31.5, 12.25, 100.0), tilt_degrees=0.0,
          slope=None, inter=None):
    """int16 voxels; sform and qform both coded 1 and agreeing."""
    assert data_xyz.dtype == np.int16
    a = affine(codes, spacing_xyz, origin, tilt_degrees)
    image = nib.Nifti1Image(data_xyz, a)
    image.set_sform(a, 1)
    image.set_qform(a, 1)
    image.header.set_xyzt_units("mm", "sec")
    payload = bytearray(image.to_bytes())
    if slope is not None:
        # nibabel would rescale the voxels to fit; `data_xyz` is what lies on disk.
        payload[112:120] = np.array([slope, inter], "<f4").tobytes()
    # mtime=0 keeps the compressed bytes the same on every run.
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        out.write(bytes(payload))


def hounsfield(shape_xyz, seed, sigma=2.5):
    """A smooth field around soft tissue with air and bone in it, and a little white noise."""
    field = 60 + 320 * smooth(shape_xyz, seed, sigma)
    field += 3 * np.random.default_rng(seed + 1).standard_normal(shape_xyz)
    return np.round(np.clip(field, -1000, 1500)).astype(np.int16)
