"""Which layers cost int8 its agreement with f32: each alone in bytes, and each left in f32 while the others are in bytes.

    cargo build --release --no-default-features --features cli
    target/release/fastnnunet calibrate bone_low -i CT.nii.gz -o ranges.json
    python benches/int8_layers.py bone_low ranges.json CT.nii.gz [CT.nii.gz ...] [--keep 0 3] [--alone]

A layer whose `inputs` are taken out of the ranges multiplies f32; what it stores stays in 16 bits. Prints the mean Dice
of all structures in all CTs against `--precision f32`, and the least of those of 1 ml or more. `--keep` leaves these
layers in f32 throughout; `--alone` goes through the layers one by one, but for transposed convolutions, which do not run
in bytes alone.
"""

import argparse
import copy
import json
import pathlib
import subprocess
import tempfile

import nibabel as nib
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Study:
    def __init__(self, args, folder):
        self.args, self.folder = args, pathlib.Path(folder)
        self.config = json.loads(pathlib.Path(args.ranges).read_text())
        self.layers = [name for name, layer in self.config["int8"]["layers"].items() if layer.get("inputs")]
        self.exact = [self.run(ct, "f32", []) for ct in args.ct]

    def run(self, ct, precision, more):
        out = self.folder / "labels.nii.gz"
        subprocess.run([self.args.program, "-i", ct, "-o", str(out), "--model", self.args.model, "--overwrite", "--quiet",
                        "--threads", str(self.args.threads), "--postprocess", "none", "--precision", precision, *more],
                       check=True, capture_output=True)
        image = nib.load(out)
        return np.asarray(image.dataobj).astype(np.int64), float(np.prod(image.header.get_zooms()[:3])) / 1000

    def dice(self, in_bytes):
        """Mean and least Dice with those layers in bytes."""
        config = copy.deepcopy(self.config)
        for name, layer in config["int8"]["layers"].items():
            if name not in in_bytes:
                layer.pop("inputs", None)
        path = self.folder / "ranges.json"
        path.write_text(json.dumps(config))
        all_dice, large = [], []
        for ct, (a, ml) in zip(self.args.ct, self.exact):
            b, _ = self.run(ct, "int8", ["--config", str(path)])
            n = int(max(a.max(), b.max())) + 1
            ours, theirs = np.bincount(a.ravel(), minlength=n), np.bincount(b.ravel(), minlength=n)
            both = np.bincount(a[a == b].ravel(), minlength=n)
            for label in np.flatnonzero(ours[1:] + theirs[1:]) + 1:
                all_dice.append(2 * both[label] / (ours[label] + theirs[label]))
                if ours[label] * ml >= 1:
                    large.append(all_dice[-1])
        return np.mean(all_dice), min(large, default=1.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("ranges")
    parser.add_argument("ct", nargs="+")
    parser.add_argument("--keep", type=int, nargs="*", default=[])
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--program", default=str(ROOT / "target/release/fastnnunet"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(args, folder)
        layers = [name for k, name in enumerate(study.layers) if k not in args.keep]

        def row(what, *sets):
            print(f"| {what} | {' | '.join(f'{dice:.5f}' for names in sets for dice in study.dice(names))} |", flush=True)

        print("| in bytes | mean Dice | least |\n|---|---:|---:|", flush=True)
        what = "all" if not args.keep else f"all but {' '.join(map(str, args.keep))}"
        row(what, layers)
        if not args.alone:
            return
        print("\n| k | layer | alone: mean | least | without it: mean | least |\n|---:|---|---:|---:|---:|---:|", flush=True)
        for name in layers:
            if "transp" in name:
                continue
            others = [other for other in layers if other != name]
            row(f"{study.layers.index(name)} | {name}", [name], others)


if __name__ == "__main__":
    main()
