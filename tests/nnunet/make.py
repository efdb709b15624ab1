"""Writes nnU-Net results folders with seeded networks, images, and what nnU-Net predicts for them.

    python make.py            # everything
    python make.py plain 2d   # the named models and their runs
"""

import gzip
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, "unused")
warnings.simplefilter("ignore")

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import torch  # noqa: E402

import balance  # noqa: E402
import images  # noqa: E402
import networks  # noqa: E402
import reference  # noqa: E402
from cases import MODELS, RUNS  # noqa: E402

HERE = Path(__file__).resolve().parent
IMAGES, EXPECTED, FOLDERS = HERE / "images", HERE / "expected", HERE / "models"


def image(name):
    return IMAGES / f"{name}.nii.gz"


def make_model(spec):
    """Builds the network or networks of a model, fits their heads and writes the folder."""
    name, trainer, configuration = spec["name"], spec["trainer"], spec["configuration"]
    data_set = spec["dataset_json"]
    target = None
    for fold in spec["folds"]:
        net = networks.build(spec["plans"], data_set, configuration, trainer, spec["seed"], 0 if fold == "all" else fold)
        arguments = (FOLDERS, "checkpoint_final", net, spec["plans"], data_set, configuration, trainer, fold)
        folder = networks.save_folder(*arguments, mirror=None)
        model = reference.predictor(folder, (fold,), mirror=False)
        inputs = [image(n) for n in spec["calibrate"]]
        previous = EXPECTED / f"{spec['previous']}.nii.gz" if "previous" in spec else None
        data, _ = reference.preprocess(model, inputs, previous)
        balance.batch_statistics(net, model, data)
        model.network.load_state_dict(net.state_dict())
        x = balance.features(model, data)
        target = balance.fit(net, x, model.label_manager.has_regions, target, spec.get("used"))
        optimizer = networks.optimizer_state(net, spec["seed"]) if spec["optimizer"] else None
        networks.save_folder(*arguments, mirror=spec["mirror"], optimizer=optimizer)
        if spec.get("best"):
            os.rename(folder / f"fold_{fold}/checkpoint_final.pth", folder / f"fold_{fold}/checkpoint_best.pth")
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"model {name}: {size / 1000:.0f} kB")
    return folder


def make_run(run, folders):
    """Predicts one case and writes labels, margins and what the run's test needs to know."""
    folder = folders[run["model"]]
    best = MODELS[run["model"]].get("best")
    model = reference.predictor(folder, tuple(run["folds"]), run["mirror"] == "auto", run["step"], run["gaussian"],
                                f"checkpoint_{'best' if best else 'final'}.pth")
    inputs = [image(n) for n in run["images"]]
    previous = EXPECTED / f"{run['previous']}.nii.gz" if run["previous"] else None
    target = EXPECTED / f"{run['name']}.nii.gz"
    probabilities = reference.predict(model, inputs, target, previous, run["probabilities"])
    repack(target)
    labels = nib.load(target)
    array = np.asarray(labels.dataobj).transpose(2, 1, 0)
    margin, logits, agreement, moved = reference.margins(model, inputs, previous)
    assert margin.shape[1:] == array.shape
    save_gz(EXPECTED / f"{run['name']}_margin.npy.gz", margin.astype(np.float32))
    entry = {"name": run["name"], "model": str(folder.relative_to(HERE)),
             "images": [f"images/{n}.nii.gz" for n in run["images"]],
             "expected": f"expected/{run['name']}.nii.gz", "margin": f"expected/{run['name']}_margin.npy.gz",
             "args": arguments(run, folders)}
    if run["previous"]:
        entry["previous_labels"] = f"expected/{run['previous']}.nii.gz"
    if run["previous_model"]:
        entry["previous_model"] = str(folders[run["previous_model"]].relative_to(HERE))
    if probabilities is not None:
        print(f"run {run['name']}: fp16 moves probabilities by {moved[0]:.4f} at most, {moved[1]:.6f} on average")
        entry["probabilities"] = f"expected/{run['name']}_probabilities.npy.gz"
        save_gz(EXPECTED / f"{run['name']}_probabilities.npy.gz", probabilities.astype(np.float32))
    entry["keeps_grid"] = same_grid(target, inputs[0])
    if run["tricky"]:
        entry["tricky"] = run["tricky"]
    counts = np.bincount(array.ravel())
    near = np.isfinite(margin[0]) & (margin[0] <= margin[1])
    entry["labels"] = {str(k): int(n) for k, n in enumerate(counts) if n}
    entry["within_rounding"] = int(near.sum())
    entry["agreement_without_fp16"] = round(agreement, 5)
    shares = np.round(counts / array.size, 3)
    text = shares if len(shares) < 9 else f"{(counts > 0).sum()} of {len(counts)} used, least {counts[counts > 0].min()}"
    print(f"run {run['name']}: {array.shape} {array.dtype}, shares {text}, "
          f"within rounding {near.mean():.5f}, without fp16 {agreement:.5f}, logits to {np.abs(logits.numpy()).max():.0f}")
    return entry


def same_grid(path, source):
    """Whether ITK sees labels where it sees the image; nibabel's readers may have taken another affine."""
    try:
        a, b = sitk.ReadImage(str(path)), sitk.ReadImage(str(source))
    except RuntimeError:  # sheared: nibabel writes what ITK refuses
        return False
    pairs = ((a.GetSpacing(), b.GetSpacing()), (a.GetOrigin(), b.GetOrigin()), (a.GetDirection(), b.GetDirection()))
    return all(np.allclose(x, y, atol=1e-4) for x, y in pairs)


def arguments(run, folders):
    """Options of the command line that ask for the same."""
    result = ["--mirror", run["mirror"]]
    if run["folds"] != [0] or len(MODELS[run["model"]]["folds"]) > 1:
        result += ["--folds", ",".join(str(f) for f in run["folds"])]
    if run["step"] != 0.5:
        result += ["--step-size", str(run["step"])]
    if not run["gaussian"]:
        result.append("--no-gaussian")
    if run["probabilities"]:
        result.append("--save-probabilities")
    return result


def repack(path):
    """Compresses again without a time stamp."""
    images.write_gz(path, gzip.decompress(path.read_bytes()))


def save_gz(path, array):
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        np.save(out, np.ascontiguousarray(array))


def main(chosen):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    index = HERE / "index.json"
    kept = {}
    if chosen and index.exists():
        kept = {e["name"]: e for e in json.loads(index.read_text())["runs"]}
    else:
        for old in (EXPECTED, FOLDERS, IMAGES):
            shutil.rmtree(old, ignore_errors=True)
    EXPECTED.mkdir(exist_ok=True)
    images.write_all(IMAGES)
    folders = {}
    for name, spec in MODELS.items():
        plans = spec["plans"]
        folder = FOLDERS / f"{plans['dataset_name']}/{spec['trainer']}__{plans['plans_name']}__{spec['configuration']}"
        if chosen and name not in chosen:
            folders[name] = folder
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folders[name] = make_model(spec)
        for run in RUNS:
            if run["model"] == name:
                kept[run["name"]] = make_run(run, folders)
    order = [r["name"] for r in RUNS]
    entries = [kept[n] for n in order if n in kept]
    index.write_text(json.dumps({"runs": entries}, indent=1) + "\n", newline="\n")
    size = sum(f.stat().st_size for f in HERE.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    print(f"{size / 1e6:.2f} MB in all")


if __name__ == "__main__":
    main(sys.argv[1:])
