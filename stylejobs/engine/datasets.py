"""Training data: image shards read by Ray Data, decoded and cropped next to the training step."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from stylejobs.core.augment import random_crop_flip
from stylejobs.core.pixels import to_float
from stylejobs.errors import DecodeError, SourceError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.storage import locations
from stylejobs.storage.sources import Source, plan_source

_KEPT_IN_MEMORY_BYTES = 512 * 2**20
"""Encoded sets up to this size are read once and kept in the object store."""
_MAX_PASSES_JOINED = 64
_SHUFFLE_ROWS = 256
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


def read_training_images(source: Source, num_images: int, num_workers: int):  # noqa: ANN201 (a ray.data.Dataset; ray is loaded late)
    """The encoded images as a Ray dataset with one column, `image`.

    A small set is read once, and joined to itself often enough for `num_images`, so that the pipeline is not started
    anew for every pass over it.
    """
    import ray.data

    column = source.units[0].image_column
    places = sorted({unit.source_uri for unit in source.units})
    filesystem, _ = locations.split(places[0])
    options = {} if locations.is_local(filesystem) else {"filesystem": filesystem}
    dataset = ray.data.read_parquet(places, **options).select_columns([column])
    dataset = dataset.map_batches(_only_bytes, fn_args=(column,), batch_format="pyarrow", zero_copy_batch=True)
    if source.summary()["bytes"] > _KEPT_IN_MEMORY_BYTES:
        return dataset
    dataset = dataset.repartition(4 * num_workers).materialize()
    passes = min(_MAX_PASSES_JOINED, -(-num_images // max(1, source.num_rows)))
    return dataset.union(*[dataset] * (passes - 1)) if passes > 1 else dataset


def _only_bytes(table: pa.Table, column: str) -> pa.Table:
    image = table[column].combine_chunks()
    if pa.types.is_struct(image.type):
        image = image.field("bytes")
    return pa.table({"image": image.cast(pa.large_binary())})


@dataclass(frozen=True)
class CropSettings:
    """How an encoded image becomes a training crop."""

    size_px: int
    batch: int
    seed: int
    limits: Limits


def iterate_crops(shard, settings: CropSettings, rank: int) -> Iterator[dict[str, Tensor]]:  # noqa: ANN001
    """Batches {"content": float32 [B, 3, size, size] in [-1, 1]} without end, pass after pass.

    Args:
        shard: this worker's `ray.data.DataIterator`.
        rank: makes the draws of this worker its own.

    Raises:
        SourceError: a batch in which no image can be decoded.
    """
    rng = torch.Generator().manual_seed((settings.seed << 16) + rank)

    def collate(columns: dict) -> Tensor:
        images = list(columns["image"])
        crops = [crop for crop in (_crop(image, settings, rng) for image in images) if crop is not None]
        if not crops:
            raise SourceError("content=: no image of a batch can be decoded; check the shards (`ingest` makes sound ones)")
        # Every rank needs a full batch: a bad image is replaced by another crop of its neighbours.
        crops += [crops[index % len(crops)] for index in range(len(images) - len(crops))]
        return torch.stack(crops)

    passes = 0
    while True:
        batches = shard.iter_torch_batches(
            batch_size=settings.batch,
            collate_fn=collate,
            drop_last=True,
            prefetch_batches=2,
            local_shuffle_buffer_size=max(_SHUFFLE_ROWS, 4 * settings.batch),
            local_shuffle_seed=settings.seed + passes,
        )
        empty = True
        for batch_BHWC in batches:
            empty = False
            yield {"content": to_float(batch_BHWC)}
        if empty:
            raise SourceError(f"content=: fewer images than one batch of {settings.batch} per worker; lower batch or workers")
        passes += 1


def _crop(image: bytes | None, settings: CropSettings, rng: torch.Generator) -> Tensor | None:
    try:
        pixels_HWC = decode_image(image or b"", settings.limits)
    except DecodeError:
        return None
    return random_crop_flip(torch.from_numpy(pixels_HWC.copy()), settings.size_px, rng)
