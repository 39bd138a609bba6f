"""The plain encoder-decoder that popular articles use between two domains: no skips, no residual blocks."""

import torch
from torch import Tensor, nn

from stylejobs.core.networks.layers import build_norm, check_inputs, init_normal
from stylejobs.core.pixels import crop_to, pad_to_multiple

NORM_KINDS = ("instance", "batch")
# Below it, instance norm at an eighth of the size would have a handful of cells, and one cell has no variance at all.
_MIN_PX = 32


class EncoderDecoder(nn.Module):
    """Three 4x4 stride-2 convolutions (norm, leaky ReLU 0.2), three transposed ones (norm, ReLU), tanh.

    Channels 3, w, 2w, 4w, 2w, w, 3. All of the image passes through an eighth of its sides, so details are lost: the
    `resnet` is the better generator, this one the small baseline.

    Args:
        width: channels after the first convolution.
        norm: "instance" (no weights; the convolutions have biases), or "batch", as the articles have it, which is here
            for weights that were trained with it and not for training: its statistics tie the rows of a batch together.

    Differs from the articles: instance norm; the decoder grows the image back to its size; convolutions reflect at the
    border, transposed ones have zeros there; a small image is extended by reflection to 32 px.
    Source: the convolutions are those of Radford, Metz & Chintala 2016, arXiv:1511.06434, section 3.

    >>> sum(weight.numel() for weight in EncoderDecoder().parameters())
    1317507
    """

    multiple = 8
    style_dim = 0

    def __init__(self, width: int = 64, norm: str = "instance"):
        super().__init__()
        if width < 1:
            raise ValueError(f"wanted width >= 1; got {width}")
        self.encoder = nn.Sequential(
            *_build_down(3, width, norm), *_build_down(width, 2 * width, norm), *_build_down(2 * width, 4 * width, norm)
        )
        self.decoder = nn.Sequential(*_build_up(4 * width, 2 * width, norm), *_build_up(2 * width, width, norm))
        self.head = nn.ConvTranspose2d(width, 3, 4, 2, 1)
        init_normal(self)

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, 0]: the style is in the weights.

        Returns:
            stylized_BCHW in (-1, 1), of the content's height and width.
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        height, width = content_BCHW.shape[-2:]
        features_BCHW = self.encoder(pad_to_multiple(content_BCHW, self.multiple, _MIN_PX))
        return crop_to(torch.tanh(self.head(self.decoder(features_BCHW))), height, width)


def _build_down(in_channels: int, out_channels: int, norm: str) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=norm != "batch", padding_mode="reflect")
    return [conv, build_norm(norm, out_channels, NORM_KINDS), nn.LeakyReLU(0.2)]


def _build_up(in_channels: int, out_channels: int, norm: str) -> list[nn.Module]:
    conv = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=norm != "batch")
    return [conv, build_norm(norm, out_channels, NORM_KINDS), nn.ReLU()]
