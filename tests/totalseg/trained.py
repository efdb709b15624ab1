"""Agreement with TotalSegmentator on a network that is trained: the shipped student `total` in a folder of its layout.

usage: trained.py PROGRAM CT...     (in the environment of make.py)

TotalSegmentator runs as it is, 16-bit sums and all. The student learned arrays that run to left and posterior, which
TotalSegmentator turns to right and anterior; so the CT is turned half a circle about the patient's axis first.
"""
import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = Path(tempfile.mkdtemp(prefix="totalseg_trained_"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["TOTALSEG_HOME_DIR"] = str(HOME)
RESULTS = HOME / "nnunet" / "results"
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ[name] = str(RESULTS)

import nibabel as nib
import numpy as np
import onnx
import onnx.numpy_helper
import torch

sys.path.insert(0, str(HERE))
import folders

# Of all voxels. nnU-Net adds tiles up in 16 bits, which this program does not imitate.
LEAST = {"f32": 0.9998, "bf16": 0.9997}


def write_student():
    """Data set 297 with the weights of `total`; classes that it does not know never win."""
    config = json.loads((ROOT / "config/3d_fullres/total.json").read_text())
    tensors = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy())
               for t in onnx.load(ROOT / "models/total.onnx").graph.initializer}
    stages = sum(name.startswith("encoder.stages.") and name.endswith("0.convs.0.conv.weight") for name in tensors)
    features = [len(tensors[f"encoder.stages.{s}.0.convs.0.conv.weight"]) for s in range(stages)]
    intensity = config["intensity_properties"]
    folders.CT.update(intensity, min=intensity["percentile_00_5"], max=intensity["percentile_99_5"])
    image = nib.Nifti1Image(np.zeros((40, 40, 40), np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
    folders.write(RESULTS, 297, image, features=features, patch=config["patch_size"])
    [path] = RESULTS.glob("*/*/fold_0/checkpoint_final.pth")
    stored = torch.load(path, weights_only=False)
    net = folders.network(features, 118, residual=False)
    last = f"decoder.seg_layers.{stages - 2}."
    ids = [0] + [label["id"] for label in config["labels"]]
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.startswith(last):
                value.fill_(-1000.0 if value.dim() == 1 else 0.0)
                value[ids] = tensors[name]
            elif ".seg_layers." not in name:
                value.copy_(tensors[name])
    stored["network_weights"] = net.state_dict()
    torch.save(stored, path)


def turned(source, to):
    """The CT turned half a circle, its array running to left and posterior before and to right and anterior after."""
    image = nib.load(source)
    start = nib.io_orientation(image.affine)
    image = image.as_reoriented(nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt("LPS")))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj).astype(np.int16), affine), to)


def main():
    program, *images = sys.argv[1:]
    (HOME / "config.json").write_text(json.dumps(dict(
        totalseg_id="totalseg_tests", send_usage_stats=False, prediction_counter=0, statistics_disclaimer_shown=True)))
    write_student()
    from totalsegmentator.python_api import totalsegmentator
    for source in images:
        ct, theirs, ours = (HOME / name for name in ("ct.nii.gz", "theirs.nii.gz", "ours.nii.gz"))
        turned(source, ct)
        totalsegmentator(ct, theirs, ml=True, task="total", fast=True, device="cpu", nr_thr_saving=1, quiet=True)
        expected = np.asanyarray(nib.load(theirs).dataobj)
        for precision, least in LEAST.items():
            subprocess.run([program, "-i", ct, "-o", ours, "--overwrite", "--mode", "total", "--quality", "low",
                            "--models-dir", RESULTS, "--precision", precision, "--quiet"], check=True)
            found = np.asanyarray(nib.load(ours).dataobj)
            equal, either = (found == expected).mean(), (found > 0) | (expected > 0)
            within = (found == expected)[either].mean()
            print(f"{Path(source).name} {found.shape}, {precision}: {equal:.4%} of voxels equal, {within:.3%} of the "
                  f"{either.mean():.1%} that either labels; {len(np.unique(expected)) - 1} classes", flush=True)
            assert equal >= least, f"{precision}: {equal}, expected {least}"


if __name__ == "__main__":
    main()
