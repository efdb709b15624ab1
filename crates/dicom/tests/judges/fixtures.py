"""Writes tests/fixtures: every kind of series of the phantom, each a compressed zip, and what they must read
as. Regular ones carry SimpleITK's voxels and affine (pydicom's where SimpleITK reads none).

    fixtures.py FIXTURES
"""

import hashlib
import io
import json
import pathlib
import shutil
import sys
import tempfile
import zipfile
import zlib

import base
import odd
import read
import regular


def packed(folder, path):
    """A folder's files, stored in a zip and compressed as one: they are much alike. They have one
    date, so that the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            info = zipfile.ZipInfo(str(file.relative_to(folder)), (2024, 1, 2, 0, 0, 0))
            archive.writestr(info, file.read_bytes())
    path.write_bytes(zlib.compress(buffer.getvalue(), 9))


def golden(folder, out):
    try:
        voxels, affine = read.itk(folder)
    except RuntimeError:
        voxels, affine = read.pydicom_series(folder)
    data = zlib.compress(voxels.astype("<f4").tobytes(), 9)
    name = hashlib.sha256(data).hexdigest()[:12]
    (out / name).write_bytes(data)
    affine = None if affine is None else affine[:3].tolist()
    return {"voxels": name, "shape": voxels.shape, "affine": affine}


def main():
    out = pathlib.Path(sys.argv[1])
    for group, kinds in (("regular", regular.KINDS), ("odd", odd.KINDS)):
        shutil.rmtree(out / group, ignore_errors=True)
        (out / group).mkdir(parents=True)
        if group == "regular":
            shutil.rmtree(out / "golden", ignore_errors=True)
            (out / "golden").mkdir()
        about = {}
        for name, (make, expected) in kinds.items():
            with tempfile.TemporaryDirectory() as scratch:
                folder = pathlib.Path(scratch) / name
                folder.mkdir()
                make(base.of_phantom(), folder)
                packed(folder, out / group / f"{name}.zip.z")
                about[name] = dict(expected)
                if group == "regular":
                    about[name] |= golden(folder, out / "golden")
                    slopes = [float(ds.RescaleSlope) for ds in read.headers(folder)
                              if "RescaleSlope" in ds]
                    about[name]["stored_unit"] = max(slopes, default=1.0)
        (out / f"{group}.json").write_text(json.dumps(about, indent=1) + "\n")


main()
