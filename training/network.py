"""The student networks: FastnnUNet's LiteNNUNetStudent, which is a slim PlainConvUNet; and weights to begin with.

Written out with the parameter names that nnU-Net's own class has, so that it needs nothing but PyTorch.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from tasks import Task


class Convolution(nn.Module):
    """Convolution, instance norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, flat: bool):
        super().__init__()
        self.conv = (nn.Conv2d if flat else nn.Conv3d)(inputs, outputs, 3, stride, 1)
        self.norm = (nn.InstanceNorm2d if flat else nn.InstanceNorm3d)(outputs, eps=1e-5, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.01)


class Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, flat: bool):
        super().__init__()
        self.convs = nn.Sequential(Convolution(inputs, outputs, stride, flat), Convolution(outputs, outputs, 1, flat))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x)


class Encoder(nn.Module):
    def __init__(self, inputs: int, features, flat: bool):
        super().__init__()
        widths = [inputs, *features]
        self.stages = nn.ModuleList(nn.Sequential(Stage(widths[i], widths[i + 1], 1 if i == 0 else 2, flat))
                                    for i in range(len(features)))


class Decoder(nn.Module):
    def __init__(self, features, classes: int, flat: bool):
        super().__init__()
        up = nn.ConvTranspose2d if flat else nn.ConvTranspose3d
        steps = list(zip(features[:0:-1], features[-2::-1]))
        self.transpconvs = nn.ModuleList(up(below, width, 2, 2) for below, width in steps)
        self.stages = nn.ModuleList(Stage(2 * width, width, 1, flat) for _, width in steps)
        self.seg_layers = nn.ModuleList((nn.Conv2d if flat else nn.Conv3d)(width, classes, 1) for _, width in steps)


class Student(nn.Module):
    """`deep_supervision`: logits of every level, the finest first, instead of those of the finest alone."""

    def __init__(self, inputs: int, features, classes: int, flat: bool, deep_supervision: bool):
        super().__init__()
        self.deep_supervision = deep_supervision
        self.encoder = Encoder(inputs, features, flat)
        self.decoder = Decoder(features, classes, flat)

    def forward(self, x: torch.Tensor):
        skips = []
        for stage in self.encoder.stages:
            x = stage(x)
            skips.append(x)
        outputs = []
        decoder, last = self.decoder, len(self.decoder.stages) - 1
        for level, skip in enumerate(skips[-2::-1]):
            x = decoder.stages[level](torch.cat((decoder.transpconvs[level](x), skip), 1))
            if self.deep_supervision or level == last:
                outputs.append(decoder.seg_layers[level](x))
        return outputs[::-1] if self.deep_supervision else outputs[0]


def build_student(task: Task, deep_supervision: bool) -> Student:
    return Student(task.input_channels, task.features, len(task.labels) + 1, task.flat, deep_supervision)


def read_tensors(path: Path, network: str | None = None) -> dict[str, torch.Tensor]:
    """Weights by name, from an exported ONNX file or a checkpoint, of which some hold several networks."""
    if path.suffix == ".onnx":
        import onnx
        import onnx.numpy_helper

        tensors = onnx.load(path).graph.initializer
        return {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in tensors}
    stored = torch.load(path, weights_only=True, map_location="cpu")
    networks = stored["networks"]
    chosen = networks[network or next(iter(networks))]
    return {name: w.float() for name, w in chosen["network_weights"].items()}


def read_weights(path: Path, net: nn.Module, network: str | None = None) -> dict[str, torch.Tensor]:
    """Weights to begin with, of this network or of one half as wide.

    The side heads, which an exported network has not, keep their random start; so does what a first
    convolution with more input channels or a last one with more labels has beyond the given weights.
    """
    found = read_tensors(path, network)
    state = net.state_dict()
    used = 0
    for name, value in state.items():
        new = found.get(name)
        if new is None:
            continue
        if "seg_layers" in name and new.shape[0] > value.shape[0]:
            continue
        new = widen(name, new, value.shape)
        if new.shape == value.shape:
            state[name] = new
        elif all(a <= b for a, b in zip(new.shape, value.shape)) and ("seg_layers" in name or new.shape[1] < value.shape[1]):
            # More labels or more input channels than the given network has: the others begin at random.
            state[name] = value.clone()
            state[name][tuple(slice(n) for n in new.shape)] = new
        else:
            raise SystemExit(f"{path}: {name} is {tuple(new.shape)}, expected {tuple(value.shape)}")
        used += 1
    if used < 10:
        raise SystemExit(f"{path}: {used} of {len(state)} tensors have the names of this network")
    print(f"{used} of {len(state)} tensors from {path.name}")
    return state


def widen(name: str, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The same function computed by twice the channels (Net2Net: Chen et al., ICLR 2016).

    Each channel is there twice, and what reads it takes a random share from either copy, so that
    the copies learn different things from the first step on.
    """
    outputs, inputs = (1, 0) if "transpconv" in name and weight.dim() > 1 else (0, 1)
    if "seg_layers" not in name and shape[outputs] == 2 * weight.shape[outputs]:
        weight = torch.cat([weight, weight], outputs)
    if weight.dim() > 1 and shape[inputs] == 2 * weight.shape[inputs]:
        share = torch.empty_like(weight).uniform_(0.3, 0.7)
        # A decoder's first convolution reads the upsampled channels and then the skipped ones.
        parts = 2 if name.startswith("decoder.stages") and ".convs.0." in name else 1
        pieces = [torch.cat([a, b], inputs) for a, b in
                  zip((weight * share).chunk(parts, inputs), (weight * (1 - share)).chunk(parts, inputs))]
        weight = torch.cat(pieces, inputs)
    return weight
