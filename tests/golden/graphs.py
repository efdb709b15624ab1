"""Networks other than the plain U-Net, with ONNX Runtime's answers: what our own engine must also run.

    python tests/golden/graphs.py

Writes tests/golden/graphs: tiny seeded networks as .onnx, inputs and outputs as .npy, index.json.
"""

import io
import json
import pathlib
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).parent / "graphs"


def unet(kind, conv, norm, kernels, strides, blocks, **more):
    stages = len(kernels)
    return kind(1, stages, [4, 6, 9][:stages], conv, kernels, strides, blocks, 3, [1] * (stages - 1), conv_bias=True,
                norm_op=norm, norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU,
                nonlin_kwargs={"inplace": True}, **more)


class Mixed(nn.Module):
    """One of each operator that U-Nets use rarely."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(2, 6, (3, 5, 3), padding=(2, 4, 1), dilation=(2, 2, 1), bias=False)
        self.batch = nn.BatchNorm3d(6)
        self.prelu = nn.PReLU(6)
        self.grouped = nn.Conv3d(6, 9, 3, padding=1, groups=3)
        self.depthwise = nn.Conv3d(9, 9, (1, 3, 3), padding=(0, 1, 1), groups=9)
        self.up = nn.ConvTranspose3d(9, 5, 4, stride=2, padding=1)
        self.gate = nn.Conv3d(5, 5, 1)
        self.last = nn.Conv3d(11, 3, 3, padding=1)

    def forward(self, x):
        a = self.prelu(self.batch(self.first(x)))
        b = F.relu(self.grouped(F.max_pool3d(a, 2)))
        b = b + 0.5 * self.depthwise(F.avg_pool3d(b, 3, stride=1, padding=1))
        c = self.up(b)
        c = c * torch.sigmoid(self.gate(F.adaptive_avg_pool3d(c, 1)))
        d = F.interpolate(F.interpolate(a, scale_factor=0.5, mode="trilinear", align_corners=False), size=x.shape[2:],
                          mode="nearest")
        return torch.softmax(self.last(torch.cat([c, d], 1)), 1)


class Resized(nn.Module):
    """A U-Net that upsamples by interpolation to its skip's size, computed from shapes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 7, 3, padding=1, stride=(1, 2, 2))
        self.norm = nn.InstanceNorm3d(7, affine=True)
        self.c = nn.Conv3d(11, 2, 1)

    def forward(self, x):
        a = F.leaky_relu(self.a(x), 0.1)
        b = F.leaky_relu(self.norm(self.b(a)) * 1.5 - 0.25, 0.1)
        b = F.interpolate(b, size=a.shape[2:], mode="trilinear", align_corners=True)
        return self.c(torch.cat([b, a], 1))


def networks():
    """Name, network, shape of the input, whether axes are open."""
    cube = [[3] * 3] * 3
    yield "residual_3d", unet(ResidualEncoderUNet, nn.Conv3d, nn.InstanceNorm3d, cube, [[1] * 3, [2] * 3, [1, 2, 2]],
                              [1, 2, 2]), (1, 1, 6, 12, 20), True
    yield "anisotropic_3d", unet(PlainConvUNet, nn.Conv3d, nn.InstanceNorm3d, [[1, 3, 3], [3, 3, 3]],
                                 [[1, 1, 1], [1, 2, 2]], [2, 2]), (1, 1, 5, 12, 36), True
    yield "plain_2d", unet(PlainConvUNet, nn.Conv2d, nn.InstanceNorm2d, [[3, 3]] * 3, [[1, 1], [2, 2], [2, 2]],
                           [2, 2, 2]), (1, 1, 24, 36), True
    yield "mixed_3d", Mixed(), (1, 2, 6, 8, 18), False
    yield "resized_3d", Resized(), (1, 1, 5, 8, 22), True


def export(net, x, open_axes):
    buffer = io.BytesIO()
    names = {0: "batch", **{k: f"axis{k}" for k in range(2, x.ndim)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, x, buffer, opset_version=17, dynamo=False, input_names=["input"], output_names=["output"],
                          dynamic_axes={"input": names, "output": names} if open_axes else None)
    model = onnx.load_from_string(buffer.getvalue())
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def main():
    HERE.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    cases = []
    for seed, (name, net, shape, open_axes) in enumerate(networks()):
        generator = torch.Generator().manual_seed(seed)
        for key, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                fan = max(1, tensor[0].numel()) if tensor.ndim > 1 else 1
                positive = "running_var" in key or (tensor.ndim == 1 and key.endswith("weight"))
                with torch.no_grad():
                    tensor.copy_(1 + 0.2 * noise.clamp(-2, 2) if positive else noise * (2 / fan) ** 0.5 * (
                        1 if tensor.ndim > 1 else 0.2))
        net.eval()
        x = torch.randn(shape, generator=generator)
        payload = export(net, x, open_axes)
        expected = onnxruntime.InferenceSession(payload, providers=["CPUExecutionProvider"]).run(
            None, {"input": x.numpy()})[0]
        with torch.inference_mode():
            assert np.abs(net(x).numpy() - expected).max() < 1e-4 * np.abs(expected).max(), name
        (HERE / f"{name}.onnx").write_bytes(payload)
        np.save(HERE / f"{name}_input.npy", x.numpy())
        np.save(HERE / f"{name}_expected.npy", expected)
        cases.append({"name": name, "model": f"{name}.onnx", "input": f"{name}_input.npy",
                      "expected": f"{name}_expected.npy", "largest": round(float(np.abs(expected).max()), 4)})
        print(f"{name}: {len(payload)} bytes, {expected.shape}, up to {cases[-1]['largest']}",
              sorted({n.op_type for n in onnx.load_from_string(payload).graph.node}))
    lines = ",\n".join("    " + json.dumps(case) for case in cases)
    (HERE / "index.json").write_text('{\n  "stage": "graphs",\n  "cases": [\n' + lines + "\n  ]\n}\n")


if __name__ == "__main__":
    main()
