"""The self-test network: random weights, a head that uses every class, ONNX export, config, manifest entry.

Weights come from NumPy's PCG64, whose stream is the same on every platform. The head is solved for
on a seeded volume and rounded to three decimals, so another CPU's last bits do not change the file.
"""

import hashlib
import io
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

import volumes
from common import ROOT, Stage, noise, write_json

ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 3, "features_per_stage": [4, 8, 16], "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2], "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
CONFIG = {
    "model_path": "selftest.onnx",
    "patch_size": [16, 24, 24],
    "target_spacing": [3.0, 2.0, 2.0],
    "intensity_properties": {"mean": 60.0, "std": 180.0, "percentile_00_5": -500.0, "percentile_99_5": 700.0},
    "orientation": "native",
    "labels": [{"id": 1, "name": "one", "color": "#e6194b"}, {"id": 2, "name": "two", "color": "#3cb44b"},
               {"id": 3, "name": "three", "color": "#4363d8"}],
    "grade": "test",
}
SCALE = 60.0
LINE = np.array([0.25, 0.5, 0.25])
BLUR = LINE[:, None, None] * LINE[:, None] * LINE


def build():
    """The network with its final weights, in eval mode."""
    kwargs = dict(ARCHITECTURE["arch_kwargs"], conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU)
    net = PlainConvUNet(1, num_classes=4, deep_supervision=False, **kwargs).eval()
    rng = np.random.default_rng(20260)
    state = net.state_dict()
    for key, tensor in sorted(state.items()):
        if "all_modules" in key or key.startswith("decoder.encoder"):
            continue
        shape = tuple(tensor.shape)
        if key.endswith(".norm.weight"):
            value = rng.uniform(0.7, 1.3, shape)
        elif key.endswith("bias"):
            value = rng.normal(0, 0.2, shape)
        elif shape[2:] == (3, 3, 3):
            # Mostly a random mix of blurred channels: smooth features, so few voxels lie on a class border.
            mixed = rng.normal(0, np.sqrt(2 / shape[1]), (*shape[:2], 1, 1, 1)) * BLUR
            value = mixed + rng.normal(0, 0.15 * np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        tensor.copy_(torch.from_numpy(value.astype(np.float32)))
    net.load_state_dict(state)
    balance(net)
    return net


@torch.inference_mode()
def balance(net):
    """Sets the head so that every class wins a good share of voxels by a clear margin.

    SCALE makes logits larger than a trained network's: at the corners of a patch the reference blends
    with fp16 weights near 2^-24, which round logits to whole numbers, and small ones would tie there.

    A least-squares fit of the last features to four groups of similar size. A part common to all
    classes does not change the winner; it is chosen so that the two best logits are near zero where
    they cross, where fp16 is finest.
    """
    hu = volumes.hounsfield((48, 48, 32), 31).astype(np.float32).transpose(2, 1, 0)
    p = CONFIG["intensity_properties"]
    image = (np.clip(hu, p["percentile_00_5"], p["percentile_99_5"]) - p["mean"]) / p["std"]
    kept = []
    head = net.decoder.seg_layers[-1]
    hook = head.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    net(torch.from_numpy(image[None, None].copy()))
    hook.remove()
    features = kept[0][0].flatten(1).double().numpy().T
    design = np.concatenate([features, np.ones((len(features), 1))], 1)
    centred = features - features.mean(0)
    main = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    a, b = (main[:, i] > np.median(main[:, i]) for i in (0, 1))
    solution = np.linalg.lstsq(design, np.eye(4)[2 * a + b], rcond=None)[0] * SCALE
    for _ in range(300):  # even out the shares by moving the biases
        share = np.bincount((design @ solution).argmax(1), minlength=4) / len(design)
        solution[-1] += 0.1 * SCALE * (0.25 - share)
    ranked = np.sort(design @ solution, axis=1)
    border = ranked[:, 3] - ranked[:, 2] < 0.05 * SCALE
    common = np.linalg.lstsq(design[border], ranked[border, 3], rcond=None)[0]
    solution = np.round(solution - common[:, None], 3).astype(np.float32)
    head.weight.copy_(torch.from_numpy(solution[:-1].T.copy()).reshape(head.weight.shape))
    head.bias.copy_(torch.from_numpy(solution[-1]))


def to_onnx(net):
    """The bytes of the model in FastnnUNet's export format."""
    buffer = io.BytesIO()
    axes = {0: "batch", 2: "depth", 3: "height", 4: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, torch.zeros(1, 1, *CONFIG["patch_size"]), buffer, opset_version=17, dynamo=False,
                          input_names=["input"], output_names=["output"], do_constant_folding=True,
                          dynamic_axes={"input": axes, "output": axes})
    model = onnx.load_from_string(buffer.getvalue())
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def session(payload):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])


def write():
    torch.set_num_threads(1)
    net = build()
    payload = to_onnx(net)
    assert len(payload) < 100_000, len(payload)
    run = session(payload)
    stage = Stage("network")
    for seed, shape in enumerate(((1, 1, 8, 12, 16), (2, 1, 4, 8, 12))):
        name = "x".join(map(str, shape))
        x = noise(shape, seed)
        with torch.inference_mode():
            expected = net(torch.from_numpy(x)).numpy()
        largest = np.abs(expected).max()
        difference = np.abs(run.run(None, {"input": x})[0] - expected).max()
        print(f"network {name}: torch and onnxruntime differ by {difference:.1e}, largest logit {largest:.0f}")
        assert difference < 1e-5 * largest
        stage.add("cases", name=name, model="models/selftest.onnx", input=stage.save(f"{name}_input", x),
                  expected=stage.save(f"{name}_logits", expected), largest_logit=round(float(largest), 1))
    stage.close()
    print(f"network: {len(payload)} bytes")
    (ROOT / "models").mkdir(exist_ok=True)
    (ROOT / "models/selftest.onnx").write_bytes(payload)
    folder = ROOT / "config/3d_fullres"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "selftest.json", CONFIG)
    manifest(hashlib.sha256(payload).hexdigest())


def manifest(sha256):
    """Replaces or appends this model's table; the others are left as they are."""
    path = ROOT / "models/MANIFEST.toml"
    tables = path.read_text().split("[[model]]") if path.exists() else [""]
    head, others = tables[0], [t for t in tables[1:] if 'name = "selftest"' not in t]
    entry = {"name": "selftest", "file": "selftest.onnx", "sha256": sha256, "opset": 17,
             "source": "tests/golden/network.py, seeded random weights, segments nothing real",
             "license": "MIT OR Apache-2.0", "grade": "test"}
    lines = "".join(f'{k} = {v}\n' if isinstance(v, int) else f'{k} = "{v}"\n' for k, v in entry.items())
    text = head + "".join("[[model]]" + t.rstrip("\n") + "\n\n" for t in others) + "[[model]]\n" + lines
    path.write_text(text)


if __name__ == "__main__":
    write()
