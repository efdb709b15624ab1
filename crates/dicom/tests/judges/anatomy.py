"""Judges objects of a whole anatomy: `anatomy.py CT.nii.gz LABELS.nii.gz CONVERT WRITE SCRATCH`.

A series is made of the CT, read back (voxels and affine must be the NIfTI file's), and a segmentation
and a structure set of the labels are recovered by highdicom, dcmqi and plastimatch.
"""

import json
import pathlib
import sys

import nibabel
import numpy as np
import SimpleITK

import base
import written


def series(image, folder):
    """Axial slices, from the lowest: arrays [z, y, x] of CT and how labels follow."""
    # To left, posterior, superior axes, in which slices are written.
    image = nibabel.as_closest_canonical(image)
    hu = np.asarray(image.dataobj)[::-1, ::-1].T.round().astype(np.int32)
    affine = image.affine @ np.diag([-1, -1, 1, 1])
    affine[:3, 3] += image.affine[:3, :2] @ (np.array(image.shape[:2]) - 1)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for k, plane in enumerate(hu):
        ds = base.header(*plane.shape, spacing=1)
        row, column = affine[:3, 0] / spacing[0] * [-1, -1, 1], affine[:3, 1] / spacing[1] * [-1, -1, 1]
        position = (affine @ [0, 0, k, 1])[:3] * [-1, -1, 1]
        ds.ImageOrientationPatient = [f"{v:.10g}" for v in [*row, *column]]
        ds.ImagePositionPatient = [f"{v:.10g}" for v in position]
        ds.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]
        ds.SliceThickness = f"{spacing[2]:.10g}"
        ds.SOPInstanceUID = base.uid("anatomy", k)
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 1, 16, 15
        ds.RescaleIntercept, ds.InstanceNumber = "0", str(k + 1)
        ds.PixelData = plane.astype("<i2").tobytes()
        base.save(folder, [base.with_meta(ds)], name=f"IM{k:04d}.dcm")
    return hu


def main():
    ct, seg = nibabel.load(sys.argv[1]), nibabel.load(sys.argv[2])
    convert, write, scratch = (pathlib.Path(a) for a in sys.argv[3:6])
    folder = scratch / "series"
    hu = series(ct, folder)
    labels = np.asarray(nibabel.as_closest_canonical(seg).dataobj)[::-1, ::-1].T.astype(np.uint8)
    labels = np.ascontiguousarray(labels)
    segments = [{"id": int(k), "name": f"structure_{k}", "kind": ["85756007", "SCT", "Tissue"]}
                for k in range(1, labels.max() + 1)]
    written.run(convert, folder, scratch / "volume.nii")
    volume = nibabel.load(scratch / "volume.nii")
    assert np.array_equal(np.asarray(volume.dataobj).T, hu), "other voxels"
    ours = {tuple(v) for v in np.abs(volume.affine[:3, :3]).round(4).tolist()}
    theirs = {tuple(v) for v in np.abs(ct.affine[:3, :3]).round(4).tolist()}
    assert ours == theirs, f"another affine: {ours}, not {theirs}"
    labels.tofile(scratch / "labels.u8")
    (scratch / "segments.json").write_text(json.dumps(segments))
    print(written.run(write, folder, scratch / "labels.u8", scratch / "segments.json", scratch,
                      "labelmap", "binary", "rtstruct"))
    for kind in ("labelmap", "binary"):
        written.check_highdicom(scratch / f"{kind}.dcm", labels, volume.affine)
        written.check_dcmqi(scratch / f"{kind}.dcm", scratch / f"dcmqi_{kind}", labels, volume.affine)
        print(f"{kind}: {len(np.unique(labels)) - 1} structures recovered to the bit")
    (scratch / "rtstruct").mkdir(exist_ok=True)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    SimpleITK.WriteImage(SimpleITK.ReadImage(names), scratch / "rtstruct" / "ct.nii")
    written.check_plastimatch(folder, scratch / "rtstruct.dcm", scratch / "rtstruct", labels,
                              volume.affine, segments)


main()
