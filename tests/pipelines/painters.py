"""Models that learn a hand in seconds: a narrow network shown pairs of photographs and what the hand makes of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from stylejobs.core.networks import build_network
from stylejobs.storage.packages import save_package

SIDE_PX = 48
NETWORK, OPTIONS = "johnson", {"width": 8, "blocks": 1}


def crops(photos: dict[str, np.ndarray], names: tuple[str, ...], num: int, seed: int) -> np.ndarray:
    """Squares of photographs at random places, halved: uint8 [num, 48, 48, 3]."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num):
        photo = photos[names[number % len(names)]]
        y, x = (int(rng.integers(side - 2 * SIDE_PX)) for side in photo.shape[:2])
        found.append(photo[y : y + 2 * SIDE_PX : 2, x : x + 2 * SIDE_PX : 2])
    return np.stack(found)


def paint(pixels_NHWC: np.ndarray) -> np.ndarray:
    """A hand that flattens small things and paints in amber."""
    flat = ndimage.median_filter(pixels_NHWC, (1, 5, 5, 1)).astype(np.float64)
    return np.clip(flat * (0.8, 0.6, 0.3) + (50, 30, 0), 0, 255).astype(np.uint8)


def write_folder(folder: Path, pixels_NHWC: np.ndarray) -> Path:
    """A picture a file."""
    folder.mkdir(parents=True)
    for number, pixels_HWC in enumerate(pixels_NHWC):
        Image.fromarray(pixels_HWC).save(folder / f"{number:03d}.png")
    return folder


def write_sets(folder: Path, photos: dict[str, np.ndarray], num_styles: int) -> tuple[Path, Path]:
    """Folders of 56 contents that no training saw, and of paintings of other scenes."""
    content = write_folder(folder / "content", crops(photos, ("chelsea", "coffee", "flower"), 56, 0))
    style = paint(crops(photos, ("astronaut", "rocket", "flower"), num_styles, 1))
    return content, write_folder(folder / "style", style)


def train_painters(folder: Path, photos: dict[str, np.ndarray], num_steps: tuple[int, ...]) -> Iterator[Path]:
    """Packages of one training, one after each number of steps, ascending."""
    torch.manual_seed(0)
    content = crops(photos, ("chelsea", "coffee", "flower"), 64, 5)
    pair = [torch.from_numpy(one).permute(0, 3, 1, 2) / 127.5 - 1 for one in (content, paint(content))]
    network = build_network(NETWORK, **OPTIONS)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    rng = torch.Generator().manual_seed(0)
    for step in range(1, max(num_steps) + 1):
        rows = torch.randint(64, (8,), generator=rng)
        loss = _distance(network(pair[0][rows], torch.zeros(8, 0)), pair[1][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in num_steps:
            place = folder / f"{step:04d}"
            style = {"amber": torch.zeros(0)}
            save_package(str(place), NETWORK, OPTIONS, network.state_dict(), style, {"steps": step})
            yield place


def _distance(made_BCHW: Tensor, wanted_BCHW: Tensor) -> Tensor:
    return (made_BCHW - wanted_BCHW).abs().mean()
