"""Models to pin, and style images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stylejobs.core.networks import build_network
from stylejobs.storage.packages import save_package

TINY = {"width": 4, "blocks": 1}


def write_image(path: Path, seed: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)).save(path, "PNG")
    return str(path)


def save_johnson(folder: Path, seed: int = 0, styles: tuple[str, ...] = ("mosaic", "waves")) -> str:
    torch.manual_seed(seed)
    weights = build_network("johnson", **TINY).state_dict()
    codes = {name: torch.zeros(0) for name in styles}
    save_package(str(folder), "johnson", TINY, weights, codes, {"steps": 10})
    return str(folder)


def save_moments(folder: Path, styles: tuple[str, ...] = ("red", "blue", "green")) -> str:
    codes = {name: torch.full((6,), 0.1 * number) for number, name in enumerate(styles)}
    save_package(str(folder), "moments", {}, {}, codes, {})
    return str(folder)
