"""The network of `fst`: an encoder, a recurrent decoder that refines a small image with attention, an interpolation.

Three networks, trained one after the other, each frozen afterwards: `Encoder` with a `Reconstruction`, which is thrown
away, then `Decoder`, whose small images are judged, then `Interpolation`. All weights of a network take part in its
result, in every stage.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.networks.huang2017 import style_code
from stylejobs.core.networks.layers import InstanceNorm, build_conv, check_inputs
from stylejobs.core.networks.park2019 import attend
from stylejobs.core.pixels import crop_to, pad_to_multiple

# Below it, instance norm at a quarter of the size would have a handful of cells, and one cell has no variance at all.
_MIN_PX = 16
_SHRINK = 4


class Encoder(nn.Module):
    """Three levels of two 3x3 convolutions with ReLU, as VGG's, the first of a level with stride 2 in place of a pool.

    No norm, so that channel means and deviations still tell styles apart. Reflects small images to 16 px, and sides to
    multiples of 4.

    Args:
        width: channels at full size; doubled at 1/2 and again at 1/4.

    Source: Simonyan & Zisserman 2015, arXiv:1409.1556; strides in place of pools: Springenberg et al. 2015,
    arXiv:1412.6806.
    """

    def __init__(self, width: int):
        super().__init__()
        widths = [3, width, 2 * width, 4 * width]
        self.levels = nn.ModuleList(
            nn.Sequential(
                build_conv(widths[level], widths[level + 1], 3, 2 if level else 1),
                nn.ReLU(),
                build_conv(widths[level + 1], widths[level + 1], 3),
                nn.ReLU(),
            )
            for level in range(3)
        )
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                # Without norms, torch's default would halve the signal at every convolution.
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """image_BCHW, [-1, 1], any size, to features_BCHW at 1, 1/2 and 1/4 of the padded size."""
        features_BCHW, levels = pad_to_multiple(image_BCHW, _SHRINK, _MIN_PX), []
        for level in self.levels:
            features_BCHW = level(features_BCHW)
            levels.append(features_BCHW)
        return levels


class Reconstruction(nn.Module):
    """The image back from the last level: what the encoder learns with, by reconstruction and perceptual content.

    No part of the generator. The other levels are not given, else nothing would have to reach the last one.

    Args:
        width: the encoder's.
    """

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.ReLU(),
            build_conv(width, 3, 3),
        )

    def forward(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """The encoder's levels and the image's (height, width) to image_BCHW in (-1, 1)."""
        return crop_to(torch.tanh(self.body(levels[-1])), *size)


class ConvGru(nn.Module):
    """A gated recurrent unit whose maps are 3x3 convolutions.

    z = sigmoid(conv_z[x, h]), r = sigmoid(conv_r[x, h]), c = tanh(conv_c[x, r * h]), h' = (1 - z) * h + z * c.

    Args:
        in_channels: of x.
        channels: of the state h.

    Differs from paper: reflection in place of zero padding.
    Source: Ballas, Yao, Pal & Courville 2016, arXiv:1511.06432, equations 6 to 9.
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.gates = build_conv(in_channels + channels, 2 * channels, 3)
        self.candidate = build_conv(in_channels + channels, channels, 3)

    def forward(self, input_BCHW: Tensor, state_BCHW: Tensor) -> Tensor:
        """The next state."""
        gates_BCHW = torch.sigmoid(self.gates(torch.cat([input_BCHW, state_BCHW], dim=1)))
        update_BCHW, reset_BCHW = gates_BCHW.chunk(2, dim=1)
        candidate_BCHW = torch.tanh(self.candidate(torch.cat([input_BCHW, reset_BCHW * state_BCHW], dim=1)))
        return (1.0 - update_BCHW) * state_BCHW + update_BCHW * candidate_BCHW


class LevelAttention(nn.Module):
    """h + gain * attend(query(h), keys, values) over grid x grid means of every level of the encoder.

    The number of keys does not grow with the image, so memory grows with its pixels and not with their square.

    Args:
        channels: of h.
        level_channels: of each level.
        grid: side of the grid of means.

    Differs from paper: keys and values come from all levels, pooled, in place of h itself; the gain starts at 1 and not
    at 0, since nothing else brings the levels to the decoder.
    Source: Zhang, Goodfellow, Metaxas & Odena 2019, arXiv:1805.08318, equations 1 to 3.
    """

    def __init__(self, channels: int, level_channels: list[int], grid: int):
        super().__init__()
        self.grid, inner = grid, max(1, channels // 2)
        self.query = nn.Conv2d(channels, inner, 1)
        self.keys = nn.ModuleList(nn.Conv2d(level, inner, 1) for level in level_channels)
        self.values = nn.ModuleList(nn.Conv2d(level, channels, 1) for level in level_channels)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, state_BCHW: Tensor, levels: list[Tensor]) -> Tensor:
        """The state, with what it found in the levels."""
        pooled = [F.adaptive_avg_pool2d(level_BCHW, self.grid) for level_BCHW in levels]
        key_BCM = torch.cat([key(tokens).flatten(2) for key, tokens in zip(self.keys, pooled, strict=True)], dim=2)
        value_BCM = torch.cat([value(tokens).flatten(2) for value, tokens in zip(self.values, pooled, strict=True)], 2)
        return state_BCHW + self.gain * attend(self.query(state_BCHW), key_BCM, value_BCM)


class StyleNorm(nn.Module):
    """Instance norm whose scale and shift are affine maps of the style: (1 + scale) * norm(x) + shift.

    Source: Dumoulin, Shlens & Kudlur 2017, arXiv:1610.07629, equation 5, with maps in place of a table of styles.
    """

    def __init__(self, channels: int, style_dim: int):
        super().__init__()
        self.norm = InstanceNorm(channels)
        self.affine = nn.Linear(style_dim, 2 * channels)

    def forward(self, features_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        scale_BC11, shift_BC11 = self.affine(style_BD)[:, :, None, None].chunk(2, dim=1)
        return (1.0 + scale_BC11) * self.norm(features_BCHW) + shift_BC11


class Decoder(nn.Module):
    """Refines a small stylized image in T steps: attend to the levels, step the ConvGRU, add to the image.

    One set of weights for all steps. The last level, in the style by `StyleNorm`, enters at every step.

    Args:
        width: the encoder's; the state has 4 * width channels.
        style_dim: of the style code.
        steps: T.
        grid: see LevelAttention.
    """

    def __init__(self, width: int, style_dim: int, steps: int, grid: int):
        super().__init__()
        self.steps = steps
        self.style = StyleNorm(4 * width, style_dim)
        self.start = build_conv(4 * width, 4 * width, 3)
        self.attention = LevelAttention(4 * width, [width, 2 * width, 4 * width], grid)
        self.gru = ConvGru(8 * width, 4 * width)
        self.to_rgb = build_conv(4 * width, 3, 3)

    def forward(self, levels: list[Tensor], style_BD: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The encoder's levels and style codes to the last state and the image after each step.

        Returns:
            state_BCHW in (-1, 1), and T of image_BCHW in (-1, 1), all at 1/4 of the padded size; the last is the best.
        """
        content_BCHW = self.style(levels[-1], style_BD)
        state_BCHW, image_BCHW, images = torch.tanh(self.start(content_BCHW)), 0.0, []
        for _ in range(self.steps):
            input_BCHW = torch.cat([content_BCHW, self.attention(state_BCHW, levels)], dim=1)
            state_BCHW = self.gru(input_BCHW, state_BCHW)
            image_BCHW = image_BCHW + self.to_rgb(state_BCHW)
            images.append(torch.tanh(image_BCHW))
        return state_BCHW, images


class Interpolation(nn.Module):
    """To full size: m * detail + (1 - m) * upsampled, both from two 4x4 stride-2 transposed convolutions in the style.

    `upsampled` is the decoder's small image, bilinear; `detail` an image that is drawn at full size, and m in (0, 1)
    says, pixel by pixel, which of the two is seen. A kernel of twice the stride covers every pixel equally often.

    Args:
        width: the encoder's.
        style_dim: of the style code.
    """

    def __init__(self, width: int, style_dim: int):
        super().__init__()
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1)
        self.style1 = StyleNorm(2 * width, style_dim)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        self.style2 = StyleNorm(width, style_dim)
        self.head = build_conv(width, 4, 7)

    def forward(self, state_BCHW: Tensor, small_BCHW: Tensor, style_BD: Tensor, size: tuple[int, int]) -> Tensor:
        """Makes the image.

        Args:
            state_BCHW: the decoder's last state.
            small_BCHW: the decoder's last image.
            style_BD: style codes.
            size: (height, width) of the content.

        Returns:
            stylized_BCHW in (-1, 1).
        """
        features_BCHW = F.relu(self.style1(self.up1(state_BCHW), style_BD))
        features_BCHW = F.relu(self.style2(self.up2(features_BCHW), style_BD))
        drawn_BCHW = self.head(features_BCHW)
        detail_BCHW, mask_B1HW = torch.tanh(drawn_BCHW[:, :3]), torch.sigmoid(drawn_BCHW[:, 3:])
        upsampled_BCHW = F.interpolate(small_BCHW, scale_factor=_SHRINK, mode="bilinear", align_corners=False)
        return crop_to(mask_B1HW * detail_BCHW + (1.0 - mask_B1HW) * upsampled_BCHW, *size)


class AttentionRecurrent(nn.Module):
    """encoder -> decoder (T steps, attention, in the style) -> interpolation.

    Parts: `encoder`, `decoder` and `interpolation`, each a network of its own; see this file's first lines for how they
    are trained. A style code is the means and deviations of all channels of the encoder's three levels, so it is
    settled once the encoder is.

    Args:
        width: channels at full size; 4 * width at 1/4 of it.
        steps: T, the decoder's refinement steps, which share their weights.
        grid: side of the grid of means of each level to which the decoder attends.

    Source: named in the literature piece by piece, see the parts; the order of the parts is this project's.
    """

    multiple = _SHRINK

    def __init__(self, width: int = 32, steps: int = 3, grid: int = 8):
        super().__init__()
        if width < 1 or steps < 1 or grid < 1:
            raise ValueError(f"wanted width, steps and grid >= 1; got {width}, {steps} and {grid}")
        self.width, self.style_dim = width, 14 * width
        self.encoder = Encoder(width)
        self.decoder = Decoder(width, self.style_dim, steps, grid)
        self.interpolation = Interpolation(width, self.style_dim)

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, style_dim], codes from `encode_style`, or mixes of them.

        Returns:
            stylized_BCHW in (-1, 1), of the content's height and width.
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        state_BCHW, images = self.decoder(self.encoder(content_BCHW), style_BD)
        return self.interpolation(state_BCHW, images[-1], style_BD, content_BCHW.shape[-2:])

    def encode_style(self, style_BCHW: Tensor) -> Tensor:
        """The style code of each image: style_BD."""
        return levels_code(self.encoder(style_BCHW))


def levels_code(levels: list[Tensor]) -> Tensor:
    """The style code of an encoder's levels: the `style_code` of each, one after the other; style_BD."""
    return torch.cat([style_code(level_BCHW) for level_BCHW in levels], dim=1)
