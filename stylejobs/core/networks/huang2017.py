"""AdaIN (Huang & Belongie 2017): one model for any style image. Frozen encoder, statistics swapped, trained decoder."""

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.backbone import Backbone, _empty_features
from stylejobs.core.choices import choose
from stylejobs.core.networks.layers import bound, build_conv, check_inputs, pad_with
from stylejobs.core.networks.park2019 import StyleAttention
from stylejobs.core.pixels import crop_to, pad_to_multiple
from stylejobs.core.precision import widen

_EPS = 1e-5
_MIN_PX = 32  # the backbones' own limit

# encoder -> channels of its layers at 1, 1/2, 1/4, ... of the size; the decoder mirrors them. SqueezeNet's stem starts
# at 1/2, so the layers at full size are the decoder's alone.
_WIDTHS = {
    "squeezenet1_1": ((32, 32), (64, 64), (128, 128), (256, 256), (384, 384, 512, 512)),
    "vgg16": ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    "vgg19": ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}
_DEFAULT_LAYERS = {"squeezenet1_1": "fire3", "vgg16": "relu4_1", "vgg19": "relu4_1"}


def channel_moments(features_BCHW: Tensor, correction: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over its N places: std = sqrt(variance + 1e-5).

    The variance divides by N - correction: 0 is the variance of these places, 1 is Bessel's correction.

    Returns:
        mean_BC and std_BC, float32 (float64 for float64 input) even under autocast.

    >>> [moment.item() for moment in channel_moments(torch.tensor([[[[1.0, 1.0], [3.0, 3.0]]]]))]
    [2.0, 1.0000050067901611]
    """
    wide_BCN = widen(features_BCHW).flatten(2)
    variance_BC = wide_BCN.var(dim=2, correction=correction)
    return wide_BCN.mean(dim=2), (variance_BC + _EPS).sqrt()


def adaptive_instance_norm(content_BCHW: Tensor, mean_BC: Tensor, std_BC: Tensor, correction: int = 0) -> Tensor:
    """Gives each channel another mean and deviation: std * (x - mean_x) / std_x + mean.

    Linear in (mean, std): with moments a * style + (1 - a) * content's own, the result is a * AdaIN + (1 - a) * x.

    Args:
        content_BCHW: features, any float dtype.
        mean_BC: the wanted means.
        std_BC: the wanted standard deviations, as `channel_moments` gives them.
        correction: of the content's deviations, see `channel_moments`.

    Returns:
        features_BCHW, the content's shape and dtype.

    Source: Huang & Belongie 2017, arXiv:1703.06868, equation 8.
    """
    own_mean_BC, own_std_BC = channel_moments(content_BCHW, correction)
    scale_BC11 = (std_BC / own_std_BC)[:, :, None, None]
    moved_BCHW = (content_BCHW - own_mean_BC[:, :, None, None]) * scale_BC11 + mean_BC[:, :, None, None]
    return moved_BCHW.to(content_BCHW.dtype)


def style_code(features_BCHW: Tensor, grid: int = 0, correction: int = 0) -> Tensor:
    """The code of a style's features: means, deviations, then the means of a grid x grid of equal parts, flattened.

    Returns:
        style_BD, D = (2 + grid^2) * C, float32 or wider; `correction` as in `channel_moments`.
    """
    mean_BC, std_BC = channel_moments(features_BCHW, correction)
    if grid == 0:
        return torch.cat([mean_BC, std_BC], dim=1)
    tokens_BCGG = F.adaptive_avg_pool2d(features_BCHW.to(mean_BC.dtype), grid)
    return torch.cat([mean_BC, std_BC, tokens_BCGG.flatten(1)], dim=1)


class Encoder(nn.Module):
    """A backbone up to one layer: frozen, always in eval mode, random until `load_weights`.

    Gradients flow to the images, never to the weights. Cell (i, j) of its result is about the pixels of the block that
    starts at (i, j) * stride. A VGG pads its convolutions and pools 2x2 blocks, so there is nothing to do. SqueezeNet
    1.1 slides unpadded 3x3 windows by 2, which centres cell i at pixel stride * i + stride - 1 and leaves pixels on the
    right that no cell sees. Reflecting stride / 2 px on the left and one less on the right fits its windows to
    H / stride cells, and brings their centres to within half a pixel of the blocks'.

    Features are divided by `scale`, their size on smooth noise, which `load_weights` measures: the trained SqueezeNet's
    are near 100, and a decoder that starts with inputs of 100 saturates its tanh and hardly learns.

    Args:
        name: "squeezenet1_1", "vgg16" or "vgg19".
        layer: the last layer, one of that backbone's. `public`: its convolutions reflect, see `Adain`.
    """

    def __init__(self, name: str, layer: str, public: bool = False):
        super().__init__()
        self.layer, self.stride = layer, 2 ** _place(name, layer)[0]
        self.channels = _WIDTHS[name][_place(name, layer)[0]][_place(name, layer)[1]]
        self._reflect_px = (self.stride // 2, self.stride // 2 - 1) * 2 if name == "squeezenet1_1" else (0, 0, 0, 0)
        self.backbone = _build_truncated(name, layer)
        if public:
            pad_with(self.backbone, "reflect")
        self.register_buffer("scale", torch.ones(()))

    def train(self, mode: bool = True) -> "Encoder":
        return super().train(False)

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Copies trained weights: torchvision's names, with or without `features.`; deeper layers are passed over.

        Raises:
            ValueError: weights that are missing or of another shape.
        """
        given = {key.removeprefix("features."): value for key, value in state_dict.items()}
        wanted = self.backbone.features.state_dict()
        wrong = [key for key in wanted if key not in given or given[key].shape != wanted[key].shape]
        if wrong:
            raise ValueError(
                f"wanted the weights of {self.backbone.name} up to {self.layer}; missing or of another shape: "
                f"{', '.join(wrong[:8])}; give the weights of this backbone"
            )
        self.backbone.features.load_state_dict({key: given[key] for key in wanted})
        coarse_BCHW = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        noise_BCHW = torch.tanh(F.interpolate(coarse_BCHW, scale_factor=8, mode="bilinear")).to(self.scale)
        with torch.no_grad():
            self.scale.fill_(1.0)
            self.scale.copy_(self(noise_BCHW).square().mean().sqrt().clamp_min(_EPS))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Features of images in [-1, 1] of any size: features_BCHW, ceil(side / stride) cells, of 32 px at least."""
        padded_BCHW = pad_to_multiple(image_BCHW, self.stride, _MIN_PX)
        padded_BCHW = F.pad(padded_BCHW, self._reflect_px, mode="reflect")
        return self.backbone(padded_BCHW, [self.layer])[self.layer] / self.scale


class Decoder(nn.Module):
    """The mirror of an encoder: 3x3 reflection-padded convolutions and ReLU, nearest-neighbour upsampling, no norm.

    Args:
        name: the encoder's.
        layer: the encoder's.
        width_scale: factor on the channels between the first and the last convolution.

    Differs from paper: tanh at the end, because images are in [-1, 1]; with `public` they are cut off there.
    Source: Huang & Belongie 2017, arXiv:1703.06868, section 6.1; without norms as found there in section 7.1.
    """

    def __init__(self, name: str, layer: str, width_scale: float = 1.0, public: bool = False):
        super().__init__()
        self.public = public
        if not 0 < width_scale <= 8:
            raise ValueError(f"wanted width_scale above 0 and at most 8; got {width_scale}")
        last_stage, last = _place(name, layer)
        widths = [
            (stage, width)
            for stage, stage_widths in enumerate(_WIDTHS[name][: last_stage + 1])
            for width in (stage_widths[: last + 1] if stage == last_stage else stage_widths)
        ]
        in_channels, parts = widths[-1][1], []
        for (deep, _), (shallow, width) in pairwise(reversed(widths)):
            out_channels = max(1, round(width * width_scale))
            parts += [build_conv(in_channels, out_channels, 3), nn.ReLU()]
            parts += [nn.Upsample(scale_factor=2, mode="nearest")] * (deep - shallow)
            in_channels = out_channels
        self.body = nn.Sequential(*parts, build_conv(in_channels, 3, 3))
        for conv in parts:
            if isinstance(conv, nn.Conv2d):
                # Without norms, torch's default would halve the signal at every convolution.
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)

    def forward(self, features_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
        """An image of features.

        Args:
            features_BCHW: as the encoder gives them, statistics swapped.
            size: (height, width) of the encoded image, which is cut out of what the cells cover.

        Returns:
            image_BCHW in [-1, 1].
        """
        return crop_to(bound(self.body(features_BCHW), self.public), *size)


class StyleTransform(nn.Module):
    """Brings content features to a style: AdaIN, and with a grid of style tokens also style attention, added.

    Without a grid it has no weights: nothing to train, and nothing to wrap in a DDP.

    Args:
        channels: of the features.
        grid: side of the grid of style tokens; 0 is AdaIN alone. `correction`: see `channel_moments`.

    Differs from paper: Park & Lee 2019 add attention to the content's own features; here to the AdaIN of them, because
    means over the parts of a grid have lost the deviations inside the parts.
    """

    def __init__(self, channels: int, grid: int = 0, correction: int = 0):
        super().__init__()
        self.channels, self.grid, self.correction = channels, grid, correction
        self.style_dim = (2 + grid * grid) * channels
        self.attention = StyleAttention(channels) if grid else None

    def forward(self, features_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Features with the style's statistics: features_BCHW and style_BD of `style_code` to features_BCHW."""
        mean_BC, std_BC = style_BD[:, : self.channels], style_BD[:, self.channels : 2 * self.channels]
        moved_BCHW = adaptive_instance_norm(features_BCHW, mean_BC, std_BC, self.correction)
        if self.attention is None:
            return moved_BCHW
        tokens_BCGG = style_BD[:, 2 * self.channels :].reshape(-1, self.channels, self.grid, self.grid)
        return moved_BCHW + self.attention(features_BCHW, tokens_BCGG.to(features_BCHW.dtype))


class Adain(nn.Module):
    """Any style by one model: decode(AdaIN(encode(content), moments of encode(style))).

    Parts: `encoder` (frozen), `transform` (weights only with attention) and `decoder`, which is what is trained; each
    may be called alone. Its weights hold the encoder's, so a package needs no other file. Random until the encoder's
    `load_weights`. A mix of the codes of the style and of the content itself is the paper's content-style trade-off.

    Args:
        encoder: "squeezenet1_1", "vgg16" or "vgg19".
        layer: of the encoder; None is relu4_1 for a VGG, as published, and fire3 for SqueezeNet: it is deep enough to
            see 23 px, and at 1/4 of the size with 128 channels small images can still be decoded sharply. From fire4 on
            there is one cell for 8x8 px, and a 64 px image is left with 8x8 cells: after the same 200 steps on
            photographs, a decoder of fire3 gives edges back to a cosine of 0.68, one of fire5 to 0.56.
        attention: also style attention, over a grid of style tokens.
        width_scale: factor on the decoder's channels.
        grid: side of the grid of style tokens, if there is attention.
        public: as in the public PyTorch code, for weights that were trained with it: the encoder's convolutions
            reflect at the border where torchvision's have zeros, deviations are Bessel-corrected, and the decoder is
            linear, cut off at [-1, 1] in place of tanh.

    Source: Huang & Belongie 2017, arXiv:1703.06868; attention: Park & Lee 2019, arXiv:1812.02342.
    """

    def __init__(
        self,
        encoder: str = "squeezenet1_1",
        layer: str | None = None,
        attention: bool = False,
        width_scale: float = 1.0,
        grid: int = 8,
        public: bool = False,
    ):
        super().__init__()
        layer = layer or choose("encoder", _DEFAULT_LAYERS, encoder)
        if attention and grid < 2:
            raise ValueError(f"wanted a grid of at least 2x2 style tokens; got {grid}")
        self.encoder = Encoder(encoder, layer, public)
        self.transform = StyleTransform(self.encoder.channels, grid if attention else 0, correction=int(public))
        self.decoder = Decoder(encoder, layer, width_scale, public)
        self.multiple, self.style_dim = self.encoder.stride, self.transform.style_dim

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, style_dim], codes from `encode_style`, or mixes of them.

        Returns:
            stylized_BCHW in [-1, 1], of the content's height and width.
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        features_BCHW = self.transform(self.encoder(content_BCHW), style_BD)
        return self.decoder(features_BCHW, content_BCHW.shape[-2:])

    def encode_style(self, style_BCHW: Tensor) -> Tensor:
        """The style code of each image: style_BD, see `style_code`."""
        return style_code(self.encoder(style_BCHW), self.transform.grid, self.transform.correction)


def _place(name: str, layer: str) -> tuple[int, int]:
    """(number of halvings, number in the stage), both from 0, of a layer: relu4_1 is (3, 0)."""
    widths = choose("encoder", _WIDTHS, name)
    if name == "squeezenet1_1":
        places = {"conv1": (1, 1), "fire2": (2, 0), "fire3": (2, 1), "fire4": (3, 0), "fire5": (3, 1)}
        places |= {f"fire{number}": (4, number - 6) for number in range(6, 10)}
    else:
        places = {
            f"relu{stage + 1}_{conv + 1}": (stage, conv)
            for stage, stage_widths in enumerate(widths)
            for conv in range(len(stage_widths))
        }
    return choose(f"layer of {name}", places, layer)


def _build_truncated(name: str, layer: str) -> Backbone:
    """The backbone up to `layer` with random weights (He 2015, normal) and zero biases."""
    weights = {key: torch.zeros(value.shape) for key, value in _empty_features(name).state_dict().items()}
    backbone = Backbone(name, name, weights)
    backbone.features = backbone.features[: backbone._indices[layer] + 1]
    for weight in backbone.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
    return backbone
