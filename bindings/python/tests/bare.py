"""The wheel in an environment with NumPy alone: `python bare.py PROGRAM`.

PROGRAM is the command line, and what it writes of a case is what each call is compared with.
"""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path

import numpy as np

import common
import fastnnunet
from common import OPTIONS, PLAIN, TESTS, command_line, raises, voxels
from fastnnunet import _images, _native

CHEST = TESTS / "fixtures/chest_series.nii.gz"


def package_needs_numpy_alone():
    code = "import sys, numpy; known = set(sys.modules); import fastnnunet; print(*(set(sys.modules) - known))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    # What takes the time of an import.
    assert len(loaded) < 10 and all(name.startswith("fastnnunet") for name in loaded), loaded
    assert metadata.requires("fastnnunet") == ["numpy"]
    assert metadata.version("fastnnunet") == fastnnunet.__version__


def module_is_the_program():
    def said(*command):
        done = subprocess.run([*command], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    module = (sys.executable, "-m", "fastnnunet")
    script = (str(Path(sys.executable).parent / "fastnnunet"),)
    missing = ["--input", "no.nii", "--output", "o.nii", "--mode", "bone"]
    for arguments in (["--version"], ["models", "--json"], missing):
        assert said(*module, *arguments) == said(*script, *arguments) == said(common.PROGRAM, *arguments), arguments
    assert said(*module, "--no-such-option")[0] == 2


def files_are_those_of_the_command_line():
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "labels.nii.gz")
        assert fastnnunet.segment(PLAIN, output=output, **OPTIONS) == output
        assert output.read_bytes() == command_line(folder, PLAIN).read_bytes()
        raises(fastnnunet.OutputError, "labels.nii.gz", lambda: fastnnunet.segment(PLAIN, output=output, **OPTIONS))
        fastnnunet.segment(str(PLAIN), output=str(output), overwrite=True, **OPTIONS)


def arrays_have_the_labels_of_the_command_line():
    stored, affine, spacing = voxels(PLAIN)
    segmenter = fastnnunet.Segmenter(**OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        expected, _, _ = voxels(command_line(folder, PLAIN))
        done = segmenter.segment(stored.T, affine=affine, spacing=spacing)
        assert done.image.shape == stored.T.shape and np.array_equal(done.image, expected.T)
        assert np.array_equal(done.labels, expected) and done.labels.dtype == expected.dtype
        assert np.allclose(done.affine[:3], affine) and np.allclose(done.spacing[::-1], spacing)
        assert len(np.unique(expected)) > 1, "the case shows nothing"

        # However voxels lie in memory, and in whatever numbers.
        square = np.vstack([affine, [0, 0, 0, 1]])
        padded = np.full(tuple(n + 3 for n in stored.shape), -5, stored.dtype)
        padded[1:-2, 2:-1, :-3] = stored
        backwards = np.ascontiguousarray(stored[::-1, :, ::-1])[::-1, :, ::-1]
        swapped = stored.astype(stored.dtype.newbyteorder(">"))
        read_only = stored.astype(np.float32)
        read_only.flags.writeable = False
        for name, given in {
            "gaps": padded[1:-2, 2:-1, :-3],
            "backwards": backwards,
            "x slowest": np.asfortranarray(stored),
            "y fastest": np.ascontiguousarray(stored.transpose(2, 0, 1)).transpose(1, 2, 0),
            "big-endian": swapped,
            "read-only float32": read_only,
            "float64": stored.astype(np.float64),
            "int32": stored.astype(np.int32),
            "four axes": stored[None],
        }.items():
            found = segmenter.segment(given.T, affine=square, spacing=spacing).labels
            assert np.array_equal(found, expected), name


def arrays_are_lent_and_not_copied():
    for kind in (np.int16, np.float32):
        array = np.zeros((6, 5, 4), kind)
        for given in (array, array.T, array[::-2, :, 1:]):
            assert np.shares_memory(_images.lend(given, spacing=(1, 1, 1)).voxels, array), kind
            assert np.shares_memory(_images.lend(given, affine=np.eye(4)).voxels, array), kind


def an_axial_array_needs_its_spacing_alone():
    rng = np.random.default_rng(1)
    axial = rng.integers(-1000, 1000, (20, 24, 28), dtype=np.int16)
    spacing = (3.0, 1.5, 1.25)
    labels = fastnnunet.segment(axial, spacing=spacing, **OPTIONS)
    assert isinstance(labels, np.ndarray) and labels.shape == axial.shape and labels.dtype == np.uint8
    # Slices from the feet up, rows to the back, columns to the patient's left.
    place = np.diag([-1.25, -1.5, 3.0, 1.0])
    assert np.array_equal(fastnnunet.segment(axial.T, affine=place, **OPTIONS).T, labels)


def results_say_what_they_are():
    segmenter = fastnnunet.Segmenter(**OPTIONS)
    stored, affine, spacing = voxels(PLAIN)
    assert segmenter.channels == 1 and segmenter.choice == "" and isinstance(segmenter.grade, str)
    assert all(isinstance(label, fastnnunet.Label) and label.id > 0 for label in segmenter.labels)
    done = segmenter.segment(PLAIN)
    assert [s.name for s in done.structures] == [label.name for label in segmenter.labels]
    counts = np.bincount(done.labels.ravel(), minlength=len(done.structures) + 1)
    for structure in done.structures:
        assert structure.voxels == counts[structure.id]
        assert np.isclose(structure.ml, structure.voxels * np.prod(spacing) / 1000, rtol=1e-6)
    assert done.timings["infer"] > 0 and done.predicted_bytes > stored.nbytes and done.warnings == []
    bone = fastnnunet.Segmenter("bone", quality="low", structures=["*"])
    assert bone.choice and bone.labels[0].color.startswith("#") and bone.labels[0].snomed


def progress_is_told_and_can_stop():
    segmenter = fastnnunet.Segmenter(**OPTIONS)
    stages = []
    segmenter.segment(PLAIN, progress=lambda stage, done, total: stages.append((stage, done, total)))
    assert stages[0] == ("load", 0, 1) and any(s == "infer" and done == total for s, done, total in stages), stages
    raises(fastnnunet.Interrupted, "", lambda: segmenter.segment(PLAIN, progress=lambda *_: False))

    class Odd(Exception):
        pass

    def fails(*_):
        raise Odd("of the caller's")

    raises(Odd, "of the caller's", lambda: segmenter.segment(PLAIN, progress=fails))
    again = lambda *_: segmenter.segment(PLAIN)
    raises(fastnnunet.UsageError, "progress callback", lambda: segmenter.segment(PLAIN, progress=again))
    assert segmenter.segment(PLAIN).structures, "it goes on after all that"


def other_threads_go_on():
    segmenter = fastnnunet.Segmenter(model="selftest", precision="f32", threads=1, step_size=0.1)
    counted, ended = [0], threading.Event()

    def count():
        while not ended.is_set():
            counted[0] += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        before, began = counted[0], time.monotonic()
        segmenter.segment(PLAIN)
        during, seconds = counted[0] - before, time.monotonic() - began
    finally:
        ended.set()
        counter.join()
    # A lock that is held lets nothing count; one that is free, hundreds a second.
    assert during > 20, f"counted {during} in {seconds} s"

    results = {}

    def run(name):
        results[name] = segmenter.segment(PLAIN).labels

    threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3 and all(np.array_equal(labels, results[0]) for labels in results.values())


def control_c_stops_a_run():
    script = f"""
import fastnnunet
segmenter = fastnnunet.Segmenter(model="selftest", precision="f32", step_size=0.05, threads=1)
def told(stage, done, total):
    if stage == "infer" and done == 1:
        print("runs", total, flush=True)
try:
    segmenter.segment({str(CHEST)!r}, progress=told)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    tiles = int(child.stdout.readline().split()[1])
    assert tiles > 10_000, "it would be over before it is stopped"
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=60)[0]
    assert (child.returncode, said) == (0, "stopped\n"), (child.returncode, said)


def errors_say_what_was_found():
    segment, array = fastnnunet.segment, np.zeros((8, 8, 8), np.int16)
    one = (1.0, 1.0, 1.0)
    raises(fastnnunet.UsageError, "knee", lambda: fastnnunet.Segmenter("knee"))
    raises(fastnnunet.UsageError, "precision", lambda: fastnnunet.Segmenter(model="selftest", precision="f8"))
    raises(fastnnunet.UsageError, "isa", lambda: fastnnunet.Segmenter(model="selftest", isa="mmx"))
    raises(fastnnunet.UsageError, "mirror", lambda: fastnnunet.Segmenter(model="selftest", mirror="t"))
    raises(fastnnunet.ModelError, "no_such", lambda: fastnnunet.Segmenter(folder="no_such"))
    raises(TypeError, "found nothing", fastnnunet.Segmenter)
    raises(TypeError, "mode and model", lambda: fastnnunet.Segmenter("bone", model="selftest"))
    raises(TypeError, "colour", lambda: fastnnunet.Segmenter("bone", colour="red"))
    raises(fastnnunet.InputError, "no.nii.gz", lambda: fastnnunet.Segmenter(**OPTIONS).segment("no.nii.gz"))
    raises(fastnnunet.UsageError, "affine or its spacing", lambda: segment(array, **OPTIONS))
    raises(fastnnunet.UsageError, "shape (3, 3)", lambda: segment(array, affine=np.eye(3), **OPTIONS))
    raises(fastnnunet.UsageError, "spacing", lambda: segment(array, spacing=(1, 1, -1), **OPTIONS))
    raises(fastnnunet.UsageError, "steps by", lambda: segment(array, affine=np.eye(4), spacing=(1, 1, 2), **OPTIONS))
    raises(fastnnunet.InputError, "2 axes", lambda: segment(array[0], spacing=one, **OPTIONS))
    raises(fastnnunet.InputError, "complex", lambda: segment(array * 1j, spacing=one, **OPTIONS))
    raises(TypeError, "found dict", lambda: segment({}, spacing=one, **OPTIONS))
    raises(TypeError, "output", lambda: segment(PLAIN, **OPTIONS))
    raises(TypeError, "output", lambda: segment(array, spacing=one, output="o.nii", **OPTIONS))
    raises(fastnnunet.UsageError, "empty list", lambda: segment([], **OPTIONS))
    holes = np.full((8, 8, 8), np.nan, np.float32)
    raises(fastnnunet.InputError, "512 of 512 voxels", lambda: segment(holes, spacing=one, **OPTIONS))
    raises(fastnnunet.InputError, "voxels", lambda: segment(array[:0], spacing=one, **OPTIONS))
    raises(fastnnunet.MemoryLimitError, "", lambda: segment(array, spacing=one, memory_limit_bytes=1 << 20, **OPTIONS))
    for kind, base in (("UsageError", ValueError), ("MemoryLimitError", MemoryError), ("OutputError", OSError)):
        kind = getattr(fastnnunet, kind)
        assert issubclass(kind, fastnnunet.Error) and issubclass(kind, base)


def a_fork_is_refused():
    script = f"""
import os, fastnnunet
segmenter = fastnnunet.Segmenter(model="selftest", precision="f32")
child = os.fork()
if child == 0:
    try:
        segmenter.segment({str(PLAIN)!r})
    except fastnnunet.UsageError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


def the_native_part_shows_python_one_function():
    try:
        listed = subprocess.check_output(["nm", "-D", "--defined-only", _native.__file__], text=True)
    except FileNotFoundError:
        sys.exit("nm, of binutils, is not here")
    assert [line.split()[-1] for line in listed.splitlines()] == ["PyInit__native"], listed


if __name__ == "__main__":
    common.run(dict(globals()), *sys.argv[1:])
