"""Small synthetic images, in NIfTI headers both usual and awkward."""

import gzip
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "golden"))
import volumes  # noqa: E402


def boxed(shape, low, high, seed):
    """Zero around a box, as after defacing or outside a scanner's field of view."""
    data = np.zeros(shape, np.int16)
    inner = volumes.hounsfield([b - a for a, b in zip(low, high)], seed)
    data[tuple(slice(a, b) for a, b in zip(low, high))] = np.where(inner == 0, 1, inner)
    return data


def with_hole(data, low, high):
    """An enclosed block of zeros: the reference fills it before it takes the mask."""
    data = data.copy()
    data[tuple(slice(a, b) for a, b in zip(low, high))] = 0
    return data


def scan(seed, shape=(30, 28, 16), sigma=2.5):
    return volumes.hounsfield(shape, seed, sigma)


def magnetic(shape, seed):
    """A second channel in arbitrary units."""
    return (volumes.hounsfield(shape, seed, 3.0) // 4 + 300).astype(np.int16)


BOX = ((50, 46, 24), (7, 10, 3), (41, 43, 20))
# name -> (axis codes, spacing xyz, voxels xyz, further arguments of volumes.write)
IMAGES = {
    "plain": ("LPS", (1.2, 1.2, 2.5), lambda: scan(501, (66, 62, 24), 3.0), {}),
    "box": ("LPS", (1.4, 1.5, 2.6), lambda: with_hole(boxed(*BOX, 502), (20, 20, 8), (27, 28, 13)), {}),
    "box_mr": ("LPS", (1.4, 1.5, 2.6), lambda: np.where(boxed(*BOX, 502) == 0, 0, magnetic(BOX[0], 503)).astype(np.int16), {}),
    "thick": ("LPS", (0.9, 0.9, 5.0), lambda: scan(504, (48, 44, 10), 3.0), {}),
    "tall": ("LPS", (2.4, 1.3, 1.4), lambda: scan(505, (24, 46, 38), 2.5), {}),
    "small": ("LAS", (1.9, 2.1, 3.2), lambda: scan(506, (17, 15, 9)), {}),
    "small_box": ("LAS", (1.9, 2.1, 3.2), lambda: boxed((22, 20, 13), (3, 2, 2), (20, 17, 11), 510), {}),
    "zeros": ("LPS", (1.5, 1.5, 3.0), lambda: np.zeros((20, 18, 10), np.int16), {}),
    "oblique": ("PIR", (1.7, 1.6, 2.4), lambda: scan(507, (26, 24, 28)), {"tilt_degrees": 12.0}),
    "flipped": ("RAS", (1.6, 1.7, 2.6), lambda: scan(508, (32, 30, 20)), {}),
    "scaled": ("LPS", (1.8, 1.9, 2.7), lambda: (2 * scan(509, (28, 26, 16)) + 405).astype(np.int16),
               {"slope": 0.5, "inter": -200.0}),
}


def edited(source, **fields):
    """The bytes of an image with header fields overwritten; see `FIELDS`."""
    payload = bytearray(gzip.decompress(Path(source).read_bytes()))
    for name, value in fields.items():
        offset, kind = FIELDS[name]
        raw = np.asarray(value, kind).tobytes()
        payload[offset:offset + len(raw)] = raw
    return bytes(payload)


FIELDS = {"dim": (40, "<i2"), "datatype": (70, "<i2"), "bitpix": (72, "<i2"), "pixdim": (76, "<f4"),
          "slope": (112, "<f4"), "inter": (116, "<f4"), "units": (123, "u1"), "qform_code": (252, "<i2"),
          "sform_code": (254, "<i2"), "quaternion": (256, "<f4"), "offset": (268, "<f4"), "srow": (280, "<f4")}
# name -> (image it is made from, header fields)
HEADERS = {
    # The sform mirrors x and y and moves the origin; ITK prefers it at code 1, nibabel always.
    "sform_differs": ("flipped", {"sform_code": 2, "srow": [[-1.6, 0, 0, 40], [0, -1.7, 0, 30], [0, 0, 2.6, -9]]}),
    "uncoded": ("flipped", {"sform_code": 0, "qform_code": 0}),
    "slope_zero": ("scaled", {"slope": 0.0, "inter": -200.0}),
    # pixdim says 1.6 x 1.7 x 2.6 mm, the affine's columns are twice as long.
    "pixdim_differs": ("flipped", {"qform_code": 0, "srow": [[3.2, 0, 0, 1], [0, 3.4, 0, 2], [0, 0, 5.2, 3]]}),
    # Micrometers: ITK converts, nibabel does not.
    "micrometers": ("flipped", {"units": 3, "pixdim": [1, 1600, 1700, 2600],
                                "srow": [[1600, 0, 0, -31500], [0, 1700, 0, 12250], [0, 0, 2600, 100000]],
                                "offset": [-31500, 12250, 100000]}),
    # Sheared: ITK falls back to the qform, nibabel takes it as it is.
    "sheared": ("flipped", {"srow": [[1.6, 0.4, 0, -31.5], [0, 1.7, 0, 12.25], [0, 0, 2.6, 100]]}),
}


def write_gz(path, payload):
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        out.write(payload)


def write_all(folder):
    folder.mkdir(exist_ok=True)
    for name, (codes, spacing, voxels, more) in IMAGES.items():
        volumes.write(folder / f"{name}.nii.gz", voxels(), codes, spacing, **more)
    for name, (source, fields) in HEADERS.items():
        write_gz(folder / f"{name}.nii.gz", edited(folder / f"{source}.nii.gz", **fields))
