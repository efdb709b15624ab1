"""Judges what the built program writes, by the judges of written.py.

    program.py PROGRAM SERIES FOLDER [ARGUMENT...]

SERIES is a folder with one suitable series; the arguments go to the program, such as `--mode bone`. The
label map it writes as NIfTI is the truth that every object of the same run is held against.
"""

import json
import pathlib
import sys

import nibabel
import numpy as np
import pydicom
import SimpleITK

from written import (check_dcmqi, check_highdicom, check_plastimatch, check_report, dciodvfy, run)

TYPES = ["nifti", "dicom-seg", "rtstruct", "sr", "sc"]


def hounsfield(series):
    """Values [z, y, x] as SimpleITK reads them."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    return SimpleITK.GetArrayFromImage(reader.Execute()).astype(np.float64)


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
            check_highdicom(path, numbers, image.affine)
            check_dcmqi(path, scratch / "dcmqi", numbers, image.affine)
        if kind == "sr":
            check_report(path, scratch, labels, hounsfield(series), image.affine, segments)
            reference = pydicom.dcmread(files["dicom-seg"]).SOPInstanceUID
            assert reference in str(pydicom.dcmread(path)), "the report refers to another segmentation"
        if kind == "rtstruct":
            volume = nibabel.Nifti1Image(hounsfield(series).T.astype(np.float32), image.affine)
            nibabel.save(volume, scratch / "ct.nii")
            check_plastimatch(series, path, scratch, labels, image.affine, segments)
        if kind == "sc":
            picture = pydicom.dcmread(path).pixel_array
            assert picture.ndim == 3 and picture.std() > 5, "no picture"
        print(f"{kind}: accepted")


if __name__ == "__main__":
    main()
