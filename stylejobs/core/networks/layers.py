"""Building blocks that several networks share, what they check their inputs with, and how their weights begin.

Blocks normalise each image alone: a row's result must not depend on its batch.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.choices import choose

_IMAGE_CHANNELS, _WIDE_KERNEL_PX = 4, 5


class InstanceNorm(nn.InstanceNorm2d):
    """torch's, faster on the CPU, where that one copies its input twice and has a slow kernel.

    A group norm whose groups are single channels is the same, and so is the batch norm of one row, whose kernel is the
    fast one where memory runs channels last, as in training. Results differ in the last digits. No running statistics.
    """

    def forward(self, features_BCHW: Tensor) -> Tensor:
        # torch's own refuses a single cell, which has no variance.
        if features_BCHW.device.type != "cpu" or features_BCHW.shape[-2:].numel() < 2:
            return super().forward(features_BCHW)
        if features_BCHW.is_contiguous() or not features_BCHW.is_contiguous(memory_format=torch.channels_last):
            return F.group_norm(features_BCHW, self.num_features, self.weight, self.bias, self.eps)
        rows = [
            F.batch_norm(row_1CHW, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for row_1CHW in features_BCHW.split(1)
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": InstanceNorm,
    "affine_instance": lambda channels: InstanceNorm(channels, affine=True),
    "batch": nn.BatchNorm2d,
    "none": lambda channels: nn.Identity(),
}


def build_norm(kind: str, channels: int, kinds: tuple[str, ...] = tuple(NORMS)) -> nn.Module:
    """The norm called `kind`, a key of `NORMS`, for feature maps of `channels` channels.

    "instance" has no weights, so the convolution before it keeps its bias, which does nothing, as in the public code of
    Zhu 2017. "batch" exists for weights that were trained with it: in training its statistics tie the rows of a batch
    together, and a critic then judges batches in place of images.

    Args:
        kinds: what the network that asks can work with.
    """
    return choose("norm", {name: NORMS[name] for name in kinds}, kind)(channels)


def build_conv(in_channels: int, out_channels: int, kernel_px: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the size (divided by the stride), reflecting at the border; odd kernels only."""
    if kernel_px % 2 == 0:
        raise ValueError(f"wanted an odd kernel_px, so that the result is centred; got {kernel_px}")
    makes_image = out_channels <= _IMAGE_CHANNELS and kernel_px >= _WIDE_KERNEL_PX and stride == 1
    kind = ImageConv if makes_image else nn.Conv2d
    return kind(in_channels, out_channels, kernel_px, stride, kernel_px // 2, bias=bias, padding_mode="reflect")


def pad_with(module: nn.Module, padding_mode: str) -> None:
    """Sets what all convolutions of a network see past the border, "zeros" or "reflect"; not the transposed ones.

    For weights that were trained so: blocks here reflect, backbones have zeros.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.padding_mode = padding_mode


class ImageConv(nn.Conv2d):
    """A convolution with a wide kernel to a few channels, three times faster in training on the CPU; see `build_conv`.

    Kernels there work on sixteen output channels at a time, and an image has three. So every row of the kernel becomes
    output channels of its own, and their results are added, each moved by its row: the same products in another order.
    The rows take memory, of which large images leave none to spare: without gradients it is the plain convolution.
    """

    def forward(self, features_BCHW: Tensor) -> Tensor:
        plain = features_BCHW.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        if plain or not torch.is_grad_enabled():
            return super().forward(features_BCHW)
        (kernel_px, _), (pad_px, _), channels = self.kernel_size, self.padding, self.out_channels
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded_BCHW = F.pad(features_BCHW, (pad_px,) * 4, mode=mode)
        weight = self.weight.permute(2, 0, 1, 3).reshape(kernel_px * channels, self.in_channels, 1, kernel_px)
        rows_BRHW = F.conv2d(padded_BCHW, weight).contiguous()
        batch, _, height, width = rows_BRHW.shape
        plane, stacked = height * width, (batch, kernel_px, channels, height - kernel_px + 1, width)
        # Row r of the kernel begins r rows of the image further down.
        strides = (kernel_px * channels * plane, channels * plane + width, plane, width, 1)
        image_BCHW = rows_BRHW.as_strided(stacked, strides).sum(dim=1)
        return image_BCHW if self.bias is None else image_BCHW + self.bias[:, None, None]


def bound(image_BCHW: Tensor, clamped: bool) -> Tensor:
    """A head's result as an image in [-1, 1]: by tanh, or cut off where the weights were trained without one."""
    return image_BCHW.clamp(-1.0, 1.0) if clamped else torch.tanh(image_BCHW)


class ConvNormRelu(nn.Module):
    """Reflection-padded convolution, affine instance norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_px: int, stride: int = 1):
        super().__init__()
        self.conv = build_conv(in_channels, out_channels, kernel_px, stride)
        self.norm = InstanceNorm(out_channels, affine=True)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(features_BCHW)), inplace=True)


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3 convolutions, no ReLU after the sum.

    Args:
        norm: a key of `NORMS`.
        bias: whether the convolutions have one.
        inner: channels between the two convolutions; None takes `channels`, `compress.prune_blocks` leaves fewer.

    Source: He, Zhang, Ren & Sun 2016, arXiv:1512.03385; without the last ReLU as in Gross & Wilber 2016.
    """

    def __init__(self, channels: int, norm: str = "affine_instance", bias: bool = True, inner: int | None = None):
        super().__init__()
        inner = channels if inner is None else inner
        if inner < 1:
            raise ValueError(f"wanted inner >= 1 channels in a residual block; got {inner}")
        self.conv1 = build_conv(channels, inner, 3, bias=bias)
        self.norm1 = build_norm(norm, inner)
        self.conv2 = build_conv(inner, channels, 3, bias=bias)
        self.norm2 = build_norm(norm, channels)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        hidden_BCHW = F.relu(self.norm1(self.conv1(features_BCHW)), inplace=True)
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


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Draws every weight of convolutions and linear maps from N(0, std), of affine norms from N(1, std); biases are 0.

    How networks of a GAN begin. Draws from torch's global generator, as all initialisers do.

    Source: Radford, Metz & Chintala 2016, arXiv:1511.06434, section 4; Zhu et al. 2017, arXiv:1703.10593, section 7.1.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, std)
        elif isinstance(part, nn.InstanceNorm2d | nn.BatchNorm2d) and part.weight is not None:
            nn.init.normal_(part.weight, 1.0, std)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def init_critic(critic: nn.Module, norm: str, negative_slope: float) -> None:
    """Draws a critic's weights: N(0, 0.02) where norms bring the signal back to size, He's where there are none."""
    if norm == "none":
        init_he(critic, negative_slope)
    else:
        init_normal(critic)


def init_he(module: nn.Module, negative_slope: float) -> None:
    """Draws every weight of convolutions and linear maps so that leaky ReLUs keep the variance; biases are 0.

    How critics without norms begin: with N(0, 0.02) each layer would shrink the signal, by a lot where it is narrow,
    and a penalty on the slope would have hardly a slope to work on.

    Source: He, Zhang, Ren & Sun 2015, arXiv:1502.01852, equation 15.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, a=negative_slope, nonlinearity="leaky_relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def receptive_field_px(convs: Iterable[nn.Conv2d]) -> int:
    """Side of the square of input that one cell of the result of square convolutions, one after another, sees.

    From the last to the first: side = (side - 1) * stride + kernel. Norms over the whole image are left out of account.

    Source: Isola, Zhu, Zhou & Efros 2017, arXiv:1611.07004, section 6.1.2, which names the sides of its critics.

    >>> receptive_field_px([nn.Conv2d(3, 8, 4, stride=2), nn.Conv2d(8, 1, 4)])
    10
    """
    side_px = 1
    for conv in reversed(list(convs)):
        side_px = (side_px - 1) * conv.stride[0] + conv.kernel_size[0]
    return side_px


def check_images(image_BCHW: Tensor, min_px: int) -> None:
    """Raises ValueError unless the images are a float RGB batch whose sides are at least `min_px`."""
    if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3 or not image_BCHW.is_floating_point():
        raise ValueError(f"wanted float images [B, 3, H, W]; got {image_BCHW.dtype} {list(image_BCHW.shape)}")
    if min(image_BCHW.shape[-2:]) < min_px:
        height, width = image_BCHW.shape[-2:]
        raise ValueError(
            f"wanted images of at least {min_px}x{min_px} px for this critic; got {height}x{width}; "
            "give it larger images or fewer layers"
        )


def check_inputs(content_BCHW: Tensor, style_BD: Tensor, style_dim: int) -> None:
    """Raises ValueError unless the content is a float RGB batch and every row has a style code of `style_dim`."""
    if content_BCHW.ndim != 4 or content_BCHW.shape[1] != 3 or not content_BCHW.is_floating_point():
        raise ValueError(f"wanted float content [B, 3, H, W]; got {content_BCHW.dtype} {list(content_BCHW.shape)}")
    if style_BD.shape != (content_BCHW.shape[0], style_dim):
        raise ValueError(
            f"wanted style codes [{content_BCHW.shape[0]}, {style_dim}], one row for every image; "
            f"got {list(style_BD.shape)}"
        )
