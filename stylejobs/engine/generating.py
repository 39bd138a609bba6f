"""The generator's part of a worker: pixels of a micro-batch in, stylized pixels out, whatever memory there is.

How many rows go through the generator at once is planned by size: `micro_batch` rows of up to 2**20 pixels, half as
many for each doubling, down to one, so that a pass never holds more than micro_batch * 2**20 pixels, or one image of
`tile_above_megapixels`. Larger images go tile by tile (core/tiles.py) and cost a tile and a strip.

When memory runs out all the same:

    1. the batch is halved, down to one row; what fits is remembered for this device, size and model (`learned`), so
       that the next batch of that size starts with it
    2. the row alone goes through in tiles
    3. the row goes through on the CPU, if the device is another
    4. the row is given up: `oom`. No other row is touched

A row's pixels are a function of the row alone but for the last bit: libraries choose their algorithms by the size of
the batch, so a batch that was halved, or that starts with what was learned, may differ there from one that was not.
Step 2 shows in networks with global statistics. What the planned size is does not depend on what was learned.

Time is looked at between passes, as a pass cannot be interrupted: between the tiles of a large image, and after a
micro-batch. A pass that never returns hangs the worker.
"""

import copy
import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stylejobs.core.luma import keep_colour
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.core.precision import autocast
from stylejobs.core.sharpness import Deblur
from stylejobs.core.tiles import Tiling, stylize_tiles
from stylejobs.engine.memory import attempt
from stylejobs.errors import GenerateError

_BUCKET_PX = 2**20
_SMALLEST_BUCKET_PX = 2**16
_TILE_STEP_PX = 16
_WHOLE_PX = 4 * 2**20


@dataclass(frozen=True)
class GenerateSettings:
    """How pixels go through the generator.

    Attributes:
        micro_batch: most rows of up to 2**20 pixels in one pass.
        precision: "float32" or "bf16".
        deblur: how blurry contents are sharpened; None sharpens none.
        tile_px, tile_overlap_px: of large images, multiples of 16 px; what is above `tile_above_megapixels` is large.
        row_seconds: longest for each begun 10**6 pixels of a row; None for no limit.
        model: names the model in `learned`.
    """

    micro_batch: int
    precision: str = "float32"
    preserve_colour: bool = False
    deblur: Deblur | None = None
    tile_px: int = 1024
    tile_overlap_px: int = 128
    tile_above_megapixels: float = 16.0
    row_seconds: float | None = None
    model: str = ""


@dataclass(frozen=True)
class Content:
    """One image to be stylized: uint8 [H, W, 3], the name of its style, strength in (0, 1], its `blur_score`."""

    pixels_HWC: np.ndarray
    style: str
    strength: float
    blur_score: float


@dataclass(frozen=True)
class Place:
    """A device with the generator and the style codes on it."""

    device: torch.device
    generator: nn.Module
    codes: dict[str, Tensor]

    @property
    def memory_format(self) -> torch.memory_format:
        """How pixels lie in memory where convolutions like it best; on the CPU wide ones lose a sixth channels last."""
        return torch.channels_last if self.device.type == "cuda" else torch.contiguous_format

    @property
    def name(self) -> str:
        """ "cpu", or what the GPU calls itself: another one has other memory."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type


def build_places(generator: nn.Module, codes: Mapping[str, Tensor], use_gpu: bool) -> list[Place]:
    """Where a model can run, best first: the GPU, then the CPU. `generator` and `codes` are on the CPU."""
    devices = [torch.device("cuda"), torch.device("cpu")] if use_gpu else [torch.device("cpu")]
    places = []
    for device in devices:
        here = generator if device.type == "cpu" else copy.deepcopy(generator)
        on_device = {name: code.to(device) for name, code in codes.items()}
        place = Place(device, here.to(device), on_device)
        place.generator.to(memory_format=place.memory_format)
        places.append(place)
    return places


class Generating:
    """Stylizes micro-batches.

    Args:
        places: tried in turn; batches only ever run in the first.
        learned: of an earlier worker.
    """

    def __init__(self, places: Sequence[Place], settings: GenerateSettings, learned: Mapping[str, int] | None = None):
        self._places, self._s = list(places), settings
        self._learned = dict(learned or {})
        self._tiling = Tiling(settings.tile_px, settings.tile_overlap_px, _multiple(places[0].generator))

    @property
    def learned(self) -> dict[str, int]:
        """Rows that fit where fewer did than planned: "device size MP model" -> rows."""
        return dict(self._learned)

    def planned(self, height: int, width: int) -> int:
        """Rows of this size that belong into one batch, known before any is generated."""
        if self._is_large(height, width):
            return 1
        return max(1, min(self._s.micro_batch, self._s.micro_batch * _BUCKET_PX // _bucket(height, width)))

    def __call__(self, batch: Sequence[Content]) -> list[np.ndarray | GenerateError]:
        """Stylizes contents of one size, at least one; of more than `planned` several batches are made.

        Returns:
            For each uint8 [H, W, 3], or why there is none: `oom`, `timeout` or `non_finite`.
        """
        size = batch[0].pixels_HWC.shape[:2]
        key, planned = self._key(*size), self.planned(*size)
        made: list[np.ndarray | GenerateError] = []
        while len(made) < len(batch):
            fitting = max(1, min(planned, self._learned.get(key, planned)))
            rows = batch[len(made) : len(made) + fitting]
            if len(rows) == 1:
                made.append(self._alone(rows[0]))
            elif some := attempt(functools.partial(self._together, rows, self._places[0])):
                made += some
            else:
                self._learned[key] = len(rows) // 2
        return made

    def _alone(self, content: Content) -> np.ndarray | GenerateError:
        height, width = content.pixels_HWC.shape[:2]
        for place in self._places:
            for tiling in self._ways(height, width):
                way = self._whole if tiling is None else functools.partial(self._tiled, tiling)
                made = attempt(functools.partial(way, content, place))
                if made is not None:
                    return made
        places = ", then ".join(place.name for place in self._places)
        return GenerateError(
            "oom",
            f"no memory for {width}x{height} pixels, alone and in tiles ({places}): lower tile_px, take a narrower "
            "network, or give the workers more memory",
        )

    def _ways(self, height: int, width: int) -> list[Tiling | None]:
        """As a whole (None), then in tiles that are smaller than the whole."""
        if self._is_large(height, width):
            return [self._tiling]
        half = -(-max(height, width) // (2 * _TILE_STEP_PX)) * _TILE_STEP_PX
        tile_px = min(half, self._s.tile_px)
        overlap_px = min(self._s.tile_overlap_px, tile_px // (4 * _TILE_STEP_PX) * _TILE_STEP_PX)
        return [None, Tiling(tile_px, overlap_px, self._tiling.multiple)]

    def _together(self, batch: Sequence[Content], place: Place) -> list[np.ndarray | GenerateError]:
        started = time.monotonic()
        pixels_BHWC = torch.from_numpy(np.stack([content.pixels_HWC for content in batch]))
        blended_BCHW, finite_B = self._forward(pixels_BHWC, batch, place)
        made_BHWC = to_uint8(blended_BCHW).cpu().numpy()
        height, width = made_BHWC.shape[1:3]
        if late := self._lateness(started, len(batch), height, width):
            return [late for _ in batch]
        return [made_HWC if finite else _non_finite() for made_HWC, finite in zip(made_BHWC, finite_B, strict=True)]

    def _whole(self, content: Content, place: Place) -> np.ndarray | GenerateError:
        return self._together([content], place)[0]

    def _tiled(self, tiling: Tiling, content: Content, place: Place) -> np.ndarray | GenerateError:
        started = time.monotonic()
        height, width = content.pixels_HWC.shape[:2]
        whole = _whole_code(content, place)

        def make_tile(rows: slice, columns: slice) -> Tensor:
            pixels_1HWC = torch.from_numpy(np.stack([content.pixels_HWC[rows, columns]]))
            blended_1CHW, (is_finite,) = self._forward(pixels_1HWC, [content], place, whole)
            if late := self._lateness(started, 1, height, width):
                raise late
            if not is_finite:
                raise _non_finite()
            return blended_1CHW

        try:
            return stylize_tiles(height, width, tiling, make_tile).numpy()
        except GenerateError as error:
            return error

    @torch.inference_mode()
    def _forward(
        self, pixels_BHWC: Tensor, batch: Sequence[Content], place: Place, whole: Sequence[Tensor] = ()
    ) -> tuple[Tensor, list[bool]]:
        """x + strength (y - x) as floats that are not clipped yet, and of which rows y is finite.

        Args:
            whole: nothing, or `whole_BD` of the images that the pixels are tiles of.
        """
        content_BCHW = to_float(pixels_BHWC.to(place.device)).contiguous(memory_format=place.memory_format)
        style_BD = torch.stack([place.codes[content.style] for content in batch])
        sharp_BCHW = self._sharpened(content_BCHW, batch)
        with autocast(place.device.type, self._s.precision):
            stylized_BCHW = place.generator(sharp_BCHW, style_BD, *whole)
        stylized_BCHW = stylized_BCHW.float()
        # One pass: a sum is finite unless a value is not, or they are of 30 digits, which are no pixels either.
        finite_B = stylized_BCHW.sum(dim=(1, 2, 3)).isfinite().tolist()
        if self._s.preserve_colour:
            stylized_BCHW = keep_colour(stylized_BCHW, content_BCHW)
        strengths = [content.strength for content in batch]
        if min(strengths) == 1.0:
            return stylized_BCHW, finite_B  # what `lerp` would give, bit for bit
        strength_B111 = torch.tensor(strengths, device=place.device).view(-1, 1, 1, 1)
        return torch.lerp(content_BCHW, stylized_BCHW, strength_B111), finite_B

    def _sharpened(self, content_BCHW: Tensor, batch: Sequence[Content]) -> Tensor:
        deblur = self._s.deblur
        blurry = [n for n, content in enumerate(batch) if deblur and deblur.applies_to(content.blur_score)]
        if not blurry:
            return content_BCHW
        sharp_BCHW = content_BCHW.clone()
        sharp_BCHW[blurry] = deblur(content_BCHW[blurry])
        return sharp_BCHW

    def _is_large(self, height: int, width: int) -> bool:
        return height * width > self._s.tile_above_megapixels * 1e6

    def _key(self, height: int, width: int) -> str:
        return f"{self._places[0].name} {_bucket(height, width) / _BUCKET_PX:g} MP {self._s.model}".rstrip()

    def _lateness(self, started: float, num_rows: int, height: int, width: int) -> GenerateError | None:
        if self._s.row_seconds is None:
            return None
        allowed = self._s.row_seconds * num_rows * max(1, math.ceil(height * width / 1e6))
        if (spent := time.monotonic() - started) <= allowed:
            return None
        return GenerateError(
            "timeout",
            f"{spent:.1f} s in the generator for {num_rows} image(s) of {width}x{height} pixels, "
            f"row_seconds={self._s.row_seconds:g} allows {allowed:g}",
        )


@torch.inference_mode()
def _whole_code(content: Content, place: Place) -> tuple[Tensor, ...]:
    """What a generator that `takes_whole` is told of an image that is cut into tiles; nothing for the others.

    Of every so many pixels one is looked at: as many as say it well, and as they are, not averaged.
    """
    if not getattr(place.generator, "takes_whole", False):
        return ()
    step = math.ceil(math.sqrt(content.pixels_HWC[..., 0].size / _WHOLE_PX))
    pixels_1HWC = torch.from_numpy(np.stack([content.pixels_HWC[::step, ::step]]))
    return (place.generator.encode_style(to_float(pixels_1HWC.to(place.device))),)


def _bucket(height: int, width: int) -> int:
    """Pixels, rounded up to a power of two."""
    return max(_SMALLEST_BUCKET_PX, 1 << (height * width - 1).bit_length())


def _multiple(generator: nn.Module) -> int:
    return getattr(generator, "multiple", 1)


def _non_finite() -> GenerateError:
    return GenerateError("non_finite", "the generator's output holds NaN or infinity")
