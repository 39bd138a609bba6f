"""DCGAN (Radford 2016): images out of noise, and the critic that judges them as a whole."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from stylejobs.core.choices import choose
from stylejobs.core.networks.layers import build_norm, check_images, init_critic, init_normal

NORM_KINDS = ("instance", "none")


class PixelNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + 1e-8), at each place by itself; no weights.

    Source: Karras, Aila, Laine & Lehtinen 2018, arXiv:1710.10196, section 4.2.
    """

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return features_BCHW * (features_BCHW.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class DcganGenerator(nn.Module):
    """z -> 4x4 -> 8x8 -> ... -> size_px, by 4x4 transposed convolutions; norm and ReLU after each, tanh at the end.

    Args:
        latent: numbers of z, drawn from N(0, 1).
        width: channels before the last convolution; doubled by each halving of the side, so 16 * width at 4x4 for 128.
        size_px: side of the images, a power of two, at least 8.

    Differs from paper: pixel norm in place of batch norm, which ties the rows of a batch together. Not instance norm:
    it would give each channel of each image the same mean and deviation, and those are what tells styles apart.
    Source: Radford, Metz & Chintala 2016, arXiv:1511.06434, section 3 and figure 1.
    """

    def __init__(self, latent: int = 512, width: int = 64, size_px: int = 128):
        super().__init__()
        if latent < 1:
            raise ValueError(f"wanted latent >= 1; got {latent}")
        self.latent, self.size_px = latent, size_px
        doublings = _doublings(size_px, width)
        channels = [width << index for index in reversed(range(doublings))]
        parts: list[nn.Module] = [nn.ConvTranspose2d(latent, channels[0], 4), PixelNorm(), nn.ReLU()]
        for in_channels, out_channels in pairwise(channels):
            parts += [nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1), PixelNorm(), nn.ReLU()]
        self.body = nn.Sequential(*parts, nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1))
        init_normal(self)

    def forward(self, z_BD: Tensor) -> Tensor:
        """Images of latent codes.

        Args:
            z_BD: [B, latent], float.

        Returns:
            image_BCHW in (-1, 1), `size_px` on both sides.
        """
        if z_BD.ndim != 2 or z_BD.shape[1] != self.latent or not z_BD.is_floating_point():
            raise ValueError(f"wanted float codes [B, {self.latent}]; got {z_BD.dtype} {list(z_BD.shape)}")
        return torch.tanh(self.body(z_BD[:, :, None, None]))


class DcganCritic(nn.Module):
    """4x4 stride-2 convolutions (leaky ReLU 0.2) down to 4x4, then one logit for the image; no sigmoid.

    Args:
        width: channels of the first convolution; doubled by each further one.
        size_px: side of the images, a power of two, at least 8; it judges this size and no other.
        norm: "instance" (no weights) after all convolutions but the first and the last, or "none".

    Differs from paper: no batch norm, with which a gradient penalty means nothing.
    Source: Radford, Metz & Chintala 2016, arXiv:1511.06434, section 3.
    """

    def __init__(self, width: int = 64, size_px: int = 128, norm: str = "instance"):
        super().__init__()
        choose("norm", dict.fromkeys(NORM_KINDS), norm)
        self.size_px = self.min_px = size_px
        parts: list[nn.Module] = []
        in_channels = 3
        for index in range(_doublings(size_px, width)):
            parts.append(nn.Conv2d(in_channels, width << index, 4, 2, 1))
            parts.append(build_norm(norm if index else "none", width << index, NORM_KINDS))
            parts.append(nn.LeakyReLU(0.2))
            in_channels = width << index
        self.body = nn.Sequential(*parts, nn.Conv2d(in_channels, 1, 4))
        init_critic(self, norm, 0.2)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Judges a batch.

        Args:
            image_BCHW: float, [-1, 1], `size_px` on both sides.

        Returns:
            logits_B1, high for real.
        """
        check_images(image_BCHW, self.min_px)
        if image_BCHW.shape[-2:] != (self.size_px, self.size_px):
            height, width = image_BCHW.shape[-2:]
            raise ValueError(
                f"wanted images of {self.size_px}x{self.size_px} px for this critic; got {height}x{width}; crop them"
            )
        return self.body(image_BCHW).flatten(1)


def _doublings(size_px: int, width: int) -> int:
    """Number of doublings between 4 px and `size_px`."""
    if width < 1:
        raise ValueError(f"wanted width >= 1; got {width}")
    if size_px < 8 or size_px & (size_px - 1):
        raise ValueError(f"wanted size_px, a power of two of at least 8; got {size_px}")
    return size_px.bit_length() - 3
