"""TotalSegmentator and this program on one network of full size, in one run: processor seconds, memory, opening, import.

    cargo build --release --no-default-features --features cli,dicom
    python benches/totalseg.py make FOLDER CT.nii.gz             # 297 and 291 to 295, random weights, 2 GB
    python benches/totalseg.py run FOLDER CT.nii.gz [--rounds 1]
    python benches/totalseg.py import FOLDER

In the environment of tests/totalseg/make.py. Data set 297 is as people rebuilt it from the released file's size: 5 stages of
32 to 320 features, patch 112x112x128, with optimizer and a log of 4000 epochs; a part has 6 stages and patch 128x128x128.
Memory is the largest sum of what all processes of a command hold (PSS), looked at every fifth of a second.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZES = {297: ((32, 64, 128, 256, 320), (112, 112, 128), 4000)}
PART = ((32, 64, 128, 256, 320, 320), (128, 128, 128), 1000)


def make(args):
    import nibabel as nib
    import numpy as np
    import torch

    sys.path.insert(0, str(ROOT / "tests/totalseg"))
    import folders

    image = nib.load(args.ct)
    for dataset in args.datasets:
        features, patch, epochs = SIZES.get(dataset, PART)
        folders.write(args.folder / "nnunet/results", dataset, image, features=features, patch=patch)
        [path] = (args.folder / "nnunet/results").glob(f"Dataset{dataset}_*/*/fold_0/checkpoint_final.pth")
        stored = torch.load(path, weights_only=False)
        # The encoder and the parts of blocks have two names each.
        weights = list({value.data_ptr(): value for value in stored["network_weights"].values()}.values())
        stored["optimizer_state"] = dict(state={k: dict(momentum_buffer=torch.zeros_like(w)) for k, w in enumerate(weights)})
        random = np.random.default_rng(dataset)
        classes = len([value for name, value in stored["network_weights"].items() if ".seg_layers." in name][-1]) - 1
        stored["logging"] = dict(dice_per_class_or_region=[list(random.random(classes)) for _ in range(epochs)])
        torch.save(stored, path)
        print(f"{dataset}: {path.stat().st_size / 1e6:.0f} MB", flush=True)


def held(group):
    """Bytes that the processes of a group hold."""
    total = 0
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if int((place / "stat").read_text().rsplit(")", 1)[1].split()[2]) == group:
                lines = (place / "smaps_rollup").read_text().splitlines()
                total += 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
        except (OSError, StopIteration):
            pass
    return total


def measured(command, environment=None):
    """Wall and processor seconds, peak in MiB, and what was printed."""
    before, start, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.time(), 0
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               env={**os.environ, **(environment or {})})
    printed = []
    reader = threading.Thread(target=lambda: printed.append(process.stdout.read()))
    reader.start()
    while process.poll() is None:
        peak = max(peak, held(process.pid))
        time.sleep(0.2)
    reader.join()
    assert process.returncode == 0, (command, process.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.time() - start, cpu, peak / 2**20, printed[0]


def run(args):
    home = {"TOTALSEG_HOME_DIR": str(args.folder), "nnUNet_results": str(args.folder / "nnunet/results")}
    (args.folder / "config.json").write_text(json.dumps(dict(
        totalseg_id="totalseg_bench", send_usage_stats=False, prediction_counter=0, statistics_disclaimer_shown=True)))
    print("| program | wall, s | CPU, s | times fewer | peak, MiB | opening, s |\n|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as out:
        for _ in range(args.rounds):
            theirs = [pathlib.Path(sys.executable).with_name("TotalSegmentator"), "-i", args.ct, "-o", f"{out}/theirs.nii.gz", "--ml",
                      "--fast", "-d", "cpu", "-q"]
            wall, cpu, peak, _ = measured(theirs, home)
            print(f"| TotalSegmentator --fast --ml | {wall:.1f} | {cpu:.1f} | 1 | {peak:.0f} | |", flush=True)
            for precision in args.precisions:
                ours = [args.program, "-i", args.ct, "-o", f"{out}/ours.nii.gz", "--overwrite", "--json", "--mode", "total", "--quality",
                        "low", "--models-dir", args.folder / "nnunet/results", "--precision", precision]
                wall, own, peak, printed = measured(ours)
                opening = json.loads(printed)["open_seconds"]
                print(f"| fastnnunet {precision} | {wall:.1f} | {own:.1f} | {cpu / own:.1f} | {peak:.0f} | {opening:.2f} |", flush=True)


def import_all(args):
    with tempfile.TemporaryDirectory(dir=args.folder) as to:
        parts = sorted((args.folder / "nnunet/results").glob("Dataset29[1-5]_*"))
        wall, cpu, peak, _ = measured([args.program, "import", "-o", to, *parts])
        print(f"import of {len(parts)} parts: {wall:.1f} s, {cpu:.1f} s of processor time, {peak:.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run", "import"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("ct", nargs="?")
    parser.add_argument("--datasets", type=int, nargs="*", default=[297, 291, 292, 293, 294, 295])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precisions", nargs="*", default=["bf16", "f32"])
    parser.add_argument("--program", default=str(ROOT / "target/release/fastnnunet"))
    args = parser.parse_args()
    {"make": make, "run": run, "import": import_all}[args.what](args)


if __name__ == "__main__":
    main()
