"""Corruptions of digital pictures: lost contrast, a warp, coarse pixels, and what JPEG leaves out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.corruptions.blur import gaussian_blur, move

CONTRASTS = (0.4, 0.3, 0.2, 0.1, 0.05)
ELASTIC = (0.02, 0.035, 0.05, 0.07, 0.12)
"""Strength of the ripples, in sides of the image."""
_RIPPLE_SIGMA, _CORNER_SHIFT = 0.01, 0.02
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG_QUALITIES = (25, 18, 15, 10, 7)

# The example tables of the standard, ISO/IEC 10918-1, annex K.1, which encoders scale by the quality.
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# ITU-T T.871 (JFIF): RGB to Y, Cb, Cr, of full range.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def contrast(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """m + c (x - m), m the mean of each channel of an image. Draws nothing."""
    mean_BC11 = unit_BCHW.mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean_BC11, unit_BCHW, CONTRASTS[severity - 1])


def elastic_transform(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Every pixel from a place that ripples, smoothed noise, and a drawn affine map of three points move it to."""
    batch, _, height, width = unit_BCHW.shape
    side_px = min(height, width)
    noise_B2HW = torch.rand((batch, 2, height, width), generator=rng) * 2.0 - 1.0
    ripples_B2HW = gaussian_blur(noise_B2HW, _RIPPLE_SIGMA * side_px)
    # Noise of whole pixels is finer in large images; this keeps the height of the ripples in sides of the image.
    height_px = ELASTIC[severity - 1] * side_px * _loss_of(224 * _RIPPLE_SIGMA) / _loss_of(_RIPPLE_SIGMA * side_px)
    matrix_B23 = (torch.rand((batch, 2, 3), generator=rng) * 2.0 - 1.0) * _CORNER_SHIFT
    rows_HW, columns_HW = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    places_3N = torch.stack([columns_HW, rows_HW, torch.ones(height, width)]).flatten(1)
    affine_B2HW = (matrix_B23 @ places_3N).reshape(batch, 2, height, width) * side_px
    shift_BHW2 = (ripples_B2HW * height_px + affine_B2HW).permute(0, 2, 3, 1)
    return move(unit_BCHW, shift_BHW2.to(unit_BCHW.device))


def _loss_of(sigma_px: float) -> float:
    """What a Gaussian mean leaves of the deviation of white noise: 1 / (2 sqrt(pi) sigma), 1 where it does nothing."""
    return min(1.0, 1.0 / (2.0 * math.sqrt(math.pi) * sigma_px))


def pixelate(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Means over fewer, larger pixels; one that an edge of theirs goes through is mixed. Draws nothing."""
    down_HH, across_WW = (
        _box_matrix(few, side) @ _box_matrix(side, few)
        for side in unit_BCHW.shape[-2:]
        for few in [max(1, int(side * PIXELATE[severity - 1]))]
    )
    return down_HH.to(unit_BCHW) @ unit_BCHW @ across_WW.T.to(unit_BCHW)


def _box_matrix(from_px: int, to_px: int) -> Tensor:
    """The matrix that makes a column of `from_px` pixels one of `to_px`: each is the mean over what it covers."""
    ends_T1 = torch.arange(1, to_px + 1, dtype=torch.float64)[:, None] * (from_px / to_px)
    ends_F = torch.arange(1, from_px + 1, dtype=torch.float64)
    overlap_TF = torch.minimum(ends_T1, ends_F) - torch.maximum(ends_T1 - from_px / to_px, ends_F - 1)
    return overlap_TF.clamp_min(0.0) * (to_px / from_px)


def jpeg_compression(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """What a JPEG file of low quality keeps: chroma at half size, rounded cosine coefficients. Draws nothing.

    The file itself is not written: what follows the rounding is without loss.
    """
    quality, (height, width) = JPEG_QUALITIES[severity - 1], unit_BCHW.shape[-2:]
    padded_BCHW = F.pad(unit_BCHW, (0, -width % 16, 0, -height % 16), mode="replicate")
    to_ycc_33 = unit_BCHW.new_tensor(_TO_YCC)
    ycc_BCHW = torch.einsum("yc,bchw->byhw", to_ycc_33, (padded_BCHW * 255.0).round())
    luma_B1HW = _rounded(ycc_BCHW[:, :1] - 128.0, _LUMA_TABLE, quality) + 128.0
    chroma_B2HW = _rounded(F.avg_pool2d(ycc_BCHW[:, 1:], 2), _CHROMA_TABLE, quality)
    chroma_B2HW = F.interpolate(chroma_B2HW, scale_factor=2, mode="bilinear", align_corners=False)
    kept_BCHW = torch.cat([luma_B1HW, chroma_B2HW], dim=1)
    rgb_BCHW = torch.einsum("cy,byhw->bchw", torch.linalg.inv(to_ycc_33), kept_BCHW)
    return rgb_BCHW[..., :height, :width].round() / 255.0


def _rounded(plane_BCHW: Tensor, table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """The plane with the cosine coefficients of its 8x8 blocks rounded to multiples of the table's numbers."""
    batch, channels, height, width = plane_BCHW.shape
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps_88 = ((plane_BCHW.new_tensor(table) * percent + 50.0) / 100.0).floor().clamp(1.0, 255.0)
    places_8 = torch.arange(8, dtype=torch.float64)
    cosines_88 = 0.5 * torch.cos((2.0 * places_8 + 1.0) * places_8[:, None] * (torch.pi / 16.0))
    cosines_88[0] /= math.sqrt(2.0)
    cosines_88 = cosines_88.to(plane_BCHW)
    blocks = plane_BCHW.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = cosines_88 @ blocks @ cosines_88.T
    kept = cosines_88.T @ ((coefficients / steps_88).round() * steps_88) @ cosines_88
    return kept.transpose(3, 4).reshape(plane_BCHW.shape)
