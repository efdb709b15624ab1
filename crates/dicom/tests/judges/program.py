"""Judges what the built program writes, by the judges of written.py.

    program.py PROGRAM SERIES FOLDER [ARGUMENT...]

SERIES is a folder with one suitable series; the arguments go to the program, such as `--mode bone`. The
label map it writes as NIfTI is the truth that every object of the same run is held against; of the same
series as NIfTI, made by SimpleITK, it must be the same.
"""

import json
import pathlib
import sys

import nibabel
import numpy as np
import pydicom
import SimpleITK

import read
from written import (check_dcmqi, check_highdicom, check_plastimatch, check_report, check_tracking,
                     dciodvfy, run)

TYPES = ["nifti", "dicom-seg", "rtstruct", "sr", "sc"]


def segment(program, series, folder, *arguments):
    """Runs the program; returns its summary and the files by type."""
    summary = json.loads(run(program, "-i", series, "-o", folder, "--overwrite", "--json", *arguments))
    return summary, {output["type"]: pathlib.Path(output["path"]) for output in summary["outputs"]}


def main():
    program, series, folder = (pathlib.Path(a) for a in sys.argv[1:4])
    arguments = sys.argv[4:]
    types = [word for name in TYPES for word in ("--output-type", name)]
    summary, files = segment(program, series, folder, *types, *arguments)
    labelmap = ["--output-type", "dicom-seg", "--seg-encoding", "labelmap"]
    _, second = segment(program, series, folder / "labelmap", *labelmap, *arguments)

    image = nibabel.load(files["nifti"])
    labels = np.asarray(image.dataobj).T.astype(np.uint8)
    segments = [{"id": s["id"], "name": s["name"]} for s in summary["labels"]]
    hounsfield, affine = read.itk(series)
    assert np.abs(image.affine - affine).max() < 1e-4, "another affine"
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
    names = names if len(names) > 1 else names[0]
    SimpleITK.WriteImage(SimpleITK.ReadImage(names), folder / "simpleitk.nii.gz")
    _, nifti = segment(program, folder / "simpleitk.nii.gz", folder / "nifti",
                       "--output-type", "nifti", *arguments)
    same = np.asarray(nibabel.load(nifti["nifti"]).dataobj).T
    assert np.array_equal(same, labels), f"{(same != labels).sum()} labels differ from those of the NIfTI"
    print("nifti: the same labels of SimpleITK's NIfTI")
    found = np.unique(labels)[1:]
    print(f"{len(found)} of {len(segments)} structures in {labels.shape}")
    # BINARY numbers segments from 1 without a gap.
    place = np.zeros(256, np.uint8)
    for number, structure in enumerate(sorted(s["id"] for s in segments), 1):
        place[structure] = number
    known = set()
    for path in series.iterdir():
        known |= dciodvfy(path)
    kinds = {**files, "labelmap": second["dicom-seg"]}
    for kind, path in kinds.items():
        if kind == "nifti":
            continue
        errors = dciodvfy(path) - known
        assert not errors, f"{kind}: dciodvfy: {sorted(errors)}"
        scratch = folder / f"judged_{kind}"
        scratch.mkdir(exist_ok=True)
        if kind in ("dicom-seg", "labelmap"):
            numbers = labels if kind == "labelmap" else place[labels]
            check_highdicom(path, numbers, affine)
            check_dcmqi(path, scratch / "dcmqi", numbers, affine)
        if kind == "sr":
            check_report(path, scratch, labels, hounsfield, affine, segments)
            check_tracking(path, [files["dicom-seg"], second["dicom-seg"]])
        if kind == "rtstruct":
            ct = nibabel.Nifti1Image(hounsfield.T.astype(np.float32), affine)
            nibabel.save(ct, scratch / "ct.nii")
            check_plastimatch(series, path, scratch, labels, affine, segments)
        if kind == "sc":
            picture = pydicom.dcmread(path).pixel_array
            assert picture.ndim == 3 and picture.std() > 5, "no picture"
        print(f"{kind}: accepted")


if __name__ == "__main__":
    main()
