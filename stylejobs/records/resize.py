"""Decoded pictures made smaller or larger, aspect kept."""

import numpy as np
from PIL import Image


def resize_short_side(pixels_HWC: np.ndarray, short_side_px: int) -> np.ndarray:
    """The picture with its short side at `short_side_px`; uint8 [H, W, 3], antialiased (Lanczos)."""
    return _scale(pixels_HWC, short_side_px / min(pixels_HWC.shape[:2]))


def middle_square(pixels_HWC: np.ndarray, short_side_px: int, side_px: int) -> np.ndarray:
    """The middle square of `side_px` of the picture with its short side at `short_side_px`, which is no less."""
    pixels_HWC = resize_short_side(pixels_HWC, short_side_px)
    top, left = ((side - side_px) // 2 for side in pixels_HWC.shape[:2])
    return pixels_HWC[top : top + side_px, left : left + side_px]


def limit_long_side(pixels_HWC: np.ndarray, long_side_px: int) -> np.ndarray:
    """The picture with its long side at most `long_side_px`; a smaller one is returned as it is."""
    return _scale(pixels_HWC, min(1.0, long_side_px / max(pixels_HWC.shape[:2])))


def _scale(pixels_HWC: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1.0:
        return pixels_HWC
    height, width = (max(1, round(side * factor)) for side in pixels_HWC.shape[:2])
    return np.asarray(Image.fromarray(pixels_HWC).resize((width, height), Image.Resampling.LANCZOS))
