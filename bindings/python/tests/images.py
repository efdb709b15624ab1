"""The wheel beside nibabel and SimpleITK, whose images it takes and gives: `python images.py PROGRAM`."""

import os
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

import common
import fastnnunet
from common import OPTIONS, TESTS, command_line, raises
from fastnnunet import _images
from fastnnunet.nnunet import nnUNetPredictor

FOLDER = TESTS / "nnunet/models/Dataset001_Plain/nnUNetTrainer__nnUNetPlans__3d_fullres"


def nibabel_images_come_back_as_such():
    segmenter = fastnnunet.Segmenter(**OPTIONS)
    golden = [f"golden/case/input_{name}" for name in ("plain", "scaled", "oblique", "pir")]
    for name in [*golden, "nnunet/images/micrometers"]:
        path = TESTS / f"{name}.nii.gz"
        with tempfile.TemporaryDirectory() as folder:
            expected = nibabel.load(command_line(folder, path))
            image = nibabel.load(path)
            found = segmenter.segment(image).image
            assert type(found) is nibabel.Nifti1Image and found.get_data_dtype() == expected.get_data_dtype()
            assert np.array_equal(found.dataobj, expected.dataobj), name
            assert np.array_equal(found.affine, image.affine) and found.shape == image.shape
            nibabel.save(found, Path(folder, "own.nii.gz"))
            kept = nibabel.load(Path(folder, "own.nii.gz"))
            assert np.array_equal(kept.get_fdata(), expected.get_fdata()), name
            assert kept.header.get_zooms() == image.header.get_zooms()
            # As it is in memory, not in a file.
            memory = nibabel.Nifti1Image(image.get_fdata(), image.affine, image.header)
            assert np.array_equal(segmenter.segment(memory).image.dataobj, expected.dataobj), name
    raises(fastnnunet.UsageError, "has its own", lambda: segmenter.segment(memory, spacing=(1, 1, 1)))


def simpleitk_images_come_back_as_such():
    segmenter = fastnnunet.Segmenter(**OPTIONS)
    for name in ["golden/case/input_plain", "golden/case/input_oblique", "golden/case/input_sla"]:
        path = TESTS / f"{name}.nii.gz"
        with tempfile.TemporaryDirectory() as folder:
            expected = SimpleITK.ReadImage(str(command_line(folder, path)))
            image = SimpleITK.ReadImage(str(path))
            found = segmenter.segment(image).image
            assert type(found) is SimpleITK.Image
            assert np.array_equal(SimpleITK.GetArrayFromImage(found), SimpleITK.GetArrayFromImage(expected)), name
            for what in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
                assert getattr(found, what)() == getattr(image, what)(), what
    raises(fastnnunet.UsageError, "has its own", lambda: segmenter.segment(image, affine=np.eye(4)))
    flat = SimpleITK.Image([8, 8], SimpleITK.sitkInt16)
    raises(fastnnunet.InputError, "2 axes", lambda: segmenter.segment(flat))
    vectors = SimpleITK.Image([8, 8, 8], SimpleITK.sitkVectorFloat32, 2)
    raises(fastnnunet.InputError, "2 numbers per voxel", lambda: segmenter.segment(vectors))


def images_are_lent_and_not_copied():
    image = SimpleITK.ReadImage(str(TESTS / "fixtures/chest.nii.gz"))
    assert np.shares_memory(_images.lend(image).voxels, SimpleITK.GetArrayViewFromImage(image))
    with tempfile.TemporaryDirectory() as folder:
        name = f"{folder}/chest.nii"
        SimpleITK.WriteImage(image, name)
        mapped = _images.lend(nibabel.load(name)).voxels
        assert isinstance(mapped, np.memmap) and mapped.dtype == np.int16 and mapped.shape == image.GetSize()[::-1]
        memory = nibabel.Nifti1Image(np.array(mapped.T), np.eye(4))
        assert np.shares_memory(_images.lend(memory).voxels, memory.dataobj)


def predictor_stands_in_for_that_of_nnunet():
    image = TESTS / "nnunet/images/plain.nii.gz"
    options = {"precision": "f32"}
    predictor = nnUNetPredictor(use_mirroring=False, device="cpu", **options)
    raises(fastnnunet.UsageError, "initialize", lambda: predictor.predict_from_files([[str(image)]], None))
    predictor.initialize_from_trained_model_folder(str(FOLDER), use_folds=(0,))
    with tempfile.TemporaryDirectory() as folder:
        written = command_line(
            folder, image, "--model", FOLDER, "--folds", "0", "--mirror", "none", "--postprocess", "none",
            "--step-size", "0.5",
        )
        expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(written)))
        assert len(np.unique(expected)) > 1, "the case shows nothing"
        cases, results = Path(folder, "cases"), Path(folder, "results")
        cases.mkdir()
        for name in ("a", "b", "c"):
            (cases / f"{name}_0000.nii.gz").symlink_to(image)
        predictor.predict_from_files(str(cases), str(results), num_parts=2, part_id=0)
        assert sorted(os.listdir(results)) == ["a.nii.gz", "c.nii.gz"]
        predictor.predict_from_files_sequential(str(cases), str(results), overwrite=False)
        for name in ("a", "b", "c"):
            assert (results / f"{name}.nii.gz").read_bytes() == written.read_bytes(), name

        (found,) = predictor.predict_from_files([[str(image)]], None)
        assert np.array_equal(found, expected)
        # As nnU-Net's SimpleITKIO reads it.
        read = SimpleITK.ReadImage(str(image))
        stuff = {"spacing": read.GetSpacing(), "origin": read.GetOrigin(), "direction": read.GetDirection()}
        array = SimpleITK.GetArrayFromImage(read)[None].astype(np.float32)
        properties = {"sitk_stuff": stuff, "spacing": [abs(s) for s in read.GetSpacing()[::-1]]}
        assert np.array_equal(predictor.predict_single_npy_array(array, properties), expected)
        both = predictor.predict_from_list_of_npy_arrays([array, array], None, [properties] * 2, None)
        assert len(both) == 2 and all(np.array_equal(each, expected) for each in both)
    single = predictor.predict_single_npy_array
    raises(NotImplementedError, "probabilities", lambda: single(array, properties, None, None, True))
    raises(NotImplementedError, "cascade", lambda: single(array, properties, array[0]))


if __name__ == "__main__":
    common.run(dict(globals()), *sys.argv[1:])
