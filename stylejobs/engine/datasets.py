"""Training data: image shards read by Ray Data, decoded and cropped next to the training step."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from stylejobs.core.augment import random_crop_flip
from stylejobs.core.pixels import to_float
from stylejobs.errors import DecodeError, SourceError
from stylejobs.records.batches import only_image_bytes
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.lineage import draw_seed
from stylejobs.storage import locations
from stylejobs.storage.sources import Source, plan_source

_KEPT_IN_MEMORY_BYTES = 512 * 2**20
"""Encoded sets up to this size are read once; their later passes cost no reading."""
_SHUFFLE_ROWS = 1024
_UNIT_BYTES = 64 * 2**20


def plan_content(uri: str, image_column: str | None) -> Source:
    """Plans a training set, which must be Parquet with a column of images.

    Raises:
        SourceError: it is something else; `ingest` makes shards of anything.
    """
    source = plan_source(uri, _UNIT_BYTES, image_column)
    if source.kind != "parquet":
        raise SourceError(
            f"content={uri}: wanted image shards (Parquet), found {source.kind}; make them with "
            f"`python -m pipelines.ingest source={uri} dest=SHARDS`"
        )
    return source


def read_training_images(source: Source):
    """The encoded images of a training set as a Ray dataset with one column, `image`."""
    import ray.data

    # The newer reader of Ray 2.60 starts more processes than reading a set once is worth.
    ray.data.DataContext.get_current().use_datasource_v2 = False
    column = source.units[0].image_column
    places = sorted({unit.source_uri for unit in source.units})
    filesystem, _ = locations.split(places[0])
    options = {} if locations.is_local(filesystem) else {"filesystem": filesystem}
    dataset = ray.data.read_parquet(places, **options).select_columns([column])
    return dataset.map_batches(only_image_bytes, fn_args=(column,), batch_format="pyarrow", zero_copy_batch=True)


@dataclass(frozen=True)
class CropSettings:
    """How encoded images become batches of training crops.

    Attributes:
        batch: crops of one worker's batch.
        keep: the set is small: a worker reads its share once and passes over it in memory.
    """

    size_px: int
    batch: int
    seed: int
    limits: Limits
    keep: bool


def fits_in_memory(source: Source) -> bool:
    """Whether a worker can hold the encoded set."""
    return source.summary()["bytes"] <= _KEPT_IN_MEMORY_BYTES


def iterate_crops(shard, settings: CropSettings, rank: int) -> Iterator[dict[str, Tensor]]:
    """Batches {"content": float32 [B, 3, size, size] in [-1, 1]} without end, pass after pass.

    The next batch is decoded and cropped while the present one is trained on.

    Args:
        shard: this worker's `ray.data.DataIterator`.
        rank: makes the draws of this worker its own.

    Raises:
        SourceError: the shard has less than one batch, or a batch in which no image can be decoded.
    """
    rng = torch.Generator().manual_seed(draw_seed(settings.seed, f"rank {rank}", 0))
    encoded = _kept_batches(shard, settings, rng) if settings.keep else _streamed_batches(shard, settings)
    with ThreadPoolExecutor(1, thread_name_prefix="crops") as pool:
        waiting = pool.submit(_crops, next(encoded), settings, rng)
        while True:
            batch_BHWC = waiting.result()
            waiting = pool.submit(_crops, next(encoded), settings, rng)
            yield {"content": to_float(batch_BHWC)}


def _kept_batches(shard, settings: CropSettings, rng: torch.Generator) -> Iterator[list[bytes]]:
    images = [image for batch in shard.iter_batches(batch_format="numpy", batch_size=None) for image in batch["image"]]
    if len(images) < settings.batch:
        raise SourceError(_TOO_FEW.format(batch=settings.batch))
    while True:
        order = torch.randperm(len(images), generator=rng).tolist()
        for start in range(0, len(images) - settings.batch + 1, settings.batch):
            yield [images[index] for index in order[start : start + settings.batch]]


def _streamed_batches(shard, settings: CropSettings) -> Iterator[list[bytes]]:
    passes = 0
    while True:
        batches = shard.iter_batches(
            batch_size=settings.batch,
            batch_format="numpy",
            drop_last=True,
            prefetch_batches=2,
            local_shuffle_buffer_size=max(_SHUFFLE_ROWS, 4 * settings.batch),
            local_shuffle_seed=settings.seed + passes,
        )
        empty = True
        for batch in batches:
            empty = False
            yield list(batch["image"])
        if empty:
            raise SourceError(_TOO_FEW.format(batch=settings.batch))
        passes += 1


_TOO_FEW = "content=: a worker has fewer images than one batch of {batch}; lower batch or workers"


def _crops(images: list[bytes], settings: CropSettings, rng: torch.Generator) -> Tensor:
    crops = [crop for crop in (_crop(image, settings, rng) for image in images) if crop is not None]
    if not crops:
        raise SourceError("content=: no image of a batch can be decoded; `ingest` makes shards without such images")
    # Every rank needs a full batch at every step: a bad image gives its place to another crop of its neighbours.
    crops += [crops[index % len(crops)] for index in range(len(images) - len(crops))]
    return torch.stack(crops)


def _crop(image: bytes | None, settings: CropSettings, rng: torch.Generator) -> Tensor | None:
    try:
        pixels_HWC = decode_image(image or b"", settings.limits)
    except DecodeError:
        return None
    return random_crop_flip(torch.from_numpy(pixels_HWC), settings.size_px, rng)
