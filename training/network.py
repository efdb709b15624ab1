"""The student networks: FastnnUNet's LiteNNUNetStudent, which is a slim PlainConvUNet."""

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
