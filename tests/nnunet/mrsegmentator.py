"""What MRSegmentator itself makes of a trained folder: it turns images to LPS, whatever the plans say.

usage: mrsegmentator.py     (in the environment of make.py, with `pip install --no-deps mrsegmentator==2.0.0`)

Writes images/turned.nii.gz, the plain image with its axes in another order and direction, and
expected/mrsegmentator.nii.gz, from its command line on the plain model.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib

HERE = Path(__file__).resolve().parent


def main():
    plain = nib.load(HERE / "images/plain.nii.gz")
    start = nib.io_orientation(plain.affine)
    turned = plain.as_reoriented(nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt("PIR")))
    nib.save(turned, HERE / "images/turned.nii.gz")
    [model] = (HERE / "models/Dataset001_Plain").iterdir()
    with tempfile.TemporaryDirectory() as out:
        code = "import sys; from mrsegmentator.main import main; sys.exit(main())"
        words = ["-i", HERE / "images/turned.nii.gz", "-o", out, "--cpu_only", "--fold", "0", "--nproc", "1", "--nproc_export", "1"]
        environment = {**os.environ, "MRSEG_WEIGHTS_PATH": str(model)}
        subprocess.run([sys.executable, "-c", code, *map(str, words)], env=environment, check=True)
        shutil.copy(Path(out) / "turned_seg.nii.gz", HERE / "expected/mrsegmentator.nii.gz")


if __name__ == "__main__":
    main()
