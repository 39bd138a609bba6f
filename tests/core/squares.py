"""Squares out of photographs for the tests of measures: contents, and a style set made of other photographs."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

CONTENT, STYLE = ("chelsea", "coffee", "flower"), ("astronaut", "rocket", "flower")


def crops(photos: dict[str, np.ndarray], names: tuple[str, ...], num: int, size_px: int = 64, seed: int = 0) -> Tensor:
    """At random places, of twice the size and halved: float [num, 3, size_px, size_px]."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num):
        photo = photos[names[number % len(names)]]
        y, x = (int(rng.integers(side - 2 * size_px)) for side in photo.shape[:2])
        square = photo[y : y + 2 * size_px, x : x + 2 * size_px].astype(np.float32)
        found.append(square.reshape(size_px, 2, size_px, 2, 3).mean(axis=(1, 3)).round())
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2) / 127.5 - 1


def paint(image_BCHW: Tensor) -> Tensor:
    """A hand that flattens small things and paints in amber."""
    flat = torch.from_numpy(ndimage.median_filter(image_BCHW.numpy(), (1, 1, 5, 5)))
    return flat * torch.tensor([0.8, 0.6, 0.3])[:, None, None] + torch.tensor([0.2, 0.0, -0.4])[:, None, None]
