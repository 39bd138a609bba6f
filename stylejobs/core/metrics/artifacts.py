"""What no style excuses: clipped pixels, pictures of one colour, sources given back, checkerboards and blur."""

import torch
from torch import Tensor

from stylejobs.core.luma import luma
from stylejobs.core.precision import widen

_LEVEL = 1.0 / 127.5  # one of the 255 steps of 8 bits
_CONSTANT_STD_LEVELS = 2.0  # what an encoder leaves of one colour
_TOP_BAND = 0.75  # of the Nyquist frequency
_FLAT_VARIANCE = 1e-4
_MIN_PX = 8  # of fewer a window leaves nothing


@torch.no_grad()
def clipped_share(image_BCHW: Tensor, source_BCHW: Tensor | None = None) -> Tensor:
    """Share of pixels with a channel at an end of the range: |x| >= 1 - half a level of 8 bits.

    Photographs have some themselves (a sky, a night). With their sources beside them, results are asked only about
    pixels whose source is at no end: of the others nobody can tell who clipped them.

    Args:
        image_BCHW: float, [-1, 1]; values outside count as well. Not-a-number must be caught before.
        source_BCHW: same shape; None to count every pixel.

    Returns:
        share_B, float64, in [0, 1].
    """
    _check(image_BCHW)
    found_BHW = _at_an_end(image_BCHW)
    if source_BCHW is not None:
        _check_pair(source_BCHW, image_BCHW)
        found_BHW &= ~_at_an_end(source_BCHW)
    return found_BHW.double().mean(dim=(1, 2))


def _at_an_end(image_BCHW: Tensor) -> Tensor:
    return (image_BCHW.abs() >= 1.0 - 0.5 * _LEVEL).any(dim=1)


@torch.no_grad()
def is_constant(image_BCHW: Tensor) -> Tensor:
    """Whether an image is of one colour: the standard deviation of every channel is below 2 levels of 255.

    A source of one colour may become a picture of one colour: whoever asks must look at the source too.

    Args:
        image_BCHW: float, [-1, 1].

    Returns:
        constant_B, bool.
    """
    _check(image_BCHW)
    std_BC = widen(image_BCHW).std(dim=(2, 3), correction=0)
    return std_BC.amax(dim=1) < _CONSTANT_STD_LEVELS * _LEVEL


@torch.no_grad()
def is_identity(source_BCHW: Tensor, made_BCHW: Tensor, levels: float = 1.0) -> Tensor:
    """Whether a result is its source again: the mean absolute difference is at most `levels` levels of 255.

    Args:
        source_BCHW: float, [-1, 1].
        made_BCHW: same shape.
        levels: one for results as generators make them; of a blend of strength s with the source, s.

    Returns:
        identity_B, bool.

    Raises:
        ValueError: other shapes.
    """
    _check_pair(source_BCHW, made_BCHW)
    # Levels are no round numbers in float32: exactly one level everywhere must not fail by rounding.
    difference_B = (made_BCHW - source_BCHW).abs_().mean(dim=(1, 2, 3), dtype=torch.float64)
    return difference_B <= (levels + 1e-4) * _LEVEL


@torch.no_grad()
def nyquist_energy(image_BCHW: Tensor) -> Tensor:
    """Share of luma's energy in the highest frequencies: those above 0.75 Nyquist along either axis.

    E = sum over that band of P / (sum over all frequencies of P + 1e-4), with P = |FFT(w (Y - m))|^2 / (H W sum(w^2)),
    m the mean of luma under w, and w the product of two Hann windows, so that borders, which do not meet, leak nothing.
    White noise has 0.44, a checkerboard of one-pixel cells and amplitude a on an image of variance v about a^2 / (a^2 +
    v), an image blurred by 2 px next to nothing.

    Relative to the image's own energy, which leaves contrast to other measures: a recolouring that changes no texture
    stays where it was, and on photographs against paintings checkerboard, noise and blur are farther from the rest
    than absolute energies are (reinhard 1.7, with noise 5.2, with a checkerboard 8.7, blurred 0.0; absolute 1.7, 3.8,
    5.7, 0.0, and 3.0 for the photographs themselves). 1e-4, a contrast of little more than a level, keeps a flat image
    from dividing rounding by rounding. Compare with a set of real style images by `ratio_interval`: 1 is best.

    Args:
        image_BCHW: float, RGB, [-1, 1], at least 8 px; sizes must agree within what is compared.

    Returns:
        share_B, float64, in [0, 1].

    Raises:
        ValueError: an image that is too small.

    Source: Odena, Dumoulin & Olah 2016, doi:10.23915/distill.00003, for what leaves checkerboards; the measure is ours.
    """
    height, width = image_BCHW.shape[-2:]
    if min(height, width) < _MIN_PX:
        raise ValueError(f"wanted images of at least {_MIN_PX} px; got {height}x{width}")
    luma_BHW = luma(image_BCHW.double())[:, 0]
    windows = (torch.hann_window(side, dtype=torch.float64, device=image_BCHW.device) for side in (height, width))
    window_HW = torch.outer(*windows)
    mean_B11 = (luma_BHW * window_HW).sum(dim=(1, 2), keepdim=True) / window_HW.sum()
    power_BHW = torch.fft.fft2((luma_BHW - mean_B11) * window_HW).abs().square()
    power_BHW /= height * width * window_HW.square().sum()
    rows_H, columns_W = (torch.fft.fftfreq(side, device=image_BCHW.device).abs() for side in (height, width))
    band_HW = torch.maximum(rows_H[:, None], columns_W[None]) > _TOP_BAND * 0.5
    return (power_BHW * band_HW).sum(dim=(1, 2)) / (power_BHW.sum(dim=(1, 2)) + _FLAT_VARIANCE)


def _check(image_BCHW: Tensor) -> None:
    if image_BCHW.ndim != 4 or not image_BCHW.is_floating_point():
        raise ValueError(f"wanted a float batch [B, C, H, W]; got {image_BCHW.dtype} {list(image_BCHW.shape)}")


def _check_pair(source_BCHW: Tensor, made_BCHW: Tensor) -> None:
    _check(source_BCHW)
    if source_BCHW.shape != made_BCHW.shape:
        raise ValueError(
            f"wanted results of their sources' size; got {list(source_BCHW.shape)} and {list(made_BCHW.shape)}"
        )
