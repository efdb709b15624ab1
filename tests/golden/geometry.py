"""Stages `orient` and `crop`."""

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

import volumes
from common import Stage


def orient():
    stage = Stage("orient")
    files = [
        ("las", "LAS", (5, 6, 7), (0.75, 1.25, 2.5), 0.0),
        ("ras", "RAS", (7, 5, 4), (1.5, 1.0, 3.0), 0.0),
        ("lps", "LPS", (6, 4, 5), (0.9, 0.8, 1.2), 0.0),
        ("pir", "PIR", (4, 7, 6), (0.5, 2.0, 1.0), 0.0),
        ("sla", "SLA", (3, 6, 8), (5.0, 0.7, 0.6), 0.0),
        ("oblique", "LAS", (6, 7, 5), (1.1, 0.9, 3.3), 12.0),
        ("oblique_pir", "PIR", (5, 4, 6), (1.1, 0.9, 3.3), 12.0),
        ("one_slice", "LAS", (6, 7, 1), (1.0, 0.5, 4.0), 0.0),
    ]
    for name, codes, shape, spacing, tilt in files:
        # Every voxel has its own value, so a wrong flip or swap cannot hide.
        data = (np.arange(np.prod(shape)).reshape(shape) * 7 - 500).astype(np.int16)
        file = f"{name}.nii.gz"
        volumes.write(stage.folder / file, data, codes, spacing, tilt_degrees=tilt)
        itk = sitk.ReadImage(str(stage.folder / file))
        canonical = nib.as_closest_canonical(nib.load(stage.folder / file))
        ras = np.asarray(canonical.dataobj).transpose(2, 1, 0)
        for target, image in (("native", itk), ("LPS", sitk.DICOMOrient(itk, "LPS")),
                              ("RAS", sitk.DICOMOrient(itk, "RAS"))):
            array = sitk.GetArrayFromImage(image)
            step = image.GetSpacing()[::-1]
            if target == "RAS":
                assert np.array_equal(array, ras), file
                zooms = np.array(canonical.header.get_zooms()[::-1], float)
                assert np.allclose(step, zooms, atol=1e-6), file
                array, step = ras, zooms
            stage.add("cases", name=f"{name}_{target.lower()}", file=file, codes=codes, target=target,
                      by="nibabel" if target == "RAS" else "SimpleITK",
                      expected=stage.save(f"{name}_{target.lower()}", array.astype(np.int16)),
                      shape=array.shape, spacing=step,
                      itk_origin_xyz=image.GetOrigin(), itk_direction=image.GetDirection())
    stage.close()


def crop():
    stage = Stage("crop")

    def zeros(*shape):
        return np.zeros(shape, np.float32)

    cases = {}
    a = zeros(1, 8, 9, 10)
    a[0, 2:5, 3:8, 1:9] = 40
    cases["box"] = a
    a = zeros(1, 9, 9, 9)
    a[0, 1:8, 1:8, 1:8] = -3
    a[0, 3:6, 3:6, 3:6] = 0
    cases["enclosed_hole"] = a
    a = a.copy()
    a[0, 0:4, 4, 4] = 0
    cases["hole_open_to_outside"] = a
    a = zeros(1, 7, 7, 7)
    a[0, 1:6, 1:6, 1:6] = 5
    a[0, 2:5, 2:5, 2:5] = 0
    a[0, 1, 1, 1:6] = 0
    a[0, 2, 1, 1] = 0
    cases["hole_touching_outside_by_edge_only"] = a
    a = zeros(2, 6, 7, 8)
    a[0, 1, 2, 3] = 1
    a[1, 4, 5, 6] = -1
    cases["two_channels"] = a
    cases["empty"] = zeros(1, 4, 5, 6)
    a = zeros(1, 1, 9, 9)
    a[0, 0, 2:7, 1:8] = 9
    a[0, 0, 4, 4] = 0
    cases["one_slice_keeps_its_hole"] = a
    cases["full"] = zeros(1, 3, 4, 5) + 2
    a = zeros(1, 5, 5, 5)
    a[0, 4, 4, 4] = 1e-30
    cases["last_corner"] = a
    a = zeros(1, 5, 6, 7)
    a[0, 2, 3, 4] = np.nan
    a[0, 3, 1, 2] = -0.0
    cases["nan_counts_minus_zero_does_not"] = a
    a = zeros(1, 8, 10, 12)
    a[np.random.default_rng(5).random(a.shape) < 0.5] = 1
    a[:, :, :2] = 0
    a[:, 7] = 0
    cases["random_holes"] = a

    for name, a in cases.items():
        cropped, seg, bbox = crop_to_nonzero(a.copy())
        stage.add("cases", name=name, input=stage.save(name, a), bbox=bbox,
                  shape_after=cropped.shape[1:], seg=stage.save(f"{name}_seg", seg[0].astype(np.int8)))
    stage.close()
