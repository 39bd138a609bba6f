"""The residual generator of CycleGAN (Zhu 2017): one direction between two domains lives in its weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.choices import choose
from stylejobs.core.networks.layers import (
    InstanceNorm,
    ResidualBlock,
    build_conv,
    build_norm,
    check_inputs,
    init_normal,
)
from stylejobs.core.networks.zhang2019 import BlurDown, BlurUp
from stylejobs.core.pixels import crop_to, pad_to_multiple

NORM_KINDS = ("instance", "affine_instance", "batch", "none")
SAMPLINGS = {
    "nearest": ("strided", "nearest"),
    "transposed": ("strided", "transposed"),
    "antialiased": ("blurred", "blurred"),
    "antialiased_down": ("blurred", "transposed"),
    "antialiased_up": ("strided", "blurred"),
}
"""Upsampling -> how the sides are halved, and how they are doubled."""
ADAPTER_CHANNELS = 16
_MULTIPLE = 4
# Below it, instance norm at a quarter of the size would have a handful of cells, and one cell has no variance at all.
_MIN_PX = 16


class Resnet(nn.Module):
    """7x7 stem, two stride-2 convolutions, residual blocks, two upsamplings, 7x7 head, tanh.

    Args:
        width: channels of the stem; doubled by each stride-2 convolution.
        blocks: number of residual blocks; the paper has 9 from 256 px on and 6 below.
        norm: "instance" (no weights; the convolutions have biases), "none", or for weights that were trained with it
            "affine_instance" or "batch": the statistics of "batch" tie the rows of a training batch together.
        upsample: "nearest" doubles the sides and convolves, which leaves no checkerboard (Odena, Dumoulin & Olah 2016,
            doi:10.23915/distill.00003); "transposed" convolves with strides of one half, as the public code does.
            "antialiased" halves and doubles behind a blur (`zhang2019`), as the public code of CUT does;
            "antialiased_down" and "antialiased_up" only the one, beside strides. All have the same number of weights,
            11.38 M with the other defaults.
        tied: all residual blocks are one block, applied `blocks` times.
        adapter: an `Adapter` before the `Trunk`, so that two directions can share the trunk: see `share_trunk`.
        inner: channels inside the residual blocks; None takes 4 * width, what the blocks pass on.

    Differs from paper: upsampling, see above. A small image is extended by reflection to 16 px.
    Source: Zhu, Park, Isola & Efros 2017, arXiv:1703.10593, section 7.2.

    >>> sum(weight.numel() for weight in Resnet().parameters())
    11378179
    """

    multiple = _MULTIPLE
    style_dim = 0

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        upsample: str = "nearest",
        tied: bool = False,
        adapter: bool = False,
        inner: int | None = None,
    ):
        super().__init__()
        self.adapter = Adapter(ADAPTER_CHANNELS) if adapter else None
        self.trunk = Trunk(width, blocks, norm, upsample, tied, ADAPTER_CHANNELS if adapter else 3, inner)

    @property
    def stages(self) -> tuple[str, ...]:
        """What `layers` counts: see `Trunk.stages`."""
        return self.trunk.stages

    @property
    def nce_layers(self) -> tuple[int, ...]:
        """The five layers of PatchNCE: see `Trunk.nce_layers`."""
        return self.trunk.nce_layers

    def share_trunk(self, other: "Resnet") -> None:
        """From now on this generator uses the trunk of `other`; each keeps its own adapter.

        Raises:
            ValueError: a generator without an adapter (both directions would be the same function), or other trunks.
        """
        if self.adapter is None or other.adapter is None:
            raise ValueError("wanted two generators with adapter=True; without, one trunk is one function")
        if self.trunk.options != other.trunk.options:
            raise ValueError(f"wanted trunks of the same options; got {self.trunk.options} and {other.trunk.options}")
        self.trunk = other.trunk

    def forward(
        self,
        content_BCHW: Tensor,
        style_BD: Tensor,
        layers: Sequence[int] | None = None,
        only_features: bool = False,
    ) -> Tensor | tuple[Tensor, list[Tensor]] | list[Tensor]:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, 0]: the style is in the weights.
            layers: indices into `stages`.
            only_features: stop at the last of `layers`.

        Returns:
            stylized_BCHW in (-1, 1), of the content's height and width. With `layers`: (stylized_BCHW, the features at
            these layers, in their order). With `only_features`: the features alone. Features are of the padded image.
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        return run_parts(self.adapter, self.trunk, content_BCHW, layers, only_features)


class Adapter(nn.Module):
    """What a direction has for itself before a shared trunk: 1x1 convolution, affine instance norm, leaky ReLU.

    The norm is followed by a bend, because the trunk's first instance norm would take off again whatever a shift added.
    """

    def __init__(self, channels: int = ADAPTER_CHANNELS):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1, bias=False)
        self.norm = InstanceNorm(channels, affine=True)
        init_normal(self)
        # N(0, 0.02) over three channels is so little that in a flat picture the norm's epsilon outweighs it.
        nn.init.orthogonal_(self.conv.weight)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(image_BCHW)), 0.2)


class Trunk(nn.Module):
    """The generator behind its adapter: sides that are multiples of 4 and at least 16 px; options as of `Resnet`."""

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        upsample: str = "nearest",
        tied: bool = False,
        in_channels: int = 3,
        inner: int | None = None,
    ):
        super().__init__()
        if width < 1 or blocks < 1:
            raise ValueError(f"wanted width >= 1 and blocks >= 1; got {width} and {blocks}")
        halving, doubling = choose("upsampling", SAMPLINGS, upsample)
        self.options = (width, blocks, norm, upsample, tied, in_channels, inner)
        bias, self.num_blocks = norm != "batch", blocks
        self.stem = _normed(build_conv(in_channels, width, 7, bias=bias), norm)
        self.down1 = _build_down(width, 2 * width, norm, halving)
        self.down2 = _build_down(2 * width, 4 * width, norm, halving)
        num_own = 1 if tied else blocks
        self.blocks = nn.ModuleList(ResidualBlock(4 * width, norm, bias, inner) for _ in range(num_own))
        self.decoder = nn.Sequential(
            *_build_up(4 * width, 2 * width, norm, doubling), *_build_up(2 * width, width, norm, doubling)
        )
        self.head = build_conv(width, 3, 7)
        init_normal(self)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the layers before the decoder, in order: "input", "stem", "down1", "down2", "block1", ...

        "input" is the image itself, or what the adapter made of it. The others are after norm and ReLU; a block is
        after its sum.
        """
        return ("input", "stem", "down1", "down2", *(f"block{index + 1}" for index in range(self.num_blocks)))

    @property
    def nce_layers(self) -> tuple[int, ...]:
        """Input, both stride-2 convolutions, first and middle block (the fifth of nine): the layers of PatchNCE.

        Source: Park, Efros, Zhang & Zhu 2020, arXiv:2007.15651, appendix C.
        """
        return (0, 2, 3, 4, 4 + self.num_blocks // 2) if self.num_blocks > 1 else (0, 2, 3, 4)

    def forward(
        self, features_BCHW: Tensor, layers: Sequence[int] | None = None, only_features: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]] | list[Tensor]:
        """See `Resnet.forward`."""
        wanted = self._check_layers(layers, only_features)
        kept = {0: features_BCHW}
        tied = [self.blocks[index % len(self.blocks)] for index in range(self.num_blocks)]
        for index, stage in enumerate((self.stem, self.down1, self.down2, *tied), start=1):
            if only_features and index > max(wanted):
                break
            features_BCHW = stage(features_BCHW)
            if index in wanted:
                kept[index] = features_BCHW
        features = [kept[index] for index in wanted]
        if only_features:
            return features
        stylized_BCHW = torch.tanh(self.head(self.decoder(features_BCHW)))
        return stylized_BCHW if layers is None else (stylized_BCHW, features)

    def _check_layers(self, layers: Sequence[int] | None, only_features: bool) -> tuple[int, ...]:
        wanted = tuple(layers or ())
        if not all(0 <= index < len(self.stages) for index in wanted):
            raise ValueError(f"wanted layers from 0 to {len(self.stages) - 1}, {self.stages}; got {list(wanted)}")
        if only_features and not wanted:
            raise ValueError("wanted the layers whose features are asked for; got none")
        return wanted


def run_parts(
    adapter: nn.Module | None,
    trunk: nn.Module,
    content_BCHW: Tensor,
    layers: Sequence[int] | None = None,
    only_features: bool = False,
) -> Tensor | tuple[Tensor, list[Tensor]] | list[Tensor]:
    """`Resnet.forward` out of its parts, for a training that wraps a shared trunk and two adapters each on its own."""
    height, width = content_BCHW.shape[-2:]
    padded_BCHW = pad_to_multiple(content_BCHW, _MULTIPLE, _MIN_PX)
    result = trunk(padded_BCHW if adapter is None else adapter(padded_BCHW), layers, only_features)
    if only_features:
        return result
    if layers is None:
        return crop_to(result, height, width)
    return crop_to(result[0], height, width), result[1]


def _normed(conv: nn.Conv2d | nn.ConvTranspose2d, norm: str) -> nn.Sequential:
    return nn.Sequential(conv, build_norm(norm, conv.out_channels, NORM_KINDS), nn.ReLU(inplace=True))


def _build_down(in_channels: int, out_channels: int, norm: str, halving: str) -> nn.Sequential:
    # Zeros at the border, as in the public code, so that its weights give its pictures.
    conv = nn.Conv2d(in_channels, out_channels, 3, 2 if halving == "strided" else 1, 1, bias=norm != "batch")
    down = _normed(conv, norm)
    return down if halving == "strided" else down.append(BlurDown())


def _build_up(in_channels: int, out_channels: int, norm: str, doubling: str) -> list[nn.Module]:
    bias = norm != "batch"
    if doubling == "transposed":
        conv = nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, output_padding=1, bias=bias)
        return [_normed(conv, norm)]
    if doubling == "blurred":
        return [BlurUp(), _normed(nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias), norm)]
    return [
        nn.Upsample(scale_factor=2, mode="nearest"),
        _normed(build_conv(in_channels, out_channels, 3, bias=bias), norm),
    ]
