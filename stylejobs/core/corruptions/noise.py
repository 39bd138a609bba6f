"""Corruptions by noise: Gaussian, shot and impulse noise, independent in every pixel and channel.

Functions of this package take and return floats in [0, 1]; `corrupt` (in `__init__.py`) converts and clamps.
"""

import torch
from torch import Tensor

GAUSSIAN_SIGMAS = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT_PHOTONS = (60.0, 25.0, 12.0, 5.0, 3.0)
IMPULSE_SHARES = (0.03, 0.06, 0.09, 0.17, 0.27)


def gaussian_noise(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """x + sigma * n, n from N(0, 1): the noise of little light."""
    sigma = GAUSSIAN_SIGMAS[severity - 1]
    return unit_BCHW + sigma * torch.randn(unit_BCHW.shape, generator=rng).to(unit_BCHW.device)


def shot_noise(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Poisson(photons * x) / photons: mean x, variance x / photons; white is `photons` particles of light."""
    photons = SHOT_PHOTONS[severity - 1]
    return torch.poisson(unit_BCHW.cpu() * photons, generator=rng).to(unit_BCHW.device) / photons


def impulse_noise(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """A share of the values, each channel for itself, becomes 0 or 1, one as often as the other."""
    share = IMPULSE_SHARES[severity - 1]
    draw_BCHW = torch.rand(unit_BCHW.shape, generator=rng).to(unit_BCHW.device)
    salted_BCHW = unit_BCHW.masked_fill(draw_BCHW < share, 1.0)
    return salted_BCHW.masked_fill(draw_BCHW < share / 2, 0.0)
