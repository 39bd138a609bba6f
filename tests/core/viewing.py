"""Views for tests: drawn from a seed, pictures that show what was drawn, and the plain crop, written plainly."""

import numpy as np
import torch

from stylejobs.core.views import ViewOptions, random_view


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def view(image_HWC: np.ndarray | torch.Tensor, options: ViewOptions, seed: int) -> np.ndarray:
    return random_view(torch.as_tensor(np.ascontiguousarray(image_HWC)), options, seeded(seed)).numpy()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def numbered(height: int, width: int, step: int = 1) -> np.ndarray:
    """An image whose red is the row and whose green is the column, times `step`."""
    rows, columns = np.mgrid[:height, :width] * step
    return np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)


def plain(image_HWC: np.ndarray, size_px: int, seed: int) -> np.ndarray:
    """Crop and flip, written plainly."""
    draws = torch.rand(3, generator=seeded(seed), dtype=torch.float64).tolist()
    top, left = (int(draw * (side - size_px + 1)) for draw, side in zip(draws[:2], image_HWC.shape[:2], strict=True))
    crop_HWC = image_HWC[top : top + size_px, left : left + size_px]
    return crop_HWC[:, ::-1] if draws[2] < 0.5 else crop_HWC


def most(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).max())


def drawn_angle(options: ViewOptions, seed: int) -> float:
    """Degrees, from the slopes of a turned ramp."""
    shown = view(numbered(64, 64, step=4), options, seed).astype(float)
    y, x = np.mgrid[:64, :64] - 31.5
    inside = np.hypot(x, y) < 25
    plane = np.stack([x[inside], y[inside], np.ones(inside.sum())], -1)
    (along, _, _), *_ = np.linalg.lstsq(plane, shown[..., 0][inside], rcond=None)
    (across, _, _), *_ = np.linalg.lstsq(plane, shown[..., 1][inside], rcond=None)
    return float(np.degrees(np.arctan2(along, across)))
