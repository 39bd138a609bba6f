"""Bytes of pixels to floats and back, and padding that is taken off again. Nothing here changes an image's look."""

import torch
from torch import Tensor


def to_float(image_BHWC: Tensor) -> Tensor:
    """uint8 pixels to floats: x / 127.5 - 1.

    Args:
        image_BHWC: uint8, RGB.

    Returns:
        image_BCHW, float32 in [-1, 1].

    >>> to_float(torch.tensor([[[[0, 255, 0]]]], dtype=torch.uint8)).flatten().tolist()
    [-1.0, 1.0, -1.0]
    """
    if image_BHWC.dtype != torch.uint8 or image_BHWC.ndim != 4:
        raise ValueError(f"wanted uint8 [B, H, W, C]; got {image_BHWC.dtype} {list(image_BHWC.shape)}")
    image_BCHW = image_BHWC.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return image_BCHW.div_(127.5).sub_(1.0)


def to_uint8(image_BCHW: Tensor) -> Tensor:
    """Floats to uint8 pixels: round((clamp(x, -1, 1) + 1) * 127.5), halves to the even neighbour.

    The exact inverse of `to_float` on every uint8 value. Not-a-number must be caught before: it has no pixel value.

    Args:
        image_BCHW: any float dtype; values outside [-1, 1] are clamped.

    Returns:
        image_BHWC, uint8.
    """
    if not image_BCHW.is_floating_point() or image_BCHW.ndim != 4:
        raise ValueError(f"wanted floats [B, C, H, W]; got {image_BCHW.dtype} {list(image_BCHW.shape)}")
    levels_BCHW = image_BCHW.to(torch.float32).clamp(-1.0, 1.0).add_(1.0).mul_(127.5).round_()
    return levels_BCHW.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def pad_to_multiple(image_BCHW: Tensor, multiple: int, min_px: int = 1) -> Tensor:
    """Extends the right and bottom by reflection until both sides are multiples.

    Reflects as often as needed (a 1 px side repeats its pixel), so every H, W >= 1 works.

    Args:
        image_BCHW: any dtype.
        multiple: both sides of the result are multiples of it.
        min_px: both sides of the result are at least as long.

    Returns:
        The same tensor when nothing is missing, else a longer one of the same dtype.
    """
    height, width = image_BCHW.shape[-2:]
    if multiple < 1 or height < 1 or width < 1:
        raise ValueError(f"wanted multiple >= 1 and sides >= 1; got {multiple} and {height}x{width}")
    for axis, side in ((-2, height), (-1, width)):
        target = -(-max(side, min_px) // multiple) * multiple
        if target != side:
            image_BCHW = image_BCHW.index_select(axis, _reflected_indices(side, target, image_BCHW.device))
    return image_BCHW


def crop_to(image_BCHW: Tensor, height: int, width: int) -> Tensor:
    """The top left `height` x `width` px: takes off what `pad_to_multiple` put on."""
    if height > image_BCHW.shape[-2] or width > image_BCHW.shape[-1]:
        raise ValueError(f"wanted at least {height}x{width} px to crop from; got {list(image_BCHW.shape[-2:])}")
    return image_BCHW[..., :height, :width]


def _reflected_indices(side: int, target: int, device: torch.device) -> Tensor:
    """0 1 2 1 0 1 2 ... for side 3: a triangle wave that does not repeat the edge."""
    if side == 1:
        return torch.zeros(target, dtype=torch.long, device=device)
    period = 2 * (side - 1)
    phase = torch.arange(target, device=device) % period
    return torch.minimum(phase, period - phase)
