"""What the tests of the wheel share: a case, what the command line makes of it, and how they are run."""

import gzip
import subprocess
import time
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[3] / "tests"
PLAIN = TESTS / "golden/case/input_plain.nii.gz"
OPTIONS = {"model": "selftest", "precision": "f32", "threads": 2}


def command_line(folder, image, *options):
    """The file that the command line writes of an image."""
    output = Path(folder) / "command_line.nii.gz"
    options = options or ("--model", "selftest")
    subprocess.run(
        [PROGRAM, "--input", image, "--output", output, *options, "--precision", "f32", "--overwrite"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return output


def voxels(image):
    """int16 or other numbers `[z, y, x]`, affine and spacing of a plain NIfTI file, without a library."""
    data = gzip.decompress(Path(image).read_bytes())
    header = np.frombuffer(data, "<i2", 8, 40), np.frombuffer(data, "<f4", 8, 76), np.frombuffer(data, "<f4", 12, 280)
    kind = {2: np.uint8, 4: np.int16, 8: np.int32, 16: np.float32}[int.from_bytes(data[70:72], "little")]
    start = int(np.frombuffer(data, "<f4", 1, 108)[0])
    shape = header[0][1:4]
    stored = np.frombuffer(data, kind, int(np.prod(shape)), start).reshape(shape[::-1])
    return stored, header[2].reshape(3, 4).astype(np.float64), header[1][1:4].astype(np.float64)


def raises(kind, text, call):
    try:
        call()
    except kind as error:
        assert text in str(error), f"{error!r} says nothing of {text!r}"
        return error
    raise AssertionError(f"no {kind.__name__} of {text!r}")


def run(tests, program):
    """Runs each function of a module that has no underscore."""
    global PROGRAM
    PROGRAM = str(Path(program).resolve())
    for name, test in tests.items():
        if callable(test) and getattr(test, "__module__", "") == "__main__":
            began = time.monotonic()
            test()
            print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
