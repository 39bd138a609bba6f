"""Halving and doubling behind a blur (Zhang 2019), as the public code of CUT does it: no grid of aliased pixels.

Both blurs are constants, so they are no weights; `BLURS` is what a checkpoint of that code holds of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _blur(*taps: float) -> Tensor:
    """The outer product of the taps with themselves, which sums to 1."""
    row = torch.tensor(taps, dtype=torch.float64)
    return (row[:, None] * row[None, :] / row.sum() ** 2).float()


BLURS = {"down": _blur(1, 2, 1), "up": 4 * _blur(1, 3, 3, 1)}
"""Kernel of each direction. The upward one sums to 4, because three of four pixels that it sees are zeros."""


class BlurDown(nn.Module):
    """Blurs by [1, 2, 1] both ways, reflecting at the border, and keeps every second pixel from the first on.

    Source: Zhang 2019, arXiv:1904.11486, section 3; the taps are "triangle-3" there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("blur", BLURS["down"].clone(), persistent=False)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """features_BCHW, sides of at least 2, to ceil(side / 2)."""
        channels = features_BCHW.shape[1]
        padded_BCHW = F.pad(features_BCHW, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded_BCHW, self.blur.expand(channels, 1, -1, -1), stride=2, groups=channels)


class BlurUp(nn.Module):
    """Puts zeros between the pixels, whose border is repeated outward, and blurs by [1, 3, 3, 1] both ways.

    That is linear interpolation at a quarter and three quarters of the way between neighbours.

    Source: Zhang 2019, arXiv:1904.11486; upward as in the public code of Park, Efros, Zhang & Zhu 2020 (CUT).
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("blur", BLURS["up"].clone(), persistent=False)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """features_BCHW to twice the sides."""
        channels = features_BCHW.shape[1]
        padded_BCHW = F.pad(features_BCHW, (1, 1, 1, 1), mode="replicate")
        kernel = self.blur.expand(channels, 1, -1, -1)
        # What the repeated border itself grew to is cut off: 1 + 2 pixels on each side.
        return F.conv_transpose2d(padded_BCHW, kernel, stride=2, padding=3, groups=channels)
