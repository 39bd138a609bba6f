"""Encoded images -> batches of training crops, next to the training step. Which images: see image_order.py.

The crop of a draw is drawn from a generator of (seed, set, number of the draw), so that neither the number of workers,
nor that of decoding threads, nor how far ahead they are changes a batch.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stylejobs.core.pixels import to_float
from stylejobs.core.views import ViewOptions, random_view
from stylejobs.engine.image_order import EncodedImage, ImageOrder, KeptOrder, Place
from stylejobs.errors import DecodeError, SourceError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.lineage import draw_seed

_MOST_BAD_IN_A_ROW = 256


@dataclass(frozen=True)
class TrainingBatch:
    """What one step of one worker is trained on.

    Attributes:
        tensors: "content" float32 [B, 3, size, size] in [-1, 1] and "content_domain" int64 [B]; where a style set is
            read "style" and "style_domain", likewise.
        keys: set -> the key of each row's image.
        cursors: set -> where its order stands behind this batch, see `ImageOrder.cursor`.
    """

    tensors: dict[str, Tensor]
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cursors: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class CropSettings:
    """How encoded images become batches of training crops.

    Attributes:
        view: what a crop is.
        batch: crops of each set in one worker's batch.
        decode_threads: images decoded at the same time.
        prefetch: batches made ahead of the one that is trained on.
    """

    view: ViewOptions
    batch: int
    seed: int
    limits: Limits
    decode_threads: int = 1
    prefetch: int = 1

    @property
    def whole_px(self) -> int:
        """Short side at which whole pictures are shown to what was trained on these crops."""
        return self.view.load_px or self.view.size_px


def iterate_batches(orders: Mapping[str, ImageOrder], settings: CropSettings) -> Iterator[TrainingBatch]:
    """One worker's batches without end; each set is passed over at its own pace.

    The next batches are read, decoded and cropped while the present one is trained on.

    Args:
        orders: "content" and, where a style set is read, "style".

    Raises:
        SourceError: a set has too few images, or none that can be decoded.
    """
    with (
        ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode") as decoders,
        ThreadPoolExecutor(1, thread_name_prefix="crops") as ahead,
    ):

        def make() -> TrainingBatch:
            tensors: dict[str, Tensor] = {}
            keys: dict[str, tuple[str, ...]] = {}
            for role, order in orders.items():
                images, tensors[role] = _take(role, order, settings, decoders)
                keys[role] = tuple(image.key for image in images)
                tensors[f"{role}_domain"] = torch.tensor([image.domain for image in images], dtype=torch.int64)
            return TrainingBatch(tensors, keys, {role: order.cursor() for role, order in orders.items()})

        waiting: deque[Future[TrainingBatch]] = deque(ahead.submit(make) for _ in range(max(1, settings.prefetch)))
        try:
            while True:
                batch = waiting.popleft().result()
                waiting.append(ahead.submit(make))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def iterate_in_memory(
    sets: Mapping[str, Sequence[EncodedImage]],
    settings: CropSettings,
    rank: int = 0,
    num_workers: int = 1,
    cursors: Mapping[str, dict[str, Any]] | None = None,
) -> Iterator[TrainingBatch]:
    """The same over lists of encoded images: for benchmarks and tests, which need no Ray.

    Args:
        cursors: of the batch after which to go on; None starts anew.
    """
    orders: dict[str, ImageOrder] = {}
    for role, images in sets.items():
        orders[role] = KeptOrder(images, Place(role, settings.seed, rank, num_workers))
        if cursors is not None:
            orders[role].seek(cursors[role])
    return iterate_batches(orders, settings)


def _take(
    role: str, order: ImageOrder, settings: CropSettings, decoders: ThreadPoolExecutor
) -> tuple[list[EncodedImage], Tensor]:
    """A batch of images and their crops. Every rank needs full batches: a bad image gives its place to the next one."""

    def crop(drawn: tuple[EncodedImage, int]) -> Tensor | None:
        image, number = drawn
        try:
            pixels_HWC = decode_image(image.data or b"", settings.limits)
        except DecodeError:
            return None
        rng = torch.Generator().manual_seed(draw_seed(settings.seed, f"view of {role}", number))
        return random_view(torch.from_numpy(pixels_HWC), settings.view, rng)

    images: list[EncodedImage] = []
    crops: list[Tensor] = []
    bad = 0
    while len(crops) < settings.batch:
        drawn = [order.next() for _ in range(settings.batch - len(crops))]
        for (image, _), view_HWC in zip(drawn, decoders.map(crop, drawn), strict=True):
            if view_HWC is None:
                bad += 1
                continue
            bad = 0
            images.append(image)
            crops.append(view_HWC)
        if bad >= _MOST_BAD_IN_A_ROW:
            raise SourceError(
                f"{role}=: {bad} images in a row cannot be decoded, the last is {drawn[-1][0].key}; `ingest` makes "
                "shards without such images and says what is wrong with them"
            )
    return images, to_float(torch.stack(crops))
