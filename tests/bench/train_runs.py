"""Our own trainings as benchmarks time them: a CycleGAN by the engine's `Training`, without Ray, and its batches."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn

from infra.demo.photos import PHOTOS, read_photo
from stylejobs.core.methods import Method
from stylejobs.core.views import ViewOptions
from stylejobs.engine.checkpointing import Keeper
from stylejobs.engine.datasets import CropSettings, TrainingBatch, iterate_in_memory
from stylejobs.engine.image_order import EncodedImage
from stylejobs.engine.train_settings import TrainSettings, build
from stylejobs.engine.training import Training, Watch
from stylejobs.records.codec import Limits
from tests.bench.pictures import encode

Networks = dict[str, nn.Module]
POOL = 50
_ENDLESS = 10**9
_PHOTO_SIZE = (640, 480)
_LOAD_SHARE = 286 / 256
"""Of a crop's side, the short side that the recipe scales images to."""


@dataclass(frozen=True)
class Size:
    """Of networks, images and batches; the recipe's own numbers otherwise."""

    size_px: int = 128
    width: int = 16
    blocks: int = 6
    batch: int = 1
    upsample: str = "nearest"

    @property
    def generator(self) -> dict[str, Any]:
        return {"width": self.width, "blocks": self.blocks, "upsample": self.upsample}


def start_training(size: Size, wrap: Callable[[Networks], Networks] = dict, keeper: Keeper | None = None) -> Training:
    """A training as the command starts it, repairer and all, that would never end.

    Args:
        wrap: gives the method's networks back as they are trained.
        keeper: writes checkpoints.
    """
    settings = TrainSettings(
        method="cyclegan", options={"pool": POOL}, generator=size.generator, critic={"width": size.width},
        backbone=None, style_images={}, style_size_px=size.size_px, content_images=(), domains=("x", "y"),
        num_images=_ENDLESS, crops=crop_settings(size), seed=0, package_uri="", training={}, repair={},
        sample_every=_ENDLESS,
    )  # fmt: skip
    method = build(settings, None)
    lay_out(method)
    return Training(settings, method, wrap(method.networks), torch.device("cpu"), Watch(), keeper)


def lay_out(method: Method) -> None:
    """Weights in memory as a worker has them."""
    for network in method.networks.values():
        network.to(memory_format=torch.channels_last)


def crop_settings(size: Size) -> CropSettings:
    view = ViewOptions(size.size_px, load_px=round(size.size_px * _LOAD_SHARE))
    return CropSettings(view, size.batch, seed=0, limits=Limits())


def tensor_batches(size: Size) -> Iterator[TrainingBatch]:
    """Endless batches that are in memory already, a few in turns."""
    rng = torch.Generator().manual_seed(0)
    shape = (size.batch, 3, size.size_px, size.size_px)
    domains_B = torch.ones(size.batch, dtype=torch.int64)
    few = []
    for _ in range(4):
        content_BCHW, style_BCHW = (torch.rand(shape, generator=rng) * 2 - 1 for _ in range(2))
        tensors = {"content": content_BCHW, "style": style_BCHW, "style_domain": domains_B}
        few.append(TrainingBatch(tensors, dict.fromkeys(("content", "style"), ("",) * size.batch)))
    return itertools.cycle(few)


def photo_sets() -> dict[str, list[EncodedImage]]:
    """Content and style: JPEGs of 480x640 px in memory."""
    encoded = [encode(read_photo(label).resize(_PHOTO_SIZE, Image.Resampling.LANCZOS)) for label in PHOTOS]
    return {
        role: [EncodedImage(f"{role}-{number}", domain, data) for number, data in enumerate(encoded)]
        for domain, role in enumerate(("content", "style"))
    }


def photo_batches(sets: Mapping[str, list[EncodedImage]], size: Size) -> Iterator[TrainingBatch]:
    """Endless batches of crops, decoded while the training steps."""
    return iterate_in_memory(sets, crop_settings(size))


def take_steps(training: Training, batches: Iterator[TrainingBatch], num_steps: int) -> None:
    """What `Training.run` does, for so many steps."""
    for _ in range(num_steps):
        training.take_step(next(batches))
