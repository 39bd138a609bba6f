"""Training crops out of encoded images: sizes, draws that repeat, and full batches whatever the images are."""

import io
import threading
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stylejobs.core.views import ViewOptions
from stylejobs.engine.datasets import CropSettings, TrainingBatch, iterate_batches, iterate_in_memory
from stylejobs.engine.image_order import (
    EncodedImage,
    ImageOrder,
    KeptOrder,
    Place,
    Rows,
    StreamedOrder,
    StreamedSet,
)
from stylejobs.errors import SourceError
from stylejobs.records.codec import Limits

both = pytest.mark.parametrize("keep", [True, False])


def png(value: int, height: int = 20, width: int = 24, mode: str = "RGB") -> bytes:
    """A picture of one grey value: its crops say which picture they are of."""
    sink = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).convert(mode).save(sink, "PNG")
    return sink.getvalue()


def noise(seed: int, height: int = 40, width: int = 50) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(sink, "PNG")
    return sink.getvalue()


class Shard:
    """A set of pictures: held in memory, or streamed in units of three, two of them a window."""

    def __init__(self, images: Sequence[bytes | None], domains: Sequence[int] | None = None):
        domains = domains or [0] * len(images)
        self.rows = [EncodedImage(f"key{n}", d, data) for n, (d, data) in enumerate(zip(domains, images, strict=True))]

    def order(self, place: Place, keep: bool, fewest: int) -> ImageOrder:
        if keep:
            return KeptOrder(self.rows, place, fewest)
        units = [self.rows[start : start + 3] for start in range(0, len(self.rows), 3)]
        domains = {d: [n for n, unit in enumerate(units) if any(row.domain == d for row in unit)] for d in self.domains}

        def open_units(numbers: Sequence[int], domain: int) -> Rows:
            return ((number, [row for row in units[number] if row.domain == domain]) for number in numbers)

        return StreamedOrder(StreamedSet([1] * len(units), domains, open_units, window_bytes=2), place, fewest)

    @property
    def domains(self) -> list[int]:
        return sorted({row.domain for row in self.rows})


def batches(
    content: Shard, num_batches: int, rank: int = 0, keep: bool = True, style: Shard | None = None, **changes: Any
) -> list[TrainingBatch]:
    crop = settings_of(**changes)
    sets = {"content": content} if style is None else {"content": content, "style": style}
    orders = {
        role: shard.order(Place(role, crop.seed, rank, rank + 1), keep, crop.batch if role == "content" else 1)
        for role, shard in sets.items()
    }
    return list(islice(iterate_batches(orders, crop), num_batches))


def settings_of(size_px: int = 16, **changes: Any) -> CropSettings:
    return CropSettings(**{"view": ViewOptions(size_px), "batch": 4, "seed": 0, "limits": Limits(), **changes})


def crops(shard: Shard, num_batches: int, **changes: Any) -> list[torch.Tensor]:
    return [batch.tensors["content"] for batch in batches(shard, num_batches, **changes)]


def values(batch_BCHW: torch.Tensor) -> list[int]:
    """Which picture each crop is of."""
    return [round((float(crop.mean()) + 1) * 127.5) for crop in batch_BCHW]


@both
@pytest.mark.parametrize("size", [(16, 16), (40, 17), (9, 300), (8, 8)])
def test_batches_are_float_in_range_and_of_the_size_asked_for(keep: bool, size: tuple[int, int]) -> None:
    for batch_BCHW in crops(Shard([noise(n, *size) for n in range(6)]), 4, keep=keep, size_px=13, batch=3):
        assert batch_BCHW.shape == (3, 3, 13, 13) and batch_BCHW.dtype == torch.float32
        assert batch_BCHW.min() >= -1 and batch_BCHW.max() <= 1
        levels = (batch_BCHW + 1) * 127.5
        assert (levels - levels.round()).abs().max() < 1e-3
        assert batch_BCHW.std() > 0.2


@both
def test_crops_are_parts_of_their_picture_or_of_its_mirror(keep: bool) -> None:
    y, x = np.mgrid[0:40, 0:50]
    pixels = np.stack([x * 5, y * 6, x * 0], 2).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    places = set()
    for batch_BCHW in crops(Shard([sink.getvalue()] * 4), 12, keep=keep):
        for crop_CHW in ((batch_BCHW + 1) * 127.5).round().int():
            red, green = crop_CHW[0], crop_CHW[1]
            is_mirrored = bool(red[0, 0] > red[0, -1])
            red = red.flip(1) if is_mirrored else red
            left, top = int(red[0, 0]) // 5, int(green[0, 0]) // 6
            assert torch.equal(red, torch.from_numpy(pixels[top : top + 16, left : left + 16, 0]).int())
            assert torch.equal(green, torch.from_numpy(pixels[top : top + 16, left : left + 16, 1]).int())
            places.add((left, top, is_mirrored))
    assert len(places) > 30 and {mirrored for *_, mirrored in places} == {True, False}


@both
@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
def test_pictures_of_every_mode_become_rgb(keep: bool, mode: str) -> None:
    for batch_BCHW in crops(Shard([png(255, mode=mode)] * 4), 2, keep=keep):
        assert batch_BCHW.shape == (4, 3, 16, 16) and values(batch_BCHW) == [255] * 4


@both
def test_the_same_seed_and_rank_give_the_same_batches(keep: bool) -> None:
    images = [noise(n) for n in range(12)]
    first = crops(Shard(images), 7, keep=keep)
    assert all(map(torch.equal, first, crops(Shard(images), 7, keep=keep)))
    assert all(map(torch.equal, first, crops(Shard(images), 7, keep=keep, decode_threads=4)))
    assert all(map(torch.equal, first, crops(Shard(images), 7, keep=keep, prefetch=5)))
    for other in ({"rank": 1}, {"seed": 1}):
        assert not any(map(torch.equal, first, crops(Shard(images), 7, keep=keep, **other)))


@both
def test_no_global_state_is_drawn_from(keep: bool) -> None:
    images = [noise(n) for n in range(5)]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = crops(Shard(images), 3, keep=keep)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert all(map(torch.equal, first, crops(Shard(images), 3, keep=keep)))


@both
def test_bad_pictures_give_their_place_to_the_next_ones(keep: bool) -> None:
    images = [png(50), b"no picture", png(100), None, png(150)[:40], png(200), png(250), png(0)]
    seen = set()
    for batch in batches(Shard(images), 30, keep=keep):
        found = values(batch.tensors["content"])
        assert [
            {"key0": 50, "key2": 100, "key5": 200, "key6": 250, "key7": 0}[key] for key in batch.keys["content"]
        ] == found
        seen |= set(found)
    assert seen == {0, 50, 100, 200, 250}


@both
def test_a_set_without_a_picture_is_an_error_of_the_source(keep: bool) -> None:
    with pytest.raises(SourceError, match=r"content=: \d+ images in a row cannot be decoded.*`ingest` makes shards"):
        crops(Shard([b"no picture"] * 9), 1, keep=keep)


@both
def test_too_few_images_are_refused(keep: bool) -> None:
    with pytest.raises(SourceError, match="fewer images than one batch of 4"):
        crops(Shard([png(1)] * 3), 1, keep=keep)


@both
def test_the_limits_of_the_config_hold(keep: bool) -> None:
    images = [png(50), png(100, 12, 80)] * 4
    made = crops(Shard(images), 6, keep=keep, limits=Limits(max_aspect=2))
    assert {value for one in made for value in values(one)} == {50}


@both
def test_every_crop_of_a_picture_is_drawn_anew(keep: bool) -> None:
    made = torch.cat(crops(Shard([noise(0, 64, 64)] * 4), 5, keep=keep))
    assert len({crop.numpy().tobytes() for crop in made}) == len(made)


@both
def test_leaving_early_stops_the_threads(keep: bool) -> None:
    shard = Shard([png(1)] * 4)
    running = iterate_batches({"content": shard.order(Place("content", 0), True, 4)}, settings_of(size_px=8))
    next(running)
    assert any(thread.name.startswith("crops") for thread in threading.enumerate())
    running.close()
    assert not any(thread.name.startswith(("crops", "decode")) for thread in threading.enumerate())


@pytest.mark.parametrize("seed", [2**48, 2**63 - 1])
def test_every_seed_of_the_config_works(seed: int) -> None:
    assert len(crops(Shard([png(1)] * 4), 1, seed=seed)) == 1


class TestStyle:
    @both
    def test_a_style_batch_carries_its_domains_and_keys(self, keep: bool) -> None:
        style = Shard([png(20), png(30), png(130)], [1, 1, 2])
        for batch in batches(Shard([png(9)] * 6), 9, keep=keep, style=style):
            assert batch.tensors["style"].shape == (4, 3, 16, 16)
            assert batch.tensors["style_domain"].dtype == torch.int64
            found = values(batch.tensors["style"])
            assert [1 if value < 100 else 2 for value in found] == batch.tensors["style_domain"].tolist()
            assert [{"key0": 20, "key1": 30, "key2": 130}[key] for key in batch.keys["style"]] == found
            assert all(key.startswith("key") for key in batch.keys["content"])

    def test_a_method_that_reads_no_style_set_gets_none(self) -> None:
        (batch,) = batches(Shard([png(9)] * 6), 1)
        assert batch.tensors.keys() == {"content", "content_domain"} and batch.keys.keys() == {"content"}

    @both
    def test_one_image_fills_a_batch_with_different_crops(self, keep: bool) -> None:
        (batch,) = batches(Shard([png(9)] * 6), 1, keep=keep, style=Shard([noise(0, 64, 64)], [1]))
        assert len({crop.numpy().tobytes() for crop in batch.tensors["style"]}) == 4

    def test_the_content_does_not_depend_on_the_style(self) -> None:
        images = [noise(n) for n in range(9)]
        alone = crops(Shard(images), 5)
        beside = batches(Shard(images), 5, style=Shard([noise(1)] * 2, [1, 1]))
        assert all(torch.equal(a, b.tensors["content"]) for a, b in zip(alone, beside, strict=True))

    def test_draws_of_the_style_are_those_of_seed_and_rank(self) -> None:
        def style(**changes: object) -> list[torch.Tensor]:
            shard = Shard([noise(n, 64, 64) for n in range(5)], [1] * 5)
            return [one.tensors["style"] for one in batches(Shard([png(9)] * 4), 4, style=shard, **changes)]

        first = style()
        assert all(map(torch.equal, first, style()))
        assert not any(map(torch.equal, first, style(rank=1))) and not any(map(torch.equal, first, style(seed=3)))

    def test_two_workers_make_the_batches_of_one_with_twice_as_many(self) -> None:
        sets = {
            "content": Shard([noise(n) for n in range(9)]).rows,
            "style": Shard([noise(n) for n in range(5)], [1, 2, 2, 1, 2]).rows,
        }
        together = [iterate_in_memory(sets, settings_of(batch=2), rank, 2) for rank in range(2)]
        for alone in islice(iterate_in_memory(sets, settings_of()), 5):
            halves = [next(one) for one in together]
            for name, tensor in alone.tensors.items():
                for rank, half in enumerate(halves):
                    assert torch.equal(tensor[rank::2], half.tensors[name])
            assert alone.keys["style"][1::2] == halves[1].keys["style"]

    def test_batches_go_on_behind_the_one_whose_cursors_are_given(self) -> None:
        sets = {"content": Shard([noise(n) if n != 3 else b"bad" for n in range(9)]).rows}
        whole = list(islice(iterate_in_memory(sets, settings_of(prefetch=3)), 8))
        rest = iterate_in_memory(sets, settings_of(prefetch=1), cursors=whole[3].cursors)
        for wanted, found in zip(whole[4:], rest, strict=False):
            assert torch.equal(wanted.tensors["content"], found.tensors["content"]) and wanted.keys == found.keys
