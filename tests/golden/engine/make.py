"""A two-dimensional network with fixed axes, its configuration, manifest entry and golden logits.

    venv/bin/python tests/golden/engine/make.py     # versions: reference/lock.txt

The stage `network` covers three dimensions and dynamic axes. This one has what that one lacks: two
dimensions, fixed axes, two input channels, a grouped and a dilated convolution, residual additions,
ReLU, strides that differ by axis, and one channel of almost constant value, which instance
normalization divides by little more than sqrt(epsilon): a wrong epsilon shows.
"""

import hashlib
import io
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path.insert(0, str(HERE.parent))
from common import write_json  # noqa: E402

NAME = "selftest_2d"
SHAPE = (2, 24, 20)  # channels, y, x
CONFIG = {
    "model_path": f"{NAME}.onnx",
    "patch_size": [24, 20],
    "target_spacing": [2.0, 2.0],
    "normalization": ["CTNormalization", "ZScoreNormalization"],
    "intensity_properties": {"mean": 60.0, "std": 180.0, "percentile_00_5": -500.0, "percentile_99_5": 700.0},
    "orientation": "native",
    "labels": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
    "grade": "test",
}


class Block(nn.Module):
    def __init__(self, cin, cout, stride=1, groups=1, dilation=1, nonlin=None):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, stride, dilation, dilation, groups)
        self.norm = nn.InstanceNorm2d(cout, eps=1e-5, affine=True)
        self.nonlin = nonlin or nn.LeakyReLU(0.01)

    def forward(self, x):
        return self.nonlin(self.norm(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block(2, 4)
        self.down = Block(4, 8, stride=(2, 1))
        self.grouped = Block(8, 8, groups=2, nonlin=nn.ReLU())
        self.dilated = Block(8, 8, dilation=2)
        self.up = nn.ConvTranspose2d(8, 4, (2, 1), (2, 1))
        self.last = Block(8, 4)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        first = self.first(x)
        down = self.down(first)
        deep = self.dilated(self.grouped(down)) + down
        return self.head(self.last(torch.cat((self.up(deep), first), 1)))


def build():
    net, rng = Net().eval(), np.random.default_rng(20261)
    for key, tensor in net.state_dict().items():
        shape = tuple(tensor.shape)
        if key.endswith("norm.weight"):
            value = rng.uniform(0.7, 1.3, shape)
        elif key.endswith("bias"):
            value = rng.normal(0, 0.2, shape)
        else:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        if key == "first.conv.weight":
            value[1] *= 0.004  # variance near epsilon
        tensor.copy_(torch.from_numpy(value.astype(np.float32)))
    return net


def to_onnx(net):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, torch.zeros(1, *SHAPE), buffer, opset_version=17, dynamo=False,
                          input_names=["input"], output_names=["output"])
    model = onnx.load_from_string(buffer.getvalue())
    for item in (model, model.graph, *model.graph.node):
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def manifest(sha256):
    path = ROOT / "models/MANIFEST.toml"
    tables = path.read_text().split("[[model]]") if path.exists() else [""]
    head, others = tables[0], [t for t in tables[1:] if f'name = "{NAME}"' not in t]
    entry = {"name": NAME, "file": f"{NAME}.onnx", "sha256": sha256, "opset": 17,
             "source": "tests/golden/engine/make.py, seeded random weights, segments nothing real",
             "license": "MIT OR Apache-2.0", "grade": "test"}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())
    path.write_text(head + "\n\n".join(t.rstrip("\n") for t in ["[[model]]" + t for t in others]
                                       + ["[[model]]\n" + lines]) + "\n")


@torch.inference_mode()
def main():
    torch.set_num_threads(1)
    net = build()
    payload = to_onnx(net)
    x = np.random.default_rng(7).standard_normal((1, *SHAPE)).astype(np.float32)
    variance = net.first.conv(torch.from_numpy(x))[0].var((1, 2)).numpy()
    expected = net(torch.from_numpy(x)).numpy()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    run = onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
    logits = run.run(None, {"input": x})[0]
    print(f"{len(payload)} bytes, variances {variance}, torch differs by {np.abs(logits - expected).max():.1e}")
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
    np.save(HERE / "2d_input.npy", x)
    np.save(HERE / "2d_logits.npy", logits)
    write_json(HERE / "index.json", {"stage": "engine", "cases": [
        {"name": "2d", "model": f"models/{NAME}.onnx", "input": "2d_input.npy", "expected": "2d_logits.npy",
         "largest_logit": round(float(np.abs(logits).max()), 1)}]})
    (ROOT / f"models/{NAME}.onnx").write_bytes(payload)
    folder = ROOT / "config/2d"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{NAME}.json", CONFIG)
    manifest(hashlib.sha256(payload).hexdigest())


if __name__ == "__main__":
    main()
