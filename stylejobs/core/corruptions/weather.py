"""Corruptions by weather: snow, frost, fog and bright light. What falls and freezes is drawn, from no picture."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.corruptions.blur import PAPER_SIDE_PX, scale_of, smear
from stylejobs.core.luma import luma

SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55),
)
"""Mean and deviation of the noise, its magnification, what is above is a flake, radius and sigma of its fall, how much
of the image's own colours is kept."""
FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""Weights of the image and of the ice."""
FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
"""Thickness, and by how much each finer octave of it is weaker."""
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
_ICE_TINT = (0.86, 0.93, 1.0)
_ICE_DECAY, _ICE_SHARPNESS, _ICE_FILM = 1.6, 8, 0.05


def snow(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Flakes that fall through a whitened image: noise above a threshold, smeared along its way, twice (one turned)."""
    mean, deviation, grain, least, radius, sigma, kept = SNOW[severity - 1]
    scale, (height, width) = scale_of(unit_BCHW), unit_BCHW.shape[-2:]
    noise_size = [max(2, round(side / scale / grain)) for side in (height, width)]
    noise_B1HW = torch.randn((len(unit_BCHW), 1, *noise_size), generator=rng) * deviation + mean
    canvas = [round(side / scale) for side in (height, width)]
    layer_B1HW = F.interpolate(noise_B1HW, size=canvas, mode="bilinear", align_corners=False)
    layer_B1HW = layer_B1HW.masked_fill(layer_B1HW < least, 0.0).clamp_(0.0, 1.0)
    layer_B1HW = F.interpolate(layer_B1HW, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    degrees_B = torch.rand(len(unit_BCHW), generator=rng) * 90.0 + 45.0
    layer_B1HW = smear(layer_B1HW, radius * scale, sigma * scale, degrees_B).to(unit_BCHW.device)
    # luma() is linear, so it takes values of [0, 1] as well.
    white_BCHW = torch.maximum(unit_BCHW, luma(unit_BCHW) * 1.5 + 0.5)
    return torch.lerp(white_BCHW, unit_BCHW, kept) + layer_B1HW + layer_B1HW.rot90(2, (2, 3))


def frost(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """a x + b ice, where ice is bright and bluish along grainy ridges of a landscape of noise, thin elsewhere."""
    kept, weight = FROST[severity - 1]
    heights_B1HW = _clouds(unit_BCHW, _ICE_DECAY, rng)
    ridges_B1HW = (1.0 - (2.0 * heights_B1HW - 1.0).abs()).pow(_ICE_SHARPNESS)
    ice_B1HW = (_ICE_FILM + ridges_B1HW * (0.5 + _clouds(unit_BCHW, 1.0, rng))).clamp(0.0, 1.0)
    return kept * unit_BCHW + weight * ice_B1HW * unit_BCHW.new_tensor(_ICE_TINT).view(1, 3, 1, 1)


def fog(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """(x + t clouds) * m / (m + t), m the largest value of the image: fog hides the contrast behind it."""
    thickness, decay = FOG[severity - 1]
    most_B111 = unit_BCHW.amax(dim=(1, 2, 3), keepdim=True)
    return (unit_BCHW + thickness * _clouds(unit_BCHW, decay, rng)) * most_B111 / (most_B111 + thickness)


def brightness(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """V + b in HSV, hue and saturation kept: x (V + b) / V, V the largest channel of a pixel. Draws nothing."""
    value_B1HW = unit_BCHW.amax(dim=1, keepdim=True)
    raised_B1HW = (value_B1HW + BRIGHTNESS[severity - 1]).clamp_max(1.0)
    # Black has no hue: it becomes grey.
    return torch.where(value_B1HW > 0.0, unit_BCHW * raised_B1HW / value_B1HW.clamp_min(1e-12), raised_B1HW)


def _clouds(image_BCHW: Tensor, decay: float, rng: torch.Generator) -> Tensor:
    """Octaves of noise, each twice as fine and `decay` times weaker, from 2 cells a side on: [B, 1, H, W].

    The values of every image go from 0 to 1. The finest octave has cells of one pixel of an image of 224 px, or of one
    pixel, whichever is larger.
    """
    size, finest = image_BCHW.shape[-2:], min(PAPER_SIDE_PX, min(image_BCHW.shape[-2:]))
    total_B1HW, cells, weight = torch.zeros(len(image_BCHW), 1, *size), 2, 1.0
    while cells <= finest:
        noise_B1HW = torch.rand((len(image_BCHW), 1, cells + 1, cells + 1), generator=rng)
        octave_B1HW = F.interpolate(noise_B1HW, size=size, mode="bilinear", align_corners=True)
        total_B1HW += weight * octave_B1HW
        cells, weight = 2 * cells, weight / decay
    lowest_B111, highest_B111 = total_B1HW.amin((1, 2, 3), keepdim=True), total_B1HW.amax((1, 2, 3), keepdim=True)
    return ((total_B1HW - lowest_B111) / (highest_B111 - lowest_B111).clamp_min(1e-12)).to(image_BCHW.device)
