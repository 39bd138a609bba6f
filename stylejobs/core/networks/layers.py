"""Building blocks that several generators share. No batch norm: a row's result must not depend on its batch."""

import torch.nn.functional as F
from torch import Tensor, nn


def build_conv(in_channels: int, out_channels: int, kernel_px: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (divided by the stride), reflecting at the border; odd kernels only."""
    if kernel_px % 2 == 0:
        raise ValueError(f"wanted an odd kernel_px, so that the result is centred; got {kernel_px}")
    return nn.Conv2d(in_channels, out_channels, kernel_px, stride, kernel_px // 2, padding_mode="reflect")


class ConvNormRelu(nn.Module):
    """Reflection-padded convolution, affine instance norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_px: int, stride: int = 1):
        super().__init__()
        self.conv = build_conv(in_channels, out_channels, kernel_px, stride)
        self.norm = nn.InstanceNorm2d(out_channels, affine=True)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(features_BCHW)))


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3 convolutions, no ReLU after the sum.

    Source: He, Zhang, Ren & Sun 2016, arXiv:1512.03385; without the last ReLU as in Gross & Wilber 2016.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = build_conv(channels, channels, 3)
        self.norm1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = build_conv(channels, channels, 3)
        self.norm2 = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        hidden_BCHW = F.relu(self.norm1(self.conv1(features_BCHW)))
        return features_BCHW + self.norm2(self.conv2(hidden_BCHW))


class UpsampleBlock(nn.Module):
    """Doubles both sides by nearest neighbour, then ConvNormRelu; a transposed convolution leaves a checkerboard.

    Source: Odena, Dumoulin & Olah 2016, doi:10.23915/distill.00003.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.block = ConvNormRelu(in_channels, out_channels, 3)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.block(F.interpolate(features_BCHW, scale_factor=2, mode="nearest"))


def check_inputs(content_BCHW: Tensor, style_BD: Tensor, style_dim: int) -> None:
    """Raises ValueError unless the content is a float RGB batch and every row has a style code of `style_dim`."""
    if content_BCHW.ndim != 4 or content_BCHW.shape[1] != 3 or not content_BCHW.is_floating_point():
        raise ValueError(f"wanted float content [B, 3, H, W]; got {content_BCHW.dtype} {list(content_BCHW.shape)}")
    if style_BD.shape != (content_BCHW.shape[0], style_dim):
        raise ValueError(
            f"wanted style codes [{content_BCHW.shape[0]}, {style_dim}], one row for every image; "
            f"got {list(style_BD.shape)}"
        )
