"""Encoded images -> batches of training crops, next to the training step. What a set is: see training_sets.py.

Everything is drawn from generators of (seed, rank, set), so that a worker's batches can be had again.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from stylejobs.core.augment import random_crop_flip
from stylejobs.core.pixels import to_float
from stylejobs.errors import DecodeError, SourceError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.lineage import draw_seed

_SHUFFLE_ROWS = 1024
_SHELF_IMAGES = 256
_MOST_BAD_IN_A_ROW = 256
_TOO_FEW = "{name}=: a worker has fewer images than {fewest}; lower batch or workers, or give more images"


@dataclass(frozen=True)
class EncodedImage:
    """One picture of a set; `domain` is 0 for content, and the number of its style domain otherwise.

    Attributes:
        data: the whole file; None where it could not be read.
    """

    key: str
    domain: int
    data: bytes | None


@dataclass(frozen=True)
class TrainingBatch:
    """What one step of one worker is trained on.

    Attributes:
        tensors: "content" float32 [B, 3, size, size] in [-1, 1]; where a style set is read "style", likewise, and
            "style_domain" int64 [B].
        keys: set -> the key of each row's image.
    """

    tensors: dict[str, Tensor]
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class CropSettings:
    """How encoded images become batches of training crops.

    Attributes:
        size_px: side of the crops.
        batch: crops of each set in one worker's batch.
        keep: sets that are small: a worker reads its share once and passes over it in memory.
        domains: number of style domains.
        decode_threads: images decoded at the same time.
        load_px: short side that images are scaled to before the crop; None leaves those that are large enough.
    """

    size_px: int
    batch: int
    seed: int
    limits: Limits
    keep: tuple[str, ...] = ("content", "style")
    domains: int = 1
    decode_threads: int = 1
    load_px: int | None = None

    @property
    def whole_px(self) -> int:
        """Short side at which whole pictures are shown to what was trained on these crops."""
        return self.load_px or self.size_px


_Stream = Callable[[torch.Generator], Iterator[EncodedImage]]


def iterate_batches(shards: Mapping, settings: CropSettings, rank: int) -> Iterator[TrainingBatch]:
    """One worker's batches without end; each set is passed over at its own pace.

    The next batch is read, decoded and cropped while the present one is trained on.

    Args:
        shards: "content" and, where a style set is read, "style" -> this worker's `ray.data.DataIterator` over rows of
            `TRAINING_FIELDS`.
        rank: makes the draws of this worker its own.

    Raises:
        SourceError: the content has less than one batch, a set has no image, or none that can be decoded.
    """
    return _iterate({name: _stream_of(name, shard, settings) for name, shard in shards.items()}, settings, rank)


def iterate_in_memory(
    sets: Mapping[str, Sequence[EncodedImage]], settings: CropSettings, rank: int = 0
) -> Iterator[TrainingBatch]:
    """The same over lists of encoded images: for benchmarks and tests, which need no Ray."""
    return _iterate(
        {
            name: lambda rng, name=name, images=images: _kept(name, images, settings, rng)
            for name, images in sets.items()
        },
        settings,
        rank,
    )


def _stream_of(name: str, shard, settings: CropSettings) -> _Stream:
    if name in settings.keep:
        return lambda rng: _kept(name, list(_rows(shard, batch_size=None)), settings, rng)
    if name == "style" and settings.domains > 1:
        return lambda rng: _shelved(_passes(name, shard, settings), settings.domains, rng)
    return lambda rng: itertools.chain.from_iterable(_passes(name, shard, settings))


def _iterate(streams: Mapping[str, _Stream], settings: CropSettings, rank: int) -> Iterator[TrainingBatch]:
    rngs = {name: torch.Generator().manual_seed(_seed(name, settings.seed, rank)) for name in streams}
    running: dict[str, Iterator[EncodedImage]] = {}
    with (
        ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode") as decoders,
        ThreadPoolExecutor(1, thread_name_prefix="crops") as ahead,
    ):

        def make() -> TrainingBatch:
            tensors: dict[str, Tensor] = {}
            keys: dict[str, tuple[str, ...]] = {}
            # Every worker reads its sets in the same order: a shared reader may wait for the slowest of them.
            for name in streams:
                if name not in running:
                    running[name] = streams[name](rngs[name])
                images, tensors[name] = _take(name, running[name], rngs[name], settings, decoders)
                keys[name] = tuple(image.key for image in images)
                if name == "style":
                    tensors["style_domain"] = torch.tensor([image.domain for image in images], dtype=torch.int64)
            return TrainingBatch(tensors, keys)

        waiting = ahead.submit(make)
        while True:
            batch = waiting.result()
            waiting = ahead.submit(make)
            yield batch


def _seed(name: str, seed: int, rank: int) -> int:
    return draw_seed(seed, f"{'' if name == 'content' else f'{name} of '}rank {rank}", 0)


def _take(
    name: str,
    stream: Iterator[EncodedImage],
    rng: torch.Generator,
    settings: CropSettings,
    decoders: ThreadPoolExecutor,
) -> tuple[list[EncodedImage], Tensor]:
    """A batch of images and their crops. Every rank needs full batches: a bad image gives its place to the next one."""
    images: list[EncodedImage] = []
    crops: list[Tensor] = []
    bad = 0
    while len(crops) < settings.batch:
        drawn = list(itertools.islice(stream, settings.batch - len(crops)))
        for image, pixels_HWC in zip(
            drawn, decoders.map(lambda image: _decode(image, settings.limits), drawn), strict=True
        ):
            if pixels_HWC is None:
                bad += 1
                continue
            bad = 0
            images.append(image)
            view_HWC = random_crop_flip(torch.from_numpy(pixels_HWC), settings.size_px, rng, settings.load_px)
            crops.append(view_HWC)
        if bad >= _MOST_BAD_IN_A_ROW:
            raise SourceError(
                f"{name}=: {bad} images in a row cannot be decoded, the last is {drawn[-1].key}; `ingest` makes shards "
                "without such images and says what is wrong with them"
            )
    return images, to_float(torch.stack(crops))


def _decode(image: EncodedImage, limits: Limits) -> np.ndarray | None:
    try:
        return decode_image(image.data or b"", limits)
    except DecodeError:
        return None


def _kept(
    name: str, images: Sequence[EncodedImage], settings: CropSettings, rng: torch.Generator
) -> Iterator[EncodedImage]:
    """Pass after pass in new orders. Domains take turns, each at its own pace, so a small one comes round sooner."""
    _check_enough(name, len(images), settings)
    by_domain: dict[int, list[EncodedImage]] = {}
    for image in images:
        by_domain.setdefault(image.domain, []).append(image)
    decks = [_shuffled(by_domain[domain], rng) for domain in sorted(by_domain)]
    while True:
        for index in torch.randperm(len(decks), generator=rng).tolist():
            yield next(decks[index])


def _shuffled(images: Sequence[EncodedImage], rng: torch.Generator) -> Iterator[EncodedImage]:
    while True:
        for index in torch.randperm(len(images), generator=rng).tolist():
            yield images[index]


def _check_enough(name: str, num_images: int, settings: CropSettings) -> None:
    # A style set may be smaller than a batch: its images then come several times, in different crops.
    fewest = settings.batch if name == "content" else 1
    if num_images < fewest:
        wanted = f"one batch of {fewest}" if name == "content" else "one"
        raise SourceError(_TOO_FEW.format(name=name, fewest=wanted))


def _passes(name: str, shard, settings: CropSettings) -> Iterator[Iterator[EncodedImage]]:
    """The rows of one pass after another, each shuffled within reach of a buffer."""

    def one_pass(number: int) -> Iterator[EncodedImage]:
        seen = 0
        for image in _rows(
            shard,
            batch_size=settings.batch,
            prefetch_batches=2,
            local_shuffle_buffer_size=max(_SHUFFLE_ROWS, 4 * settings.batch),
            local_shuffle_seed=settings.seed + number,
        ):
            seen += 1
            yield image
        _check_enough(name, seen, settings)

    return map(one_pass, itertools.count())


def _rows(shard, **options) -> Iterator[EncodedImage]:
    for batch in shard.iter_batches(batch_format="numpy", **options):
        for key, domain, data in zip(batch["key"], batch["domain"], batch["image"], strict=True):
            yield EncodedImage(str(key), int(domain), data)


def _shelved(
    passes: Iterator[Iterator[EncodedImage]], num_domains: int, rng: torch.Generator
) -> Iterator[EncodedImage]:
    """Domains in turn out of a stream in which they may come one after the other, as in shards sorted by label.

    Each domain has a shelf of the images seen last; whatever the stream brings replaces one of them, by chance.
    """
    shelves: dict[int, list[EncodedImage]] = {}

    def put(image: EncodedImage) -> None:
        shelf = shelves.setdefault(image.domain, [])
        if len(shelf) < _SHELF_IMAGES:
            shelf.append(image)
        else:
            shelf[_draw(_SHELF_IMAGES, rng)] = image

    first = next(passes)
    for image in first:
        put(image)
        if len(shelves) == num_domains:
            break
    rest = itertools.chain(first, itertools.chain.from_iterable(passes))
    while True:
        domains = sorted(shelves)
        for index in torch.randperm(len(domains), generator=rng).tolist():
            put(next(rest))
            shelf = shelves[domains[index]]
            yield shelf[_draw(len(shelf), rng)]


def _draw(below: int, rng: torch.Generator) -> int:
    return int(torch.randint(below, (1,), generator=rng))
