"""Decoding ahead of the generator: in order, bounded in rows and in pixels, whatever goes wrong in a thread."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.match import embed
from stylejobs.core.pixels import to_float
from stylejobs.core.sharpness import blur_score
from stylejobs.engine import decoding
from stylejobs.engine.decoding import DecodeSettings, Decoding, Source
from stylejobs.engine.timed_pool import Task, TimedPool
from stylejobs.engine.writer import Stopwatch
from stylejobs.errors import DecodeError, RowError
from stylejobs.records.codec import Limits, OpenImage
from tests.engine.stylizing import pixels, png


def build(threads: int = 2, max_rows: int = 5, short_side_px: int | None = None, pool: TimedPool | None = None):
    limits = Limits(min_side_px=1, max_aspect=1e6)
    wanted = DecodeSettings(limits, short_side_px, (), threads, max_rows)
    return Decoding(pool or TimedPool(threads), wanted)


class Counting(TimedPool):
    """Knows how many tasks were submitted and not yet asked for, and the most that there ever were."""

    def __init__(self, num_threads: int, seconds: float | None = None):
        super().__init__(num_threads, seconds)
        self.waiting: dict[Task, OpenImage] = {}
        self.peaks: list[tuple[int, int]] = []

    def submit(self, function, image, stopwatch) -> Task:
        task = super().submit(function, image, stopwatch)
        self.waiting[task] = image
        sizes = self.waiting.values()
        self.peaks.append((len(sizes), sum(size.height * size.width for size in sizes)))
        return task

    def result(self, task: Task) -> object:
        del self.waiting[task]
        return super().result(task)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(8, 40), max_size=20), st.integers(1, 3), st.integers(1, 6), st.integers(100, 2000))
def test_law_rows_come_in_order_and_what_is_ahead_is_bounded(
    sides: list[int], threads: int, max_rows: int, per_thread: int
) -> None:
    images = [pixels(n, side, side) for n, side in enumerate(sides)]
    pool = Counting(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "PIXELS_PER_THREAD", per_thread)
        found = list(build(threads, max_rows, pool=pool)([png(image) for image in images], Stopwatch()))
    assert all(np.array_equal(a.pixels_HWC, b) for a, b in zip(found, images, strict=True))
    for num_rows, num_pixels in pool.peaks:
        assert num_rows <= max_rows and (num_rows == 1 or num_pixels <= per_thread * threads)


def test_small_rows_are_decoded_as_far_ahead_as_rows_may_be() -> None:
    pool = Counting(2)
    decoded = build(2, max_rows=5, pool=pool)([png(pixels(n)) for n in range(9)], Stopwatch())
    next(decoded)
    assert max(pool.peaks)[0] == 5


def test_what_is_enlarged_counts_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "PIXELS_PER_THREAD", 100 * 100)
    pool = Counting(1)
    found = list(build(1, short_side_px=90, pool=pool)([png(pixels(n, 20, 20)) for n in range(4)], Stopwatch()))
    assert max(pool.peaks)[0] == 1 and found[0].pixels_HWC.shape == (90, 90, 3)


def test_bad_rows_are_their_own_errors() -> None:
    images = [png(pixels(0)), b"text", DecodeError("bomb", "too large"), png(pixels(1))[:50], png(pixels(1))]
    found = list(build()(images, Stopwatch()))
    assert [row.reason if isinstance(row, RowError) else "" for row in found] == [
        "",
        "not_an_image",
        "bomb",
        "truncated",
        "",
    ]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1")]
)
def test_memory_that_ends_beside_the_decoder_costs_the_row(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(image: object) -> None:
        raise error

    monkeypatch.setattr(decoding, "blur_score", fail)
    (found,) = build()([png(pixels(0))], Stopwatch())
    assert (found.stage, found.reason) == ("decode", "oom")


def test_a_fault_of_ours_is_not_a_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(decoding, "blur_score", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(build()([png(pixels(0))], Stopwatch()))


def test_a_row_that_hangs_costs_itself_and_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    real = OpenImage.decode

    def decode(image: OpenImage) -> np.ndarray:
        if image.height == 99:
            time.sleep(1.5)
        return real(image)

    monkeypatch.setattr(OpenImage, "decode", decode)
    pool = TimedPool(1, seconds=0.3)
    found = list(build(1, pool=pool)([png(pixels(n, 99 if n == 2 else 20)) for n in range(5)], Stopwatch()))
    assert [isinstance(row, Source) for row in found] == [True, True, False, True, True]
    assert (found[2].stage, found[2].reason) == ("decode", "timeout") and "0.3 s" in found[2].message
    assert pool.num_lost == 1


def test_large_pictures_are_measured_by_a_copy_of_about_the_same_scores(
    monkeypatch: pytest.MonkeyPatch, photos: dict[str, np.ndarray]
) -> None:
    monkeypatch.setattr(decoding, "_MEASURED_PIXELS", 100_000)
    for name in ("coffee", "rocket", "astronaut"):
        small = decoding._reduced(photos[name])
        assert small.shape[0] * small.shape[1] < photos[name].shape[0] * photos[name].shape[1] / 2
        whole_1CHW, small_1CHW = (to_float(torch.from_numpy(image[None].copy())) for image in (photos[name], small))
        assert blur_score(small_1CHW).item() == pytest.approx(blur_score(whole_1CHW).item(), rel=0.2)
        assert (embed(small_1CHW) - embed(whole_1CHW)).abs().max() < 0.2
    thin = np.zeros((40, 9000, 3), np.uint8)
    assert decoding._reduced(thin).shape == thin.shape, "already as narrow as scores need it"
