"""A translator whose decoder is modulated by a style vector (StyleGAN 2, Karras 2020; StarGAN 2, Choi 2020)."""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.networks.layers import InstanceNorm, ResidualBlock, build_conv, check_inputs
from stylejobs.core.pixels import crop_to, pad_to_multiple

# Below it, instance norm at a quarter of the size would have a handful of cells, and one cell has no variance at all.
_MIN_PX = 16
_MAPPING_LAYERS = 8

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def modulate(weight_OIKK: Tensor, scale_BI: Tensor, demodulate: bool = True) -> Tensor:
    """A convolution's weights for each row of a batch.

    w'_oik = s_i w_oik, then w''_oik = w'_oik / sqrt(sum over i, k of w'_oik^2 + 1e-8): each output channel's weights
    have norm 1, so inputs of unit variance give outputs of unit variance, whatever the style. What instance norm does
    to the features of an image, this does to their expectation, and so without its droplets.

    Args:
        weight_OIKK: the shared weights.
        scale_BI: a factor on each input channel, row by row.
        demodulate: whether the norms are made 1.

    Returns:
        weight_BOIKK, float32 or wider.

    Source: Karras et al. 2020, arXiv:1912.04958, equations 1 and 3.
    """
    dtype = torch.promote_types(weight_OIKK.dtype, torch.float32)
    weight_BOIKK = weight_OIKK.to(dtype)[None] * scale_BI.to(dtype)[:, None, :, None, None]
    if not demodulate:
        return weight_BOIKK
    return weight_BOIKK * (weight_BOIKK.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()


class ModulatedConv(nn.Module):
    """A convolution with weights of its own for each row, by `modulate`; reflects at the border, keeps the size.

    Args:
        in_channels: of the features.
        out_channels: of the result.
        kernel_px: odd.
        style_dim: of the style; an affine map of it gives the factors, which are near 1 at the start.
        demodulate: whether the weights' norms are made 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_px: int, style_dim: int, demodulate: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_px, kernel_px))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = nn.Linear(style_dim, in_channels)
        self.demodulate = demodulate
        nn.init.normal_(self.weight, 0.0, (in_channels * kernel_px * kernel_px) ** -0.5)
        nn.init.normal_(self.scale.weight, 0.0, style_dim**-0.5)
        nn.init.ones_(self.scale.bias)

    def forward(self, features_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        batch, _, height, width = features_BCHW.shape
        weight_BOIKK = modulate(self.weight, self.scale(style_BD), self.demodulate).to(features_BCHW.dtype)
        edge_px = self.weight.shape[-1] // 2
        padded_BCHW = F.pad(features_BCHW, (edge_px,) * 4, mode="reflect")
        # One grouped convolution, a group a row: the rows' channels lie side by side in one image.
        rows_1CHW = padded_BCHW.reshape(1, -1, *padded_BCHW.shape[-2:])
        out_1CHW = F.conv2d(rows_1CHW, weight_BOIKK.flatten(0, 1), groups=batch)
        return out_1CHW.reshape(batch, -1, height, width) + self.bias[:, None, None]


class ModulatedBlock(nn.Module):
    """(x + conv(lrelu(conv(lrelu(x))))) / sqrt(2), 3x3 modulated convolutions; `up` doubles both sides before.

    The gain sqrt(2) of each leaky ReLU and the division keep the variance. The shortcut is a 1x1 convolution where the
    number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, up: bool = False):
        super().__init__()
        self.up = up
        self.conv1 = ModulatedConv(in_channels, out_channels, 3, style_dim)
        self.conv2 = ModulatedConv(out_channels, out_channels, 3, style_dim)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, features_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        if self.up:
            features_BCHW = F.interpolate(features_BCHW, scale_factor=2, mode="nearest")
        hidden_BCHW = self.conv1(_lrelu(features_BCHW), style_BD)
        hidden_BCHW = self.conv2(_lrelu(hidden_BCHW), style_BD)
        return (self.shortcut(features_BCHW) + hidden_BCHW) / math.sqrt(2.0)


class Mapping(nn.Module):
    """Noise to style: z / rms(z), then 8 linear layers with leaky ReLU (0.2) between them.

    Differs from paper: no slower learning rate and no equalised weights; a method may give it a rate of its own.
    Source: Karras, Laine & Aila 2019, arXiv:1812.04948, section 2; Choi et al. 2020, arXiv:1912.01865, section 2.
    """

    def __init__(self, style_dim: int, width: int):
        super().__init__()
        parts: list[nn.Module] = []
        for index in range(_MAPPING_LAYERS):
            last = index == _MAPPING_LAYERS - 1
            parts.append(_linear(width if index else style_dim, style_dim if last else width))
            parts += [] if last else [nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*parts)

    def forward(self, z_BD: Tensor) -> Tensor:
        """z_BD, drawn from N(0, 1), to style_BD."""
        return self.layers(z_BD * (z_BD.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt())


class StyleEncoder(nn.Module):
    """An image to its style: strided convolutions with leaky ReLU, mean over the places, a linear map.

    No instance norm: it takes away each channel's mean and deviation, which are the style.

    Source: Choi et al. 2020, arXiv:1912.01865, section 2 and table 8, with plain convolutions in place of blocks.
    """

    def __init__(self, width: int, style_dim: int):
        super().__init__()
        channels = [3, width, 2 * width, 4 * width, 4 * width]
        parts: list[nn.Module] = []
        for index in range(4):
            parts += [_init_he(build_conv(channels[index], channels[index + 1], 3, 2 if index else 1))]
            parts += [nn.LeakyReLU(0.2)]
        self.convs = nn.Sequential(*parts)
        self.head = _linear(4 * width, style_dim)

    def forward(self, style_BCHW: Tensor) -> Tensor:
        """style_BCHW [-1, 1] of any size to style_BD."""
        padded_BCHW = pad_to_multiple(style_BCHW, 1, _MIN_PX)
        return self.head(self.convs(padded_BCHW).mean(dim=(2, 3)))


class Synthesis(nn.Module):
    """Content and style to image: an encoder that keeps the layout, and a decoder of modulated convolutions.

    7x7 stem, two stride-2 convolutions and residual blocks with instance norm, which hand on where things are and not
    how they look; then modulated blocks, two of them doubling the side, and a 1x1 modulated convolution to RGB, tanh.
    """

    def __init__(self, width: int, style_dim: int, blocks: int):
        super().__init__()
        parts: list[nn.Module] = []
        for in_channels, out_channels, kernel_px, stride in (
            (3, width, 7, 1),
            (width, 2 * width, 3, 2),
            (2 * width, 4 * width, 3, 2),
        ):
            parts += [build_conv(in_channels, out_channels, kernel_px, stride), InstanceNorm(out_channels)]
            parts.append(nn.LeakyReLU(0.2))
        parts += [ResidualBlock(4 * width) for _ in range(blocks)]
        self.encoder = nn.Sequential(*parts)
        self.decoder = nn.ModuleList(
            [
                *(ModulatedBlock(4 * width, 4 * width, style_dim) for _ in range(blocks)),
                ModulatedBlock(4 * width, 2 * width, style_dim, up=True),
                ModulatedBlock(2 * width, width, style_dim, up=True),
            ]
        )
        self.to_rgb = ModulatedConv(width, 3, 1, style_dim, demodulate=False)

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Images whose sides are multiples of 4, at least 16 px, and styles to stylized_BCHW in (-1, 1)."""
        features_BCHW = self.encoder(content_BCHW)
        for block in self.decoder:
            features_BCHW = block(features_BCHW, style_BD)
        return torch.tanh(self.to_rgb(_lrelu(features_BCHW), style_BD))


class StyleModulated(nn.Module):
    """A translator with a style vector from an image (`style_encoder`) or from noise (`mapping`).

    Parts: `synthesis`, `style_encoder` and `mapping`, each a network of its own that may be called alone.

    Args:
        width: channels at full size; 4 * width at 1/4 of it.
        style_dim: numbers of a style, and of the noise z.
        blocks: residual blocks of the encoder, and again of the decoder, at 1/4 of the size.

    Differs from paper: StyleGAN 2 has no encoder and starts from a constant; here, as in StarGAN 2, from the content,
    with weight demodulation in place of StarGAN 2's AdaIN. Nearest-neighbour upsampling in place of filtered transposed
    convolutions. No noise inputs: the same content and style give the same image.
    Source: Karras et al. 2020, arXiv:1912.04958; Choi et al. 2020, arXiv:1912.01865.
    """

    multiple = 4

    def __init__(self, width: int = 64, style_dim: int = 64, blocks: int = 2):
        super().__init__()
        if width < 1 or style_dim < 1 or blocks < 0:
            raise ValueError(f"wanted width and style_dim >= 1 and blocks >= 0; got {width}, {style_dim} and {blocks}")
        self.style_dim = style_dim
        self.synthesis = Synthesis(width, style_dim, blocks)
        self.mapping = Mapping(style_dim, 8 * width)
        self.style_encoder = StyleEncoder(width, style_dim)

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, style_dim], from `encode_style` or `draw_style`, or a mix.

        Returns:
            stylized_BCHW in (-1, 1), of the content's height and width.
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        padded_BCHW = pad_to_multiple(content_BCHW, self.multiple, _MIN_PX)
        return crop_to(self.synthesis(padded_BCHW, style_BD), *content_BCHW.shape[-2:])

    def encode_style(self, style_BCHW: Tensor) -> Tensor:
        """The style of each image: style_BD."""
        return self.style_encoder(style_BCHW)

    def draw_style(self, seed: int) -> Tensor:
        """The style of a seed: style_D. The noise is the same on every machine."""
        z_1D = torch.randn(1, self.style_dim, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return self.mapping(z_1D.to(self.mapping.layers[0].weight))[0]


def _lrelu(features_BCHW: Tensor) -> Tensor:
    return F.leaky_relu(features_BCHW, 0.2) * math.sqrt(2.0)


def _linear(in_features: int, out_features: int) -> nn.Linear:
    return _init_he(nn.Linear(in_features, out_features))


def _init_he(layer: Layer) -> Layer:
    # He 2015. Torch's default keeps a third of the variance: after eight layers every z would give the same style.
    nn.init.kaiming_normal_(layer.weight, a=0.2, nonlinearity="leaky_relu")
    nn.init.zeros_(layer.bias)
    return layer
