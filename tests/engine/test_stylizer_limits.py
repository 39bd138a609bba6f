"""The stylizing worker when rows hang, are large, or memory is short."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from stylejobs.engine import stylizer
from stylejobs.engine.stylizer import Stylizer
from stylejobs.records import codec
from stylejobs.records.codec import OpenImage
from tests.engine.stylizing import SIZES, convert, decoded, pixels, png, rows_of


class TestTime:
    """A row that hangs for real, in each of the two stages that run on threads."""

    @pytest.mark.parametrize(
        ("holder", "name", "stage"), [(OpenImage, "decode", "decode"), (stylizer, "encode_image", "encode")]
    )
    def test_it_becomes_a_dead_letter_and_the_others_are_as_they_were(
        self, build: Callable[..., Stylizer], monkeypatch: pytest.MonkeyPatch, holder: object, name: str, stage: str
    ) -> None:
        rows = rows_of([png(pixels(n, *SIZES[n % 2])) for n in range(6)])
        usual, _ = convert(build(micro_batch=1), rows)
        real = getattr(holder, name)
        hanging_HWC = pixels(3, *SIZES[1]) if stage == "decode" else decoded(usual[3])

        def slow(given: object, *arguments: object) -> object:
            made = real(given, *arguments)
            if np.array_equal(made if stage == "decode" else given, hanging_HWC):
                time.sleep(1.5)
            return made

        monkeypatch.setattr(holder, name, slow)
        worker = build(micro_batch=1, codec_threads=1, row_seconds=0.3)
        started = time.monotonic()
        made, converted = convert(worker, rows)
        assert {row: (error.stage, error.reason) for row, error in converted.errors.items()} == {3: (stage, "timeout")}
        assert made == [row for row in usual if row["key"] != "k3"]
        assert time.monotonic() - started < 1.4, "nobody waited for it"
        assert not worker.is_worn_out

    def test_a_worker_that_has_lost_many_threads_finishes_its_unit_and_says_that_it_is_worn_out(
        self, build: Callable[..., Stylizer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = threading.Event()
        real = OpenImage.decode

        def hang(image: OpenImage) -> np.ndarray:
            pixels_HWC = real(image)
            if pixels_HWC.any():
                gate.wait(30)
            return pixels_HWC

        monkeypatch.setattr(OpenImage, "decode", hang)
        worker = build(row_seconds=0.1)
        images = [png(pixels(n, 30, 30) if n % 2 else np.zeros((30, 30, 3), np.uint8)) for n in range(12)]
        made, converted = convert(worker, rows_of(images))
        assert len(made) == 6 and {error.reason for error in converted.errors.values()} == {"timeout"}
        assert worker.is_worn_out
        gate.set()
        for _ in range(500):
            if not worker.is_worn_out:
                break
            time.sleep(0.01)
        assert not worker.is_worn_out, "its threads came back"


class TestMemory:
    def test_the_generator_waits_for_the_encoder(
        self, build: Callable[..., Stylizer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stylizer, "PIXELS_PER_THREAD", 2 * 16 * 24)
        waiting, peaks, lock = 0, [], threading.Lock()
        real_encode = stylizer.encode_image
        worker = build("moments", micro_batch=1, codec_threads=1)
        real_generate = worker._generating

        def encode(*arguments: object) -> bytes:
            nonlocal waiting
            time.sleep(0.02)
            with lock:
                waiting -= 1
            return real_encode(*arguments)

        class Generating:
            planned = staticmethod(real_generate.planned)

            def __call__(self, batch: list) -> list:
                nonlocal waiting
                with lock:
                    waiting += len(batch)
                    peaks.append(waiting)
                return real_generate(batch)

        monkeypatch.setattr(stylizer, "encode_image", encode)
        worker._generating = Generating()
        made, _ = convert(worker, rows_of([png(pixels(n)) for n in range(12)]))
        assert len(made) == 12 and 2 <= max(peaks) <= 3, "two wait, and one is being made"

    def test_an_encoder_without_memory_costs_the_row(
        self, build: Callable[..., Stylizer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = png(pixels(0))

        def fail(array: np.ndarray) -> None:
            raise MemoryError

        monkeypatch.setattr(codec.Image, "fromarray", fail)
        _, converted = convert(build(), rows_of([source]))
        assert {(e.stage, e.reason) for e in converted.errors.values()} == {("encode", "oom")}

    def test_what_was_learned_goes_in_and_comes_out(self, build: Callable[..., Stylizer], packages: dict) -> None:
        key = f"cpu 0.0625 MP {packages['moments'][1].sha256[:12]}"
        rows = rows_of([png(pixels(n)) for n in range(7)])
        worker = build(learned={key: 2})
        assert worker.learned == {key: 2}
        assert convert(worker, rows)[0] == convert(build(), rows)[0], "this network takes rows one by one"

    def test_large_images_go_through_in_tiles(self, build_spying: Callable[..., Stylizer]) -> None:
        worker = build_spying(tile_px=64, tile_overlap_px=16, tile_above_megapixels=0.01)
        sources = [pixels(0, 150, 90), pixels(1), pixels(2)]
        made, _ = convert(worker, rows_of([png(source) for source in sources]))
        assert all(np.array_equal(decoded(row), 255 - source) for row, source in zip(made, sources, strict=True))
        shapes = [tuple(batch.shape) for batch in worker.batches]
        assert shapes[-1] == (2, 3, 16, 24) and set(shapes[:-1]) == {(1, 3, 64, 64)}

    def test_strength_zero_leaves_large_images_as_they_are(self, build: Callable[..., Stylizer]) -> None:
        source = pixels(0, 150, 90)
        (row,), _ = convert(build(strength=0.0, tile_above_megapixels=0.01), rows_of([png(source)]))
        assert np.array_equal(decoded(row), source)
