"""StarGAN (Choi 2018): one generator for many domains, and the critic that also says which domain an image is of."""

import torch
from torch import Tensor, nn

from stylejobs.core.choices import choose
from stylejobs.core.networks.layers import (
    ResidualBlock,
    build_conv,
    build_norm,
    check_images,
    check_inputs,
    init_critic,
    init_normal,
    pad_with,
    receptive_field_px,
)
from stylejobs.core.pixels import crop_to, pad_to_multiple

NORM_KINDS = ("instance", "none")
# Below it, instance norm at a quarter of the size would have a handful of cells, and one cell has no variance at all.
_MIN_PX = 16


class LabelConditioned(nn.Module):
    """A residual generator that is told its target domain: the label is tiled onto the image as further channels.

    A style code is the label: one-hot, or a mix of domains. There is nothing to encode, so there is no `encode_style`.
    7x7 stem, two 4x4 stride-2 convolutions, residual blocks, two 4x4 transposed convolutions, 7x7 head, tanh; affine
    instance norms, no biases.

    Args:
        domains: number of domains, which is `style_dim`.
        width: channels of the stem; doubled by each stride-2 convolution.
        blocks: number of residual blocks.
        inner: channels inside the residual blocks; None takes 4 * width, what the blocks pass on.
        public: exactly the public code, for weights that were trained with it: none of the differences below but the
            last. Its norms are of the image alone, as where that code makes pictures (it never leaves training mode).

    Differs from paper: the stem's ReLU comes before its norm. A label adds a constant to each channel, and instance
    norm subtracts each channel's mean: after the published order the label is seen at the border only, where zeros are
    padded. Bent by the ReLU first, it reaches every pixel. And reflection in place of zeros around all convolutions
    that do not upsample; a small image is extended by reflection to 16 px.
    Source: Choi et al. 2018, arXiv:1711.09020, table 4.

    >>> sum(weight.numel() for weight in LabelConditioned(domains=5).parameters())
    8430528
    """

    multiple = 4

    def __init__(self, domains: int, width: int = 64, blocks: int = 6, inner: int | None = None, public: bool = False):
        super().__init__()
        if domains < 1 or width < 1 or blocks < 0:
            raise ValueError(f"wanted domains >= 1, width >= 1, blocks >= 0; got {domains}, {width} and {blocks}")
        self.style_dim = domains
        norm_last = [nn.ReLU(), build_norm("affine_instance", width)]
        stem = build_conv(3 + domains, width, 7, bias=False)
        self.stem = nn.Sequential(stem, *(reversed(norm_last) if public else norm_last))
        self.encoder = nn.Sequential(*_build_down(width, 2 * width), *_build_down(2 * width, 4 * width))
        self.residual = nn.Sequential(
            *(ResidualBlock(4 * width, "affine_instance", bias=False, inner=inner) for _ in range(blocks))
        )
        self.decoder = nn.Sequential(*_build_up(4 * width, 2 * width), *_build_up(2 * width, width))
        self.head = build_conv(width, 3, 7, bias=False)
        if public:
            pad_with(self, "zeros")
        init_normal(self)

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, domains]: the weight of each domain, one-hot for a single one.

        Returns:
            stylized_BCHW in (-1, 1), of the content's height and width.
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        height, width = content_BCHW.shape[-2:]
        padded_BCHW = pad_to_multiple(content_BCHW, self.multiple, _MIN_PX)
        planes_BDHW = style_BD.to(padded_BCHW.dtype)[:, :, None, None].expand(-1, -1, *padded_BCHW.shape[-2:])
        features_BCHW = self.stem(torch.cat([padded_BCHW, planes_BDHW], dim=1))
        features_BCHW = self.decoder(self.residual(self.encoder(features_BCHW)))
        return crop_to(torch.tanh(self.head(features_BCHW)), height, width)


class PatchDomainCritic(nn.Module):
    """4x4 stride-2 convolutions (leaky ReLU 0.01); then one head for real or fake, and one for the domain.

    Args:
        domains: number of domains.
        width: channels of the first convolution; doubled by each further one.
        layers: number of convolutions, 6 in the paper; 3 for small images and few weights. Images are at least
            2^layers px on both sides, with instance norm twice as many.
        norm: "none", as published, or "instance" after all convolutions but the first; both leave the rows of a batch
            alone, as a gradient penalty needs it.

    Differs from paper: the domain head averages over all places and is linear there, in place of a convolution as wide
    as the image, so any size will do; both have no bias, as in the public code.
    Source: Choi et al. 2018, arXiv:1711.09020, table 5.

    >>> PatchDomainCritic(domains=2, width=4, layers=3).receptive_field_px
    38
    """

    def __init__(self, domains: int, width: int = 64, layers: int = 6, norm: str = "none"):
        super().__init__()
        if domains < 1 or width < 1 or layers < 1:
            raise ValueError(f"wanted domains, width and layers >= 1; got {domains}, {width} and {layers}")
        choose("norm", dict.fromkeys(NORM_KINDS), norm)
        parts: list[nn.Module] = []
        for index in range(layers):
            in_channels, out_channels = 3 if index == 0 else width << (index - 1), width << index
            parts.append(nn.Conv2d(in_channels, out_channels, 4, 2, 1))
            parts.append(build_norm(norm if index else "none", out_channels, NORM_KINDS))
            parts.append(nn.LeakyReLU(0.01))
        self.body = nn.Sequential(*parts)
        self.patch_head = nn.Conv2d(width << (layers - 1), 1, 3, 1, 1, bias=False)
        self.domain_head = nn.Linear(width << (layers - 1), domains, bias=False)
        self.min_px = 2**layers * (2 if norm == "instance" else 1)
        init_critic(self, norm, 0.01)

    @property
    def receptive_field_px(self) -> int:
        """Side of the square that one logit sees."""
        return receptive_field_px([part for part in self.body if isinstance(part, nn.Conv2d)] + [self.patch_head])

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Judges a batch.

        Args:
            image_BCHW: float, [-1, 1], sides of at least `min_px`.

        Returns:
            (logits_B1HW, one for each patch, high for real; domain_logits_BK).
        """
        check_images(image_BCHW, self.min_px)
        features_BCHW = self.body(image_BCHW)
        return self.patch_head(features_BCHW), self.domain_head(features_BCHW.mean(dim=(2, 3)))


def _build_down(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=False, padding_mode="reflect")
    return [conv, build_norm("affine_instance", out_channels), nn.ReLU()]


def _build_up(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False)
    return [conv, build_norm("affine_instance", out_channels), nn.ReLU()]
