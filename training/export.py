#!/usr/bin/env python3
"""Checkpoint to ONNX as FastnnUNet writes it, plus the JSON next to it; then compare with PyTorch."""

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from dataset import load_intensity
from network import PATCH, build_student
from volume import TARGET_SPACING

OPSET = 17
# Of the largest logit: two orders of summation over some thousand products.
TOLERANCE = 2e-5


def load_network(checkpoint: Path) -> torch.nn.Module:
    net = build_student(deep_supervision=False)
    net.load_state_dict(torch.load(checkpoint, weights_only=True)["network_weights"])
    return net.eval()


def write_onnx(net: torch.nn.Module, path: Path) -> None:
    dynamic = {0: "batch", 2: "depth", 3: "height", 4: "width"}
    torch.onnx.export(net, torch.zeros(1, 1, *PATCH), path, opset_version=OPSET, dynamo=False,
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


def largest_difference(net: torch.nn.Module, path: Path) -> float:
    """Relative to the largest logit, over the training patch and one other size, since the axes are dynamic."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for shape in (PATCH, (64, 80, 112)):
        x = torch.randn(1, 1, *shape, generator=generator)
        with torch.no_grad():
            expected = net(x).numpy()
        found = session.run(["output"], {"input": x.numpy()})[0]
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


def write_config(path: Path, model_path: str, cache: Path) -> None:
    config = {
        "model_path": model_path,
        "patch_size": list(PATCH),
        "target_spacing": list(TARGET_SPACING),
        "intensity_properties": asdict(load_intensity(cache)),
        "orientation": "LPS",
        "labels": [{"id": 1, "name": "bone", "color": "#e6d9b8", "snomed": "272673000"}],
        "grade": "starter",
    }
    path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="for the intensity properties")
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    args = parser.parse_args()

    net = load_network(args.checkpoint)
    write_onnx(net, args.onnx)
    difference = largest_difference(net, args.onnx)
    if difference >= TOLERANCE:
        raise SystemExit(f"ONNX differs from PyTorch by {difference:.2e} of the largest logit")
    write_config(args.config, args.onnx.name, args.cache)
    print(f"largest difference {difference:.2e} of the largest logit")
    print(f"sha256 {hashlib.sha256(args.onnx.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
