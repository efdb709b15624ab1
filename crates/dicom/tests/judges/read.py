"""Compares volumes of regular series with SimpleITK's: `read.py KINDS PROGRAM`.

KINDS is the folder make.py wrote, PROGRAM the example `convert`.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import nibabel
import numpy as np
import pydicom
import SimpleITK


def itk(folder):
    """Voxels [z, y, x] and RAS affine as SimpleITK has them."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    multi = len(names) == 1
    image = SimpleITK.ReadImage(names[0] if multi else names, SimpleITK.sitkFloat64)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return SimpleITK.GetArrayFromImage(image), affine


def pydicom_series(folder):
    """The same by pydicom, for what SimpleITK does not read."""
    slices = [pydicom.dcmread(p) for p in sorted(folder.iterdir())]
    slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    voxels = [ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices]
    return np.array(voxels), None


def headers(folder):
    return [pydicom.dcmread(p, stop_before_pixels=True) for p in sorted(folder.iterdir())]


def main():
    kinds, program = pathlib.Path(sys.argv[1]), sys.argv[2]
    failed = []
    for name, about in json.loads((kinds / "regular.json").read_text()).items():
        folder = kinds / "regular" / name
        with tempfile.TemporaryDirectory() as scratch:
            out = pathlib.Path(scratch) / "ours.nii"
            done = subprocess.run([program, str(folder), str(out)], capture_output=True, text=True)
            if done.returncode:
                print(f"{name}: FAILED: {done.stderr.strip()}")
                failed.append(name)
                continue
            image = nibabel.load(out)
            voxels, affine = np.asarray(image.dataobj).T, image.affine
        judge = "SimpleITK"
        try:
            expected, expected_affine = itk(folder)
        except RuntimeError:
            judge = "pydicom"
            expected, expected_affine = pydicom_series(folder)
        slope = 1.0
        if about.get("lossy"):
            slope = max(float(ds.RescaleSlope) for ds in headers(folder))
        off = np.abs(voxels.astype(np.float64) - expected.astype(np.float32)).max()
        moved = 0 if expected_affine is None else np.abs(affine - expected_affine).max()
        right = voxels.shape == expected.shape and off <= (slope * 1.001 if about.get("lossy") else 0) and moved < 1e-4
        print(f"{name}: {judge}: {off:g} apart, affine {moved:.1e}{'' if right else ': FAILED'}")
        if not right:
            failed.append(name)
    print(f"{len(failed)} failed: {failed}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
