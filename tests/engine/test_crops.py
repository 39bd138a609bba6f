"""Training crops out of encoded images: sizes, draws that repeat, and full batches whatever the images are."""

import io
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylejobs.engine.datasets import CropSettings, iterate_crops
from stylejobs.errors import SourceError
from stylejobs.records.batches import only_image_bytes
from stylejobs.records.codec import Limits

both = pytest.mark.parametrize("keep", [True, False])


def png(value: int, height: int = 20, width: int = 24) -> bytes:
    """A picture of one grey value: its crops say which picture they are of."""
    sink = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def noise(seed: int, height: int = 40, width: int = 50) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(sink, "PNG")
    return sink.getvalue()


class Shard:
    """What Ray gives a worker: batches of encoded images; it counts its passes and remembers what it was asked."""

    def __init__(self, images: list[bytes | None]):
        self.images, self.passes, self.asked = images, 0, []

    def iter_batches(
        self,
        *,
        batch_size: int | None,
        batch_format: str,
        drop_last: bool = False,
        prefetch_batches: int = 1,
        local_shuffle_buffer_size: int | None = None,
        local_shuffle_seed: int | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        assert batch_format == "numpy"
        self.passes += 1
        self.asked.append(local_shuffle_seed)
        images = list(self.images)
        if local_shuffle_buffer_size:
            np.random.default_rng(local_shuffle_seed).shuffle(images)
        size = batch_size or 3
        for start in range(0, len(images), size):
            batch = np.empty(len(images[start : start + size]), object)
            batch[:] = images[start : start + size]
            if len(batch) == size or not drop_last:
                yield {"image": batch}


def crops(shard: Shard, num_batches: int, rank: int = 0, **changes: object) -> list[torch.Tensor]:
    given = {"size_px": 16, "batch": 4, "seed": 0, "limits": Limits(), "keep": True} | changes
    return [batch["content"] for batch in islice(iterate_crops(shard, CropSettings(**given), rank), num_batches)]


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
def test_the_same_seed_and_rank_give_the_same_batches(keep: bool) -> None:
    images = [noise(n) for n in range(9)]
    first = crops(Shard(images), 7, keep=keep)
    assert all(map(torch.equal, first, crops(Shard(images), 7, keep=keep)))
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


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 11), st.integers(1, 4), st.booleans())
def test_in_a_pass_no_picture_comes_twice_and_passes_go_on(num_images: int, batch: int, keep: bool) -> None:
    shard = Shard([png(10 * n) for n in range(num_images)])
    if num_images < batch:
        with pytest.raises(SourceError, match=f"fewer images than one batch of {batch}; lower batch or workers"):
            crops(shard, 1, batch=batch, keep=keep)
        return
    per_pass = num_images // batch
    made = [values(one) for one in crops(shard, 3 * per_pass, batch=batch, keep=keep)]
    for start in range(0, 3 * per_pass, per_pass):
        seen = [value for one in made[start : start + per_pass] for value in one]
        assert len(set(seen)) == len(seen) == per_pass * batch
        assert set(seen) <= {10 * n for n in range(num_images)}


def test_a_kept_set_is_read_once_and_shuffled_in_every_pass() -> None:
    shard = Shard([png(10 * n) for n in range(8)])
    passes = [tuple(values(torch.cat(pair))) for pair in zip(*[iter(crops(shard, 20))] * 2, strict=True)]
    assert shard.passes == 1
    assert all(sorted(one) == [10 * n for n in range(8)] for one in passes)
    assert len(set(passes)) == len(passes)


def test_a_streamed_set_is_read_in_every_pass_and_shuffled_anew() -> None:
    shard = Shard([png(10 * n) for n in range(8)])
    made = crops(shard, 6, keep=False, seed=5)
    assert shard.passes >= 3 and shard.asked[:3] == [5, 6, 7]
    assert len({tuple(values(one)) for one in made}) > 3


@both
def test_bad_pictures_give_their_place_to_other_crops_of_the_batch(keep: bool) -> None:
    images = [png(50), b"no picture", png(100), None, png(150)[:40], png(200), png(250), png(0)]
    seen = set()
    for batch_BCHW in crops(Shard(images), 30, keep=keep):
        assert batch_BCHW.shape == (4, 3, 16, 16)
        seen |= set(values(batch_BCHW))
    assert seen == {0, 50, 100, 200, 250}


@both
def test_bad_pictures_are_replaced_from_the_first_on(keep: bool) -> None:
    (batch_BCHW,) = crops(Shard([b"no picture"] * 3 + [png(70)]), 1, keep=keep)
    assert values(batch_BCHW) == [70] * 4


@both
def test_a_batch_without_a_picture_is_an_error_of_the_source(keep: bool) -> None:
    with pytest.raises(SourceError, match="no image of a batch can be decoded; `ingest` makes shards without such"):
        crops(Shard([b"no picture"] * 9), 1, keep=keep)


@both
def test_too_few_images_are_refused(keep: bool) -> None:
    for num_images in (0, 3):
        with pytest.raises(SourceError, match="fewer images than one batch of 4"):
            crops(Shard([png(1)] * num_images), 1, keep=keep)


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
    import threading

    batches = iterate_crops(Shard([png(1)] * 4), CropSettings(8, 4, 0, Limits(), keep), rank=0)
    next(batches)
    assert any(thread.name.startswith("crops") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("crops") for thread in threading.enumerate())


@pytest.mark.parametrize("seed", [2**48, 2**63 - 1])
def test_every_seed_of_the_config_works(seed: int) -> None:
    assert len(crops(Shard([png(1)] * 4), 1, seed=seed)) == 1


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_images_come_out_of_every_kind_of_column(kind: pa.DataType) -> None:
    images = [b"one", None, b"", b"three" * 100]
    plain = pa.table({"photo": pa.array(images, kind)})
    assert only_image_bytes(plain, "photo") == pa.table({"image": pa.array(images, pa.large_binary())})
    struct = pa.StructArray.from_arrays([pa.array(["a"] * 4), pa.array(images, kind)], ["path", "bytes"])
    table = pa.concat_tables([pa.table({"photo": struct.slice(0, 1)}), pa.table({"photo": struct.slice(1)})])
    assert only_image_bytes(table, "photo")["image"].to_pylist() == images
    assert only_image_bytes(table.slice(2), "photo")["image"].to_pylist() == images[2:]
