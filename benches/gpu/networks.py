"""An ONNX file as a PyTorch module: the same weights and operators, for comparison only."""

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F


class Onnx(nn.Module):
    """Runs the operators nnU-Net's architectures export to; any other is an error here, not later."""

    def __init__(self, path):
        super().__init__()
        graph = onnx.load(path).graph
        self.names, self.steps = {}, []
        for tensor in graph.initializer:
            self._keep(tensor.name, numpy_helper.to_array(tensor))
        for node in graph.node:
            settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._keep(node.output[0], numpy_helper.to_array(settings["value"]))
                continue
            if node.op_type not in OPERATORS:
                raise SystemExit(f"{path}: operator {node.op_type} is not known here")
            self.steps.append((OPERATORS[node.op_type], list(node.input), node.output[0], settings))
        self.input, self.output = graph.input[0].name, graph.output[0].name

    def _keep(self, name, array):
        self.names[name] = f"weight{len(self.names)}"
        self.register_buffer(self.names[name], torch.from_numpy(np.array(array)))

    def forward(self, x):
        values = {self.input: x}
        for run, inputs, output, settings in self.steps:
            operands = [values[name] if name in values else getattr(self, self.names[name]) for name in inputs if name]
            values[output] = run(settings, *operands)
        return values[self.output]


def _pads(settings, rank):
    pads = settings.get("pads", [0] * 2 * rank)
    if list(pads[:rank]) != list(pads[rank:]):
        raise SystemExit(f"pads {pads} differ at the two ends")
    return pads[:rank]


def _conv(settings, x, weight, bias=None):
    rank = weight.dim() - 2
    convolve = F.conv3d if rank == 3 else F.conv2d
    return convolve(x, weight, bias, settings.get("strides", [1] * rank), _pads(settings, rank),
                    settings.get("dilations", [1] * rank), settings.get("group", 1))


def _transposed(settings, x, weight, bias=None):
    rank = weight.dim() - 2
    convolve = F.conv_transpose3d if rank == 3 else F.conv_transpose2d
    return convolve(x, weight, bias, settings.get("strides", [1] * rank), _pads(settings, rank),
                    settings.get("output_padding", [0] * rank), settings.get("group", 1))


def _pool(settings, x):
    rank = x.dim() - 2
    pool = F.avg_pool3d if rank == 3 else F.avg_pool2d
    return pool(x, settings["kernel_shape"], settings.get("strides", [1] * rank), _pads(settings, rank))


OPERATORS = {
    "Add": lambda s, a, b: a + b,
    "AveragePool": _pool,
    "Concat": lambda s, *parts: torch.cat(parts, s["axis"]),
    "Conv": _conv,
    "ConvTranspose": _transposed,
    "Identity": lambda s, x: x,
    "InstanceNormalization": lambda s, x, w, b: F.instance_norm(x, weight=w, bias=b, eps=s.get("epsilon", 1e-5)),
    "LeakyRelu": lambda s, x: F.leaky_relu(x, s.get("alpha", 0.01)),
    "Mul": lambda s, a, b: a * b,
    "Relu": lambda s, x: F.relu(x),
    "Sigmoid": lambda s, x: torch.sigmoid(x),
}
