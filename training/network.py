"""The student network: FastnnUNet's LiteNNUNetStudent, which is a slim PlainConvUNet."""

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

FEATURES = (8, 16, 32, 64, 80)
PATCH = (80, 80, 80)


def build_student(deep_supervision: bool) -> PlainConvUNet:
    stages = len(FEATURES)
    return PlainConvUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=FEATURES,
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=(1,) + (2,) * (stages - 1),
        n_conv_per_stage=2,
        num_classes=2,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": 0.01, "inplace": True},
        deep_supervision=deep_supervision,
    )
