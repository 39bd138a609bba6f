"""Images of an evaluation's panel: squares out of encoded pictures, and what models and sanity rows make of them."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stylejobs.core.metrics import blur, checkerboard, collapsed, noise
from stylejobs.core.panel import CUT_SIDES, FEWEST_IMAGES, cut_crops
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.engine.generating import Content, GenerateSettings, Generating, build_places
from stylejobs.errors import RowError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.lineage import Drawing, draw_seed
from stylejobs.records.resize import middle_square
from stylejobs.storage.unit_rows import UnitRows

_BATCH = 8


@dataclass(frozen=True)
class SquareSettings:
    """How pictures become squares: scaled to a short side of `load_px`, of which the middle `size_px` are taken."""

    size_px: int
    load_px: int
    limits: Limits


@dataclass(frozen=True)
class Squares:
    """Images of one size: uint8 [N, H, W, 3], their keys, and the digests of the files that they came from.

    Attributes:
        num_bad: rows that could not be decoded.
    """

    pixels_NHWC: np.ndarray
    keys: list[str]
    sha256: list[str]
    num_bad: int = 0

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def image_BCHW(self) -> Tensor:
        return to_float(torch.from_numpy(self.pixels_NHWC))


def read_squares(rows: UnitRows, settings: SquareSettings) -> Squares:
    """The rows that can be decoded, as squares."""
    squares: list[np.ndarray] = []
    keys: list[str] = []
    digests: list[str] = []
    for key, image in zip(rows.keys, rows.images, strict=True):
        try:
            if isinstance(image, RowError):
                raise image
            squares.append(middle_square(decode_image(image, settings.limits), settings.load_px, settings.size_px))
        except RowError:
            continue  # counted below: what a source holds is for verify and ingest to complain about
        keys.append(key)
        digests.append(hashlib.sha256(image).hexdigest())
    empty = np.empty((0, settings.size_px, settings.size_px, 3), np.uint8)
    return Squares(np.stack(squares) if squares else empty, keys, digests, len(rows) - len(keys))


def read_style_squares(rows: UnitRows, settings: SquareSettings, num_styles: int | None) -> Squares:
    """The same of style images; of a set of fewer than 8 a grid of crops of each, see `Panel`."""
    if num_styles is None or num_styles >= FEWEST_IMAGES:
        return read_squares(rows, settings)
    large_px = round(CUT_SIDES * settings.size_px)
    large = read_squares(rows, SquareSettings(large_px, large_px, settings.limits))
    if not len(large):
        return large
    crops_BCHW = cut_crops(large.image_BCHW, settings.size_px, settings.size_px)
    each = len(crops_BCHW) // len(large)
    keys = [f"{key}#{crop}" for key in large.keys for crop in range(each)]
    digests = [sha256 for sha256 in large.sha256 for _ in range(each)]
    return Squares(to_uint8(crops_BCHW).numpy(), keys, digests, large.num_bad)


@dataclass(frozen=True)
class Made:
    """What was made of squares, row by row; of an image without a result, the source.

    Attributes:
        num_failed: images without a result; `failure` says why the first has none.
        seconds: (images, seconds) of each batch.
    """

    image_BCHW: Tensor
    num_failed: int = 0
    failure: str | None = None
    seconds: tuple[tuple[int, float], ...] = ()


class Maker:
    """A generator with its styles, which are drawn as in a dataset: by seed and key.

    Args:
        generator, codes: on the CPU; at least one code.
    """

    def __init__(
        self,
        generator: nn.Module,
        codes: Mapping[str, Tensor],
        drawing: Drawing,
        precision: str = "float32",
        use_gpu: bool = False,
    ):
        self._drawing = drawing
        places = build_places(generator, codes, use_gpu)
        self._generating = Generating(places, GenerateSettings(_BATCH, precision))

    def __call__(self, squares: Squares) -> Made:
        contents = [self._content(key, pixels) for key, pixels in zip(squares.keys, squares.pixels_NHWC, strict=True)]
        made = squares.pixels_NHWC.copy()
        failures: list[str] = []
        seconds = []
        for first in range(0, len(contents), _BATCH):
            batch = contents[first : first + _BATCH]
            started = time.monotonic()
            results = self._generating(batch)
            seconds.append((len(batch), time.monotonic() - started))
            for row, result in enumerate(results, start=first):
                if isinstance(result, RowError):
                    failures.append(f"{squares.keys[row]}: {result}")
                else:
                    made[row] = result
        image_BCHW = to_float(torch.from_numpy(made))
        return Made(image_BCHW, len(failures), next(iter(failures), None), tuple(seconds))

    def _content(self, key: str, pixels_HWC: np.ndarray) -> Content:
        (draw,) = self._drawing.draw(key)
        return Content(pixels_HWC, draw.style, draw.strength, 0.0)


def spoil(row: str, squares: Squares, picture_HWC: np.ndarray, seed: int) -> Made:
    """What a sanity row makes of squares: `blur`, `noise`, `checkerboard`, or `collapse` to one and the same picture.

    Args:
        picture_HWC: uint8, a square of the style set.
    """
    source_BCHW = squares.image_BCHW
    if row in ("blur", "checkerboard"):
        return Made({"blur": blur, "checkerboard": checkerboard}[row](source_BCHW))
    picture_CHW = to_float(torch.from_numpy(picture_HWC.copy())[None])[0]
    made = []
    for key, image_CHW in zip(squares.keys, source_BCHW, strict=True):
        own_seed = draw_seed(seed, key, 0)
        is_noise = row == "noise"
        made.append(noise(image_CHW[None], seed=own_seed) if is_noise else collapsed(picture_CHW, 1, seed=own_seed))
    return Made(torch.cat(made))


def decode_pictures(pictures: Sequence[bytes], settings: SquareSettings) -> list[np.ndarray]:
    """Encoded style pictures as squares, uint8 [H, W, 3]."""
    return [middle_square(decode_image(data, settings.limits), settings.load_px, settings.size_px) for data in pictures]
