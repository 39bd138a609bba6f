"""Training crops out of encoded images: sizes, draws that repeat, and full batches whatever the images are."""

import io
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylejobs.engine.datasets import CropSettings, EncodedImage, TrainingBatch, iterate_batches, iterate_in_memory
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
    """What Ray gives a worker: batches of rows; it counts its passes and remembers what it was asked."""

    def __init__(self, images: Sequence[bytes | None], domains: Sequence[int] | None = None):
        domains = domains or [0] * len(images)
        self.rows = [(f"key{n}", domain, data) for n, (domain, data) in enumerate(zip(domains, images, strict=True))]
        self.passes, self.asked = 0, []

    def iter_batches(
        self,
        *,
        batch_size: int | None,
        batch_format: str,
        prefetch_batches: int = 1,
        local_shuffle_buffer_size: int | None = None,
        local_shuffle_seed: int | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        assert batch_format == "numpy"
        self.passes += 1
        self.asked.append(local_shuffle_seed)
        rows = list(self.rows)
        if local_shuffle_buffer_size:
            # As far as the buffer reaches, which in these tests is less than a domain.
            rng = np.random.default_rng(local_shuffle_seed)
            rows = [rows[n] for start in range(0, len(rows), 8) for n in start + rng.permutation(len(rows[start:][:8]))]
        size = batch_size or 3
        for start in range(0, len(rows), size):
            keys, domains, images = zip(*rows[start : start + size], strict=True)
            data = np.empty(len(images), object)
            data[:] = images
            yield {"key": np.array(keys, object), "domain": np.array(domains), "image": data}


def batches(
    content: Shard, num_batches: int, rank: int = 0, keep: bool = True, style: Shard | None = None, **changes: object
) -> list[TrainingBatch]:
    given = {"size_px": 16, "batch": 4, "seed": 0, "limits": Limits(), "keep": ("content", "style") if keep else ()}
    shards = {"content": content} if style is None else {"content": content, "style": style}
    return list(islice(iterate_batches(shards, CropSettings(**(given | changes)), rank), num_batches))


def crops(shard: Shard, num_batches: int, **changes: object) -> list[torch.Tensor]:
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
    images = [noise(n) for n in range(9)]
    first = crops(Shard(images), 7, keep=keep)
    assert all(map(torch.equal, first, crops(Shard(images), 7, keep=keep)))
    assert all(map(torch.equal, first, crops(Shard(images), 7, keep=keep, decode_threads=4)))
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
    seen = [value for one in crops(shard, num_images * 2, batch=batch, keep=keep) for value in values(one)]
    for start in range(0, len(seen), num_images):
        assert sorted(seen[start : start + num_images]) == [10 * n for n in range(num_images)]


def test_a_kept_set_is_read_once_and_shuffled_in_every_pass() -> None:
    shard = Shard([png(10 * n) for n in range(8)])
    passes = [tuple(values(torch.cat(pair))) for pair in zip(*[iter(crops(shard, 20))] * 2, strict=True)]
    assert shard.passes == 1
    assert len(set(passes)) == len(passes)


def test_a_streamed_set_is_read_in_every_pass_and_shuffled_anew() -> None:
    shard = Shard([png(10 * n) for n in range(8)])
    made = crops(shard, 6, keep=False, seed=5)
    assert shard.passes >= 3 and shard.asked[:3] == [5, 6, 7]
    assert len({tuple(values(one)) for one in made}) > 3


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
    for num_images in (0, 3):
        with pytest.raises(SourceError, match="fewer images than one batch of 4"):
            crops(Shard([png(1)] * num_images), 1, keep=keep)
    with pytest.raises(SourceError, match="style=: a worker has fewer images than one"):
        batches(Shard([png(1)] * 4), 1, keep=keep, style=Shard([]))


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
    running = iterate_batches({"content": Shard([png(1)] * 4)}, CropSettings(8, 4, 0, Limits(), ("content",)), rank=0)
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
        for batch in batches(Shard([png(9)] * 6), 9, keep=keep, style=style, domains=2):
            assert batch.tensors["style"].shape == (4, 3, 16, 16)
            assert batch.tensors["style_domain"].dtype == torch.int64
            found = values(batch.tensors["style"])
            assert [1 if value < 100 else 2 for value in found] == batch.tensors["style_domain"].tolist()
            assert [{"key0": 20, "key1": 30, "key2": 130}[key] for key in batch.keys["style"]] == found
            assert all(key.startswith("key") for key in batch.keys["content"])

    def test_a_method_that_reads_no_style_set_gets_none(self) -> None:
        (batch,) = batches(Shard([png(9)] * 6), 1)
        assert batch.tensors.keys() == {"content"} and batch.keys.keys() == {"content"}

    @both
    def test_one_image_fills_a_batch_with_different_crops(self, keep: bool) -> None:
        (batch,) = batches(Shard([png(9)] * 6), 1, keep=keep, style=Shard([noise(0, 64, 64)], [1]))
        assert len({crop.numpy().tobytes() for crop in batch.tensors["style"]}) == 4

    @both
    def test_domains_of_very_different_size_come_equally_often(self, keep: bool) -> None:
        """Sorted by domain, as shards that were made from folders are."""
        domains = [1] * 60 + [2] * 3 + [3]
        style = Shard([png(n) for n in range(64)], domains)
        seen = Counter()
        per_image: Counter[str] = Counter()
        for batch in batches(Shard([png(9)] * 6), 60, keep=keep, style=style, domains=3):
            seen.update(batch.tensors["style_domain"].tolist())
            per_image.update(batch.keys["style"])
        assert {domain: count for domain, count in seen.items()} == {1: 80, 2: 80, 3: 80}
        large = sum(1 for n in range(60) if per_image[f"key{n}"])
        assert large == 60 if keep else large > 35

    def test_a_kept_domain_passes_over_itself_at_its_own_pace(self) -> None:
        style = Shard([png(n) for n in range(12)], [1] * 9 + [2] * 3)
        keys = [key for batch in batches(Shard([png(9)] * 4), 9, style=style, domains=2) for key in batch.keys["style"]]
        large = [key for key in keys if int(key[3:]) < 9]
        small = [key for key in keys if int(key[3:]) >= 9]
        assert [Counter(large[start : start + 9]).most_common(1)[0][1] for start in (0, 9)] == [1, 1]
        assert all(len(set(small[start : start + 3])) == 3 for start in range(0, 18, 3))

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

    def test_lists_in_memory_give_what_kept_shards_give(self) -> None:
        content = Shard([noise(n) for n in range(9)])
        style = Shard([noise(n) for n in range(5)], [1, 2, 2, 1, 2])
        sets = {
            "content": [EncodedImage(*row) for row in content.rows],
            "style": [EncodedImage(*row) for row in style.rows],
        }
        crop = CropSettings(16, 4, 3, Limits(), domains=2)
        made = iterate_in_memory(sets, crop, rank=1)
        for ours, theirs in zip(made, batches(content, 5, rank=1, seed=3, style=style, domains=2), strict=False):
            assert ours.keys == theirs.keys
            assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in theirs.tensors)

    def test_a_domain_that_a_workers_share_lacks_does_not_stop_it(self) -> None:
        made = batches(Shard([png(9)] * 6), 3, keep=False, style=Shard([png(5)] * 3, [2] * 3), domains=4)
        assert {domain for batch in made for domain in batch.tensors["style_domain"].tolist()} == {2}
