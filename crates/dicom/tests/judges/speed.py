"""Times of reading and writing beside those of SimpleITK and highdicom, in one run.

    speed.py SLICES PROGRAM_SPEED SCRATCH [--highdicom]

500 slices of 512 x 512 are made of the real slices in SLICES, raw and JPEG 2000; a label map of 117
ellipsoids is written as objects. `--highdicom` writes the BINARY segmentation with it too, which
takes minutes.
"""

import pathlib
import subprocess
import sys
import time

import imagecodecs
import numpy as np
import pydicom
import SimpleITK

import base
import regular

COUNT = 500


def series(slices, folder, encode):
    if folder.exists():
        return
    folder.mkdir(parents=True)
    frames = [encode(np.ascontiguousarray(base.pixels(ds))) if encode else None for ds in slices]
    for k in range(COUNT):
        ds = base.copies(slices[k % len(slices):k % len(slices) + 1])[0]
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = base.uid("speed", k)
        ds.ImagePositionPatient[2], ds.InstanceNumber = str(-500 + 2 * k), str(k + 1)
        if encode:
            ds.PixelData = pydicom.encaps.encapsulate([frames[k % len(slices)]])
            ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
            ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
        base.save(folder, [ds], name=f"IM{k:04d}.dcm")


def label_map(shape):
    rng = np.random.default_rng(3)
    labels = np.zeros(shape, np.uint8)
    for label in range(1, 118):
        radius = rng.uniform(12, 60, 3)
        center = [rng.uniform(r, n - r) for r, n in zip(radius, shape)]
        box = tuple(slice(int(c - r), int(c + r) + 1) for c, r in zip(center, radius))
        grid = np.meshgrid(*(np.arange(b.start, b.stop) for b in box), indexing="ij")
        inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radius)) < 1
        labels[box][inside] = label
    return labels


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return done.stdout


def main():
    slices = base.of_slices(sys.argv[1])
    program, scratch = sys.argv[2], pathlib.Path(sys.argv[3])
    series(slices, scratch / "raw", None)
    series(slices, scratch / "jpeg2000", regular.jpeg2000(True))
    for name in ("raw", "jpeg2000"):
        for round_ in range(3):
            ours = run(program, "load", scratch / name).split()
            begun, cpu = time.perf_counter(), time.process_time()
            names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(scratch / name))
            SimpleITK.ReadImage(names)
            print(f"read {name}: {ours[1]} s ({ours[2]} CPU, {ours[3]} MB peak), "
                  f"SimpleITK {time.perf_counter() - begun:.3f} s ({time.process_time() - cpu:.3f} CPU)")
    labels = label_map((COUNT, 512, 512))
    print(f"117 segments, {np.count_nonzero(labels) / labels.size:.0%} of voxels labelled")
    labels.tofile(scratch / "labels.u8")
    print(run(program, "seg", scratch / "raw", scratch / "labels.u8", scratch))
    if "--highdicom" in sys.argv:
        highdicom_binary(scratch, labels)


def highdicom_binary(scratch, labels):
    import highdicom
    from pydicom.sr.codedict import codes
    sources = [pydicom.dcmread(p) for p in sorted((scratch / "raw").iterdir())]
    tissue = codes.SCT.Tissue
    algorithm = highdicom.AlgorithmIdentificationSequence(
        "speed", codes.cid7162.ArtificialIntelligence, "1")
    segments = [highdicom.seg.SegmentDescription(
        k, f"structure_{k}", tissue, tissue, highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm) for k in range(1, 118)]
    for kind in ("LABELMAP", "BINARY"):
        begun = time.perf_counter()
        seg = highdicom.seg.Segmentation(
            source_images=sources, pixel_array=labels, segmentation_type=kind,
            segment_descriptions=segments, series_instance_uid=base.uid("x"), series_number=1,
            sop_instance_uid=base.uid("y"), instance_number=1, manufacturer="m",
            manufacturer_model_name="m", software_versions="1", device_serial_number="1",
            further_source_images=None)
        seg.save_as(scratch / "highdicom.dcm")
        print(f"highdicom {kind}: {time.perf_counter() - begun:.1f} s", flush=True)


main()
