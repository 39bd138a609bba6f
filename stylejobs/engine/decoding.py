"""Encoded images to decoded ones with what is measured of them, on a few threads, ahead of the generator.

Decoded pixels that wait are bounded: by a number of rows, and by 32 * 10**6 pixels for each thread (one image may be
larger). So many small rows or few large ones are ahead, and never all the large ones at once.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stylejobs.core.match import Match, embed
from stylejobs.core.pixels import to_float
from stylejobs.core.sharpness import blur_score
from stylejobs.engine.memory import is_out_of_memory
from stylejobs.engine.timed_pool import Task, TimedPool, TooSlowError
from stylejobs.engine.writer import Stopwatch
from stylejobs.errors import DecodeError, RowError
from stylejobs.records.codec import Limits, OpenImage
from stylejobs.records.resize import resize_short_side

PIXELS_PER_THREAD = 32_000_000
_MEASURED_PIXELS = 4_000_000
_MEASURED_SHORT_PX = 256


@dataclass(frozen=True)
class DecodeSettings:
    """How rows are decoded.

    Attributes:
        short_side_px: None keeps the size.
        matched: styles for which a row's strength by content match is wanted.
        num_threads: of the pool; `max_rows`: decoded ahead.
    """

    limits: Limits
    short_side_px: int | None
    matched: tuple[str, ...]
    num_threads: int
    max_rows: int


@dataclass(frozen=True)
class Source:
    """A decoded row and what was measured of it; `own_strength` is by content match, for each style that wants it."""

    pixels_HWC: np.ndarray
    blur_score: float
    own_strength: dict[str, float]


class Decoding:
    """Decodes the rows of a unit in order.

    Args:
        match: of the model; read only where strengths by content match are wanted.
    """

    def __init__(self, pool: TimedPool, settings: DecodeSettings, match: Match | None = None):
        self._pool, self._s, self._match = pool, settings, match

    def __call__(self, images: Sequence[bytes | RowError], stopwatch: Stopwatch) -> Iterator[Source | RowError]:
        """Every row, decoded or why it is not; `oom` and `timeout` among the reasons."""
        ahead: deque[tuple[Task | RowError, int]] = deque()
        upcoming = map(self._open, images)
        following = next(upcoming, None)
        waiting_pixels = 0
        while ahead or following:
            while following and self._has_room(len(ahead), waiting_pixels + self._num_pixels(following)):
                waiting_pixels += self._num_pixels(following)
                ahead.append((self._submitted(following, stopwatch), self._num_pixels(following)))
                following = next(upcoming, None)
            task, num_pixels = ahead.popleft()
            waiting_pixels -= num_pixels
            yield task if isinstance(task, RowError) else self._result(task)

    def _has_room(self, num_rows: int, num_pixels: int) -> bool:
        return not num_rows or (num_rows < self._s.max_rows and num_pixels <= PIXELS_PER_THREAD * self._s.num_threads)

    def _open(self, image: bytes | RowError) -> OpenImage | RowError:
        if isinstance(image, RowError):
            return image
        try:
            return OpenImage(image, self._s.limits)
        except RowError as error:
            return error

    def _num_pixels(self, image: OpenImage | RowError) -> int:
        """What a row takes at most."""
        if isinstance(image, RowError):
            return 0
        factor = self._s.short_side_px / min(image.height, image.width) if self._s.short_side_px else 1.0
        return round(image.height * image.width * max(1.0, factor * factor))

    def _submitted(self, image: OpenImage | RowError, stopwatch: Stopwatch) -> Task | RowError:
        return image if isinstance(image, RowError) else self._pool.submit(self._decode, image, stopwatch)

    def _result(self, task: Task) -> Source | RowError:
        try:
            return self._pool.result(task)
        except TooSlowError as error:
            return DecodeError("timeout", f"{error} (row_seconds)")

    def _decode(self, image: OpenImage, stopwatch: Stopwatch) -> Source | RowError:
        with stopwatch.stage("decode"):
            try:
                pixels_HWC = image.decode()
                if self._s.short_side_px:
                    pixels_HWC = resize_short_side(pixels_HWC, self._s.short_side_px)
                return self._measured(pixels_HWC)
            except RowError as error:
                return error
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return DecodeError("oom", f"no memory for the decoded image: {error}")

    @torch.inference_mode()
    def _measured(self, pixels_HWC: np.ndarray) -> Source:
        image_1CHW = to_float(torch.from_numpy(np.stack([_reduced(pixels_HWC)])))
        own_strength = {}
        if self._s.matched:
            embedding_1D = embed(image_1CHW)
            own_strength = {style: self._match.strength(embedding_1D, style).item() for style in self._s.matched}
        return Source(pixels_HWC, blur_score(image_1CHW).item(), own_strength)


def _reduced(pixels_HWC: np.ndarray) -> np.ndarray:
    """What is measured of a picture: the whole, or of a large one a copy of about four megapixels.

    Blur score and style embedding scale it down to about a hundred pixels in any case, but as floats.
    """
    height, width = pixels_HWC.shape[:2]
    if height * width <= _MEASURED_PIXELS:
        return pixels_HWC
    short_px = round(min(height, width) * math.sqrt(_MEASURED_PIXELS / (height * width)))
    return resize_short_side(pixels_HWC, min(min(height, width), max(_MEASURED_SHORT_PX, short_px)))
