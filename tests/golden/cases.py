"""Stage `case`: whole cases through nnU-Net's own predictor on the CPU."""

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

import check
import network
import reference
import volumes
from common import ROOT, Stage, write_json


def boxed(shape, low, high, seed):
    data = np.zeros(shape, np.int16)
    inner = volumes.hounsfield([b - a for a, b in zip(low, high)], seed)
    data[tuple(slice(a, b) for a, b in zip(low, high))] = np.where(inner == 0, 1, inner)
    return data


# name -> (axis codes, spacing xyz, voxels xyz, further arguments of volumes.write)
INPUTS = {
    "plain": ("LAS", (0.9, 0.9, 2.5), lambda: volumes.hounsfield((60, 52, 20), 401, 3.0), {}),
    "pir": ("PIR", (1.6, 2.5, 1.4), lambda: volumes.hounsfield((34, 22, 38), 402), {}),
    "sla": ("SLA", (2.5, 1.5, 1.4), lambda: volumes.hounsfield((22, 36, 38), 403), {}),
    "box": ("LAS", (1.5, 1.4, 2.5), lambda: boxed((60, 56, 36), (9, 20, 6), (44, 53, 29), 404), {}),
    "thick": ("LPS", (0.8, 0.8, 5.0), lambda: volumes.hounsfield((46, 44, 12), 405, 2.5), {}),
    "small": ("RAS", (1.9, 2.1, 3.2), lambda: volumes.hounsfield((17, 15, 9), 406), {}),
    "zeros": ("LAS", (1.5, 1.5, 3.0), lambda: np.zeros((20, 18, 10), np.int16), {}),
    "scaled": ("LAS", (2.0, 1.8, 2.7), lambda: (2 * volumes.hounsfield((32, 34, 19), 407) + 405).astype(np.int16),
               {"slope": 0.5, "inter": -200.0}),
    "oblique": ("LAS", (1.7, 1.6, 2.8), lambda: volumes.hounsfield((32, 30, 18), 408), {"tilt_degrees": 12.0}),
}
FINE = {"target_spacing": [2.0, 1.2, 1.2]}
# (name, input, what differs from config/3d_fullres/selftest.json)
CASES = [
    ("plain", "plain", {}),
    ("reorient_ras", "pir", {"orientation": "RAS"}),
    ("reorient_lps", "sla", {"orientation": "LPS"}),
    ("reorient_lps_oblique", "oblique", {"orientation": "LPS"}),
    ("crop", "box", {"crop_to_nonzero": True}),
    ("separate_z", "thick", {"target_spacing": [4.0, 1.2, 1.2]}),
    ("mirror", "plain", {"mirror_axes": [0, 1, 2]}),
    ("mirror_one_axis", "small", {"mirror_axes": [2]}),
    ("step_size", "plain", {"step_size": 0.7, **FINE}),
    ("no_gaussian", "plain", {"use_gaussian": False, **FINE}),
    ("smaller_than_patch", "small", {}),
    ("all_zero", "zeros", {}),
    ("transpose", "plain", {"transpose_forward": [2, 0, 1], "patch_size": [24, 16, 24], "target_spacing": [1.6, 2.6, 1.8]}),
    ("zscore", "box", {"normalization": "ZScoreNormalization"}),
    ("scaled_int16", "scaled", {}),
]


def predict(config, source, folder, net):
    """The reference's label map for `source`, as an image on the grid of `source`."""
    orientation = config["orientation"]
    reader = "SimpleITKIOWithReorient" if orientation == "RAS" else "SimpleITKIO"
    model = reference.predictor(config, folder / "model", net, reader)
    given = sitk.ReadImage(str(source))
    original = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(given.GetDirection())
    if orientation == "LPS":
        source = folder / "lps.nii.gz"
        sitk.WriteImage(sitk.DICOMOrient(given, "LPS"), str(source))
    reference.predict(model, source, folder / "labels.nii.gz")
    labels = sitk.ReadImage(str(folder / "labels.nii.gz"))
    if orientation == "LPS":
        labels = sitk.DICOMOrient(labels, original)
    assert labels.GetSize() == given.GetSize()
    for got, expected in ((labels.GetSpacing(), given.GetSpacing()), (labels.GetOrigin(), given.GetOrigin()),
                          (labels.GetDirection(), given.GetDirection())):
        assert np.allclose(got, expected, atol=1e-4)
    return labels, model, source


def case():
    torch.set_num_threads(1)
    stage = Stage("case")
    net = network.build()
    payload = (ROOT / "models/selftest.onnx").read_bytes()
    assert payload == network.to_onnx(net), "run the network stage first"
    for name, (codes, spacing, voxels, more) in INPUTS.items():
        volumes.write(stage.folder / f"input_{name}.nii.gz", voxels(), codes, spacing, **more)
    for name, source, differs in CASES:
        config = {**network.CONFIG, **differs}
        write_json(stage.folder / f"{name}.json", config)
        with tempfile.TemporaryDirectory() as folder:
            labels, model, seen = predict(config, stage.folder / f"input_{source}.nii.gz", Path(folder), net)
            array = sitk.GetArrayFromImage(labels)
            between = {}
            if name in ("smaller_than_patch", "reorient_lps_oblique"):
                data, logits = check.stages(model, seen)
                between = {"preprocessed": stage.save(f"{name}_preprocessed", data),
                           "logits": stage.save(f"{name}_logits", logits)}
            agreement, tiles = check.agreement(model, seen, payload, Path(folder) / "labels.nii.gz")
        assert array.dtype == np.uint8
        shares = np.bincount(array.ravel(), minlength=4) / array.size
        stage.add("cases", name=name, input=f"input_{source}.nii.gz", codes=INPUTS[source][0], config=f"{name}.json",
                  differs=differs, shape=array.shape, tiles=tiles, class_shares=np.round(shares, 4),
                  agreement={k: round(v, 5) for k, v in agreement.items()},
                  expected=stage.save(f"{name}_expected", array), **between)
        print(f"case {name}: {array.shape}, {tiles} tiles, shares {np.round(shares, 3)}, agreement {agreement}")
    stage.close()
