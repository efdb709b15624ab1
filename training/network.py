"""The student networks: FastnnUNet's LiteNNUNetStudent, which is a slim PlainConvUNet; and weights to begin with."""

from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from tasks import Task


def build_student(task: Task, deep_supervision: bool) -> PlainConvUNet:
    stages = len(task.features)
    flat = task.flat
    return PlainConvUNet(
        input_channels=task.input_channels,
        n_stages=stages,
        features_per_stage=task.features,
        conv_op=nn.Conv2d if flat else nn.Conv3d,
        kernel_sizes=3,
        strides=(1,) + (2,) * (stages - 1),
        n_conv_per_stage=2,
        num_classes=len(task.labels) + 1,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if flat else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": 0.01, "inplace": True},
        deep_supervision=deep_supervision,
    )


def read_weights(path: Path, net: nn.Module) -> dict[str, torch.Tensor]:
    """Weights by name, from a checkpoint or an exported ONNX file, of this network or of one half as wide.

    The side heads, which an exported network has not, and heads for other labels keep their
    random start; so does a first convolution with more input channels, except for the channel of the image.
    """
    if path.suffix == ".onnx":
        import onnx
        import onnx.numpy_helper

        tensors = onnx.load(path).graph.initializer
        found = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in tensors}
    else:
        found = torch.load(path, weights_only=True)["network_weights"]
    state = net.state_dict()
    used = 0
    for name, value in state.items():
        new = found.get(name)
        if new is None or "seg_layers" in name and new.shape[0] != value.shape[0]:
            continue
        new = widen(name, new, value.shape)
        if new.shape == value.shape:
            state[name] = new
        elif new.dim() > 1 and new.shape[1] < value.shape[1] and new.shape[2:] == value.shape[2:]:
            state[name] = value.clone()
            state[name][:, : new.shape[1]] = new
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
    if shape[outputs] == 2 * weight.shape[outputs]:
        weight = torch.cat([weight, weight], outputs)
    if weight.dim() > 1 and shape[inputs] == 2 * weight.shape[inputs]:
        share = torch.empty_like(weight).uniform_(0.3, 0.7)
        # A decoder's first convolution reads the upsampled channels and then the skipped ones.
        parts = 2 if name.startswith("decoder.stages") and ".convs.0." in name else 1
        pieces = [torch.cat([a, b], inputs) for a, b in
                  zip((weight * share).chunk(parts, inputs), (weight * (1 - share)).chunk(parts, inputs))]
        weight = torch.cat(pieces, inputs)
    return weight
