"""Histogram matching (Pitie 2007, one channel at a time): no training, each channel gets the style's distribution."""

import torch
from torch import Tensor, nn

from stylejobs.core.networks.layers import check_inputs
from stylejobs.core.precision import widen


class Histogram(nn.Module):
    """y = Q_s(F_x(x)) for each row and channel: F_x is the content's distribution function, Q_s the style's quantiles.

    Both are known at `levels` quantiles and linear between them, so the map is monotone and has slopes. A style code
    holds the quantiles of red, green and blue; a mix of codes is the Wasserstein barycentre of their histograms.

    Args:
        levels: quantiles of each channel, from the smallest value to the largest.

    Differs from paper: each channel of RGB by itself, the first of the paper's many rotations, which is the histogram
    matching of image libraries; so channels that the style joins (blue sky, never blue grass) are not joined here.
    Source: Pitie, Kokaram & Dahyot 2007, doi:10.1016/j.cviu.2006.11.011, section 3.1.
    """

    multiple = 1
    takes_whole = True

    def __init__(self, levels: int = 128):
        super().__init__()
        if levels < 2:
            raise ValueError(f"wanted at least 2 levels, the smallest and the largest value; got {levels}")
        self.levels, self.style_dim = levels, 3 * levels

    def forward(self, content_BCHW: Tensor, style_BD: Tensor, whole_BD: Tensor | None = None) -> Tensor:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, 3 * levels], codes from `encode_style`, or mixes of them.
            whole_BD: [B, 3 * levels], `encode_style` of the images that the contents are tiles of; None for the
                contents' own.

        Returns:
            stylized_BCHW, the content's size and dtype, clamped to [-1, 1].
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        flat_BCN = widen(content_BCHW).flatten(2).contiguous()
        own_BD = self.encode_style(content_BCHW.detach()) if whole_BD is None else whole_BD
        own_BCL = own_BD.to(flat_BCN.dtype).unflatten(1, (3, self.levels)).contiguous()
        style_BCL = style_BD.to(flat_BCN.dtype).unflatten(1, (3, self.levels))
        # Values below and above the value: they differ by more than one where many pixels share it.
        below_BCN = torch.searchsorted(own_BCL, flat_BCN.detach(), right=False)
        above_BCN = torch.searchsorted(own_BCL, flat_BCN.detach(), right=True)
        low_BCN = (below_BCN - (below_BCN == above_BCN).long()).clamp(0, self.levels - 1)
        high_BCN = (above_BCN - (below_BCN != above_BCN).long()).clamp(0, self.levels - 1)
        gap_BCN = own_BCL.gather(2, high_BCN) - own_BCL.gather(2, low_BCN)
        share_BCN = (flat_BCN - own_BCL.gather(2, low_BCN)) / gap_BCN.clamp_min(1e-12)
        share_BCN = torch.where(gap_BCN > 0, share_BCN, 0.5)
        matched_BCN = torch.lerp(style_BCL.gather(2, low_BCN), style_BCL.gather(2, high_BCN), share_BCN)
        return matched_BCN.reshape(content_BCHW.shape).clamp(-1.0, 1.0).to(content_BCHW.dtype)

    def encode_style(self, style_BCHW: Tensor) -> Tensor:
        """The quantiles of each image's channels: style_BD [B, 3 * levels], float32 (float64 for float64 input)."""
        return _quantiles(widen(style_BCHW).flatten(2), self.levels).flatten(1)


def _quantiles(values_BCN: Tensor, levels: int) -> Tensor:
    """`levels` quantiles from the smallest value to the largest, linear between neighbours; torch's own stop at 16M."""
    sorted_BCN = values_BCN.sort(dim=2).values
    places_L = torch.linspace(0, values_BCN.shape[2] - 1, levels, dtype=torch.float64, device=values_BCN.device)
    low_L = places_L.floor().long()
    high_L = (low_L + 1).clamp_max(values_BCN.shape[2] - 1)
    return torch.lerp(sorted_BCN[..., low_L], sorted_BCN[..., high_L], (places_L - low_L).to(sorted_BCN.dtype))
