#!/usr/bin/env python3
"""Checkpoint to ONNX as FastnnUNet writes it, with its JSON and its line in the manifest; compared with PyTorch."""

import argparse
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from network import build_student, read_tensors
from tasks import TASKS, Task
from volume import intensity_of

OPSET = 17
# Of the largest logit: two orders of summation over some thousand products.
TOLERANCE = 2e-5


def load_network(task: Task, checkpoint: Path, network: str | None = None) -> torch.nn.Module:
    net = build_student(task, deep_supervision=False)
    # Kernels as training multiplied them, so that the program's bf16 rounds activations only.
    weights = {name: w.bfloat16().float() if w.dim() > 2 else w for name, w in read_tensors(checkpoint, network).items()}
    missing, unknown = net.load_state_dict(weights, strict=False)
    # Side heads serve training alone.
    assert not unknown and all("seg_layers" in name for name in missing), (missing, unknown)
    return net.eval()


def tile(task: Task) -> tuple[int, ...]:
    return task.patch[1:] if task.flat else task.patch


def write_onnx(net: torch.nn.Module, channels: int, patch: tuple[int, ...], path: Path) -> None:
    axes = ("depth", "height", "width")[-len(patch):]
    dynamic = {0: "batch"} | {i: axis for i, axis in enumerate(axes, 2)}
    torch.onnx.export(net, torch.zeros(1, channels, *patch), path, opset_version=OPSET, dynamo=False,
                      input_names=["input"], output_names=["output"],
                      dynamic_axes={"input": dynamic, "output": dynamic})
    model = onnx.load(path)
    # Scope names and doc strings tell about the machine, not about the network.
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def largest_difference(net: torch.nn.Module, channels: int, patch: tuple[int, ...], path: Path) -> float:
    """Relative to the largest logit, over the patch and one other size, since the axes are dynamic."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for shape in (patch, tuple(n + 16 for n in patch)):
        x = torch.randn(1, channels, *shape, generator=generator)
        with torch.no_grad():
            expected = net(x).numpy()
        found = session.run(["output"], {"input": x.numpy()})[0]
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


def configuration(task: Task) -> dict:
    labels = [{"id": i} | {k: v for k, v in asdict(label).items() if v} for i, label in enumerate(task.labels, 1)]
    config = {
        "model_path": f"{task.name}.onnx",
        "patch_size": list(tile(task)),
        "target_spacing": list(task.spacing[task.flat:]),
        "intensity_properties": asdict(intensity_of(task)),
        "orientation": "LPS",
        "labels": labels,
        "grade": task.grade,
    }
    if task.previous_stage:
        config["previous_stage"] = task.previous_stage
    return config


def write_config(task: Task, root: Path) -> None:
    path = root / "config" / task.configuration / f"{task.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(configuration(task), indent=2) + "\n")


def write_manifest(task: Task, root: Path, source: str) -> None:
    path = root / "models" / "MANIFEST.toml"
    digest = hashlib.sha256((root / "models" / f"{task.name}.onnx").read_bytes()).hexdigest()
    entry = "\n".join(("[[model]]", f'name = "{task.name}"', f'file = "{task.name}.onnx"', f'sha256 = "{digest}"',
                       f"opset = {OPSET}", f'source = "{source}"', 'license = "CC-BY-4.0"', f'grade = "{task.grade}"'))
    entries = re.split(r"\n+(?=\[\[model\]\])", path.read_text().strip())
    kept = [e for e in entries if f'name = "{task.name}"' not in e.splitlines()]
    path.write_text("\n\n".join([*kept, entry]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--network", help="which one of a checkpoint that holds several; the first")
    parser.add_argument("--onnx", type=Path, help="write this file alone: a network that is not shipped")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="folder of models/ and config/")
    parser.add_argument("--source", default="training/train.py on public CT; models/README.md")
    args = parser.parse_args()

    task = TASKS[args.task]
    net = load_network(task, args.checkpoint, args.network)
    path = args.onnx or args.root / "models" / f"{task.name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(net, task.input_channels, tile(task), path)
    difference = largest_difference(net, task.input_channels, tile(task), path)
    if difference >= TOLERANCE:
        raise SystemExit(f"ONNX differs from PyTorch by {difference:.2e} of the largest logit")
    if not args.onnx:
        write_config(task, args.root)
        write_manifest(task, args.root, args.source)
    print(f"{path.name}: {sum(p.numel() for p in net.parameters())} parameters, {path.stat().st_size} bytes, "
          f"largest difference {difference:.2e} of the largest logit")


if __name__ == "__main__":
    main()
