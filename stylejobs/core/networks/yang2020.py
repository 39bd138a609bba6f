"""Fourier domain adaptation (Yang & Soatto 2020): the style's low-frequency amplitudes, the content's phases."""

import torch
from torch import Tensor, nn

from stylejobs.core.networks.layers import check_inputs
from stylejobs.core.precision import widen

# As a share of full scale. A wave of the content below it is rounding noise, whose phase means nothing.
_MIN_AMPLITUDE = 1e-5


class Fda(nn.Module):
    """Replaces the amplitudes of each channel's lowest frequencies by the style's, keeping the phases. No training.

    y = IFFT(M * |FFT(s)| / |FFT(x)| * FFT(x) + (1 - M) * FFT(x)), with M = 1 at frequencies of at most
    b = floor(beta * min(H, W)) cycles per image along both axes. A style code is |FFT(s)| / (H_s W_s) at up to
    `max_cycles` cycles, -max_cycles..max_cycles by 0..max_cycles (the rest is their mirror image), so its length does
    not depend on the size of an image.

    Args:
        beta: in [0, 0.5). The paper takes 0.01 to 0.09 at 512x1024 px; larger gives more style and more ringing. On
            256 px, 0.05 is 12 cycles and 0.01 is 2, hardly more than a change of mean colour.
        max_cycles: b never is larger.

    Differs from paper: amplitudes are compared per cycle and per pixel in place of resizing the style image to the
    content's size; where the style is too small to have a frequency, its amplitude is 0, as after a smooth resize.
    Clamped to [-1, 1]; computed on [0, 1], as the paper's images are never negative and a negative mean has a phase.
    A wave that the content does not have (less than 1e-5 of full scale) is not made up.
    Source: Yang & Soatto 2020, arXiv:2004.05498, equations 2 and 3.
    """

    multiple = 1

    def __init__(self, beta: float = 0.05, max_cycles: int = 32):
        super().__init__()
        if not 0 <= beta < 0.5 or max_cycles < 0:
            raise ValueError(f"wanted beta in [0, 0.5) and max_cycles >= 0; got {beta} and {max_cycles}")
        self.beta, self.max_cycles = beta, max_cycles
        self._sides = (2 * max_cycles + 1, max_cycles + 1)
        self.style_dim = 3 * self._sides[0] * self._sides[1]

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, style_dim], codes from `encode_style`.

        Returns:
            stylized_BCHW, the content's size and dtype, clamped to [-1, 1].
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        height, width = content_BCHW.shape[-2:]
        cycles = min(int(self.beta * min(height, width)), self.max_cycles)
        spectrum_BCHF = _spectrum(content_BCHW)
        rows, own_rows = _rows(cycles, height), _rows(cycles, self._sides[0])
        low_BCKF = spectrum_BCHF[:, :, rows, : cycles + 1]
        style_BCKF = style_BD.to(low_BCKF.real.dtype).unflatten(1, (3, *self._sides))[:, :, own_rows, : cycles + 1]
        ratio_BCKF = style_BCKF / low_BCKF.abs().clamp_min(_MIN_AMPLITUDE)
        spectrum_BCHF = spectrum_BCHF.clone()
        spectrum_BCHF[:, :, rows, : cycles + 1] = low_BCKF * ratio_BCKF
        image_BCHW = torch.fft.irfft2(spectrum_BCHF, s=(height, width), norm="forward")
        return image_BCHW.mul(2.0).sub(1.0).clamp(-1.0, 1.0).to(content_BCHW.dtype)

    def encode_style(self, style_BCHW: Tensor) -> Tensor:
        """The amplitudes of each image's low frequencies: style_BD, float32 (float64 for float64 input)."""
        height, width = style_BCHW.shape[-2:]
        amplitude_BCHF = _spectrum(style_BCHW).abs()
        # Frequencies below half the side: at half of it, a wave and its mirror image fall together.
        high, wide = min((height - 1) // 2, self.max_cycles), min((width - 1) // 2, self.max_cycles)
        code_BCKF = amplitude_BCHF.new_zeros(style_BCHW.shape[0], 3, *self._sides)
        code_BCKF[:, :, _rows(high, self._sides[0]), : wide + 1] = amplitude_BCHF[:, :, _rows(high, height), : wide + 1]
        return code_BCKF.flatten(1)


def _spectrum(image_BCHW: Tensor) -> Tensor:
    """FFT of the image in [0, 1], divided by H W: rows 0, 1, ... -2, -1 cycles, columns 0, 1, ... W // 2 cycles."""
    return torch.fft.rfft2(widen(image_BCHW).clamp(-1.0, 1.0).add(1.0).div(2.0), norm="forward")


def _rows(cycles: int, side: int) -> list[int]:
    """Places of the frequencies 0..cycles, then -cycles..-1, in a spectrum of `side` rows."""
    return [*range(cycles + 1), *range(side - cycles, side)]
