"""Pictures that look like nothing and cost what photographs cost, out of a seed: for where nobody has given any."""

import torch
from torch import Tensor

_LUMA_STD, _CHROMA_STD = 55.0, 18.0
"""Deviations of a photograph's brightness and of its colours, roughly [levels of 255]."""

_SLOPE = 1.4
"""Amplitude falls as frequency to the minus this. Without edges, which gather a photograph's detail in few places, the
mean slope of photographs, 1.2, costs a JPEG encoder half as much again as they do."""

# Opponent axes to RGB: brightness moves all three alike, the others move colour and, in sum, no brightness.
_TO_RGB = ((1.0, 1.0, 0.5), (1.0, -1.0, 0.5), (1.0, 0.0, -1.0))


def make_scene(height_px: int, width_px: int, seed: int) -> Tensor:
    """Noise whose amplitude falls as a power of frequency, as that of photographs does.

    Encoders and decoders spend their time by the detail of a picture, so that flat or white ones would flatter or
    slander them. Edges and objects, which photographs also have, are missing.

    Args:
        height_px, width_px: at least 1.
        seed: below 2**63.

    Returns:
        image_HWC, uint8, RGB; a function of the arguments alone, on one kind of processor.

    Source: Tolhurst, Tadmor & Chao 1992, Amplitude spectra of natural images, Ophthalmic and Physiological Optics
    12(2), who found slopes from 0.8 to 1.5.

    >>> make_scene(4, 6, seed=0).shape
    torch.Size([4, 6, 3])
    """
    if height_px < 1 or width_px < 1:
        raise ValueError(f"wanted sides of at least 1 px; got {height_px}x{width_px}")
    draw = torch.Generator().manual_seed(seed)
    white_CHW = torch.randn(3, height_px, width_px, generator=draw)
    frequency_HF = torch.hypot(torch.fft.fftfreq(height_px)[:, None], torch.fft.rfftfreq(width_px)[None])
    frequency_HF[0, 0] = torch.inf  # the mean is set below
    noise_CHW = torch.fft.irfft2(torch.fft.rfft2(white_CHW) / frequency_HF**_SLOPE, s=(height_px, width_px))
    noise_CHW /= noise_CHW.std(dim=(1, 2), keepdim=True, correction=0).clamp_min(1e-9)
    axes_C = torch.tensor([_LUMA_STD, _CHROMA_STD, _CHROMA_STD])
    image_HWC = torch.einsum("kc,chw->hwk", torch.tensor(_TO_RGB), noise_CHW * axes_C[:, None, None])
    return (image_HWC + 127.5).round_().clamp_(0, 255).to(torch.uint8)
