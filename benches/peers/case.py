"""Times whole cases: a CT file in, a label map out, next to nnU-Net on the same CPU.

    cargo build --release --no-default-features --features cli
    python benches/peers/case.py CT.nii.gz                # a seeded 61-class student
    python benches/peers/case.py CT.nii.gz --nnunet       # and nnU-Net, which needs a lot of memory
    python benches/peers/case.py --grow                   # synthetic 512x512 CTs of 225, 450, 900 slices, 118 classes

Prints wall time, the program's own stages, and the peak memory of each process. The student is
PlainConvUNet 8-16-32-64-80 at 2.0 x 0.977 x 0.977 mm with seeded weights, patch 160x96x96, step
0.5, no mirroring; labels mean nothing. The synthetic student works at 3 mm, patch 96x96x96.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import compare  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/fastnnunet"
INTENSITY = {"mean": 40.0, "std": 250.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}


def student(folder, classes, patch, spacing):
    """Writes a seeded student and its configuration; returns both paths."""
    compare.CASES["student8"] = (compare.CASES["student8"][0], classes, patch)
    onnx, config = folder / "student.onnx", folder / "student.json"
    compare.export("student8", str(onnx))
    config.write_text(json.dumps({
        "patch_size": patch, "target_spacing": spacing, "intensity_properties": INTENSITY,
        "orientation": "native", "model_path": onnx.name}))
    return onnx, config


def ours(ct, folder, onnx, config, more):
    """Seconds, peak bytes and the summary of one run of the program."""
    command = [PROGRAM, "-i", ct, "-o", folder / "ours.nii.gz", "--overwrite", "--json",
               "--model", onnx, "--config", config, *more]
    start = time.monotonic()
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds = time.monotonic() - start
    summary = json.loads(run.stdout)
    return seconds, summary["peak_bytes"], summary


def row(name, seconds, peak, summary=None):
    stages = ""
    if summary:
        times = summary["seconds"]
        outside = 1 - times["infer"] / summary["total_seconds"]
        stages = ", ".join(f"{stage} {value:.2f}" for stage, value in times.items())
        stages += f"; {outside:.0%} outside the network; {summary['predicted_peak_bytes'] / 2**20:.0f} MiB predicted"
        name += f" {summary['device']} {summary['precision']}"
    print(f"{name:<42} {seconds:8.2f} s {peak / 2**20:8.0f} MiB  {stages}", flush=True)


def nnunet(ct, folder):
    """Child process: nnU-Net's predictor on the same network and case."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.set_num_threads(2)
    spacing, patch = [2.0, 0.9765625, 0.9765625], [160, 96, 96]
    resampling = {"resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_seg": "resample_data_or_seg_to_shape",
                  "resampling_fn_probabilities": "resample_data_or_seg_to_shape"}
    for kind, order, seg in (("data", 3, False), ("seg", 1, True), ("probabilities", 1, False)):
        resampling[f"resampling_fn_{kind}_kwargs"] = {
            "is_seg": seg, "order": order, "order_z": 0, "force_separate_z": None}
    plans = {
        "dataset_name": "Dataset001_Case", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": INTENSITY},
        "configurations": {"3d_fullres": {
            "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 1, "patch_size": patch,
            "spacing": spacing, "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False], **resampling}}}
    labels = {"background": 0, **{f"l{k}": k for k in range(1, 61)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    predictor = nnUNetPredictor(0.5, True, False, False, torch.device("cpu"), False, False, False)
    network = compare.network("student8")
    manager = PlansManager(plans)
    predictor.manual_initialization(
        network, manager, manager.get_configuration("3d_fullres"), [network.state_dict()], dataset, "x", None)
    predictor.predict_from_files([[ct]], [str(pathlib.Path(folder) / "nnunet.nii.gz")], False, True, 1, 1)


def grow(folder):
    import numpy as np
    import SimpleITK as sitk

    onnx, config = student(folder, 118, [96, 96, 96], [3.0, 3.0, 3.0])
    for slices in (225, 450, 900):
        z, y, x = np.ogrid[:slices, :512, :512]
        body = ((y - 256) / 180) ** 2 + ((x - 256) / 230) ** 2 < 1
        ct = np.where(body, 40 + 60 * np.sin(z / 9) + 200 * np.sin(y / 23) * np.cos(x / 17), -1000).astype(np.int16)
        image = sitk.GetImageFromArray(ct)
        image.SetSpacing((0.8, 0.8, 1.0))
        path = folder / f"ct_{slices}.nii"
        sitk.WriteImage(image, str(path))
        row(f"{slices} slices", *ours(path, folder, onnx, config, ["--memory-limit", "3GiB"]))
        path.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", nargs="?")
    parser.add_argument("--nnunet", action="store_true")
    parser.add_argument("--grow", action="store_true")
    parser.add_argument("--isa", help="lower the instruction set")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return nnunet(args.ct, args.child)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if args.grow:
            grow(folder)
        if not args.ct:
            return None
        onnx, config = student(folder, 61, [160, 96, 96], [2.0, 0.9765625, 0.9765625])
        more = ["--isa", args.isa] if args.isa else []
        for precision in ("auto", "f32"):
            row("ours", *ours(args.ct, folder, onnx, config, [*more, "--precision", precision]))
        if args.nnunet:
            start = time.monotonic()
            child = subprocess.run([sys.executable, __file__, args.ct, "--child", name], stdout=subprocess.DEVNULL)
            seconds = time.monotonic() - start
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            row("nnU-Net" if child.returncode == 0 else f"nnU-Net, ended by {child.returncode},", seconds, peak)


if __name__ == "__main__":
    main()
