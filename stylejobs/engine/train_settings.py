"""What a training worker is told, as plain values that travel, and the method that is built of them."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from stylejobs.core.backbone import Backbone, build_backbone
from stylejobs.core.methods import Ingredients, Method, build_method
from stylejobs.core.pixels import to_float
from stylejobs.engine.checkpointing import CheckpointSettings
from stylejobs.engine.datasets import CropSettings
from stylejobs.errors import ModelError
from stylejobs.records.codec import decode_image
from stylejobs.records.resize import resize_short_side
from stylejobs.storage.weights import pin_backbone_weights


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured while a training runs; see the keys of `evaluation`.

    Attributes:
        every_images: images seen between two evaluations.
        measure: the one that decides which checkpoint is the best.
        patience: evaluations without improvement by `min_gain` before the training stops; None never stops.
        content_images, style_images: encoded, the frozen set.
    """

    every_images: int
    measure: str
    content_images: tuple[bytes, ...]
    style_images: tuple[bytes, ...]
    patience: int | None = None
    min_gain: float = 0.0


@dataclass(frozen=True)
class TrainSettings:
    """Everything a worker needs, as plain values that travel; see the keys of the `train` config.

    Attributes:
        options: fields of the method's options, where they differ from its defaults.
        generator, critic: options of the networks, likewise.
        backbone: `name`, `weights`, `sha256`; None for methods that read none.
        style_images: name -> encoded image: the style, or a sample of the style set.
        content_images: encoded sample of the content; the first ones are the sample grid's.
        domains: see `Ingredients`.
        num_images: that all workers together will see.
        repair: options of the repairer; None leaves a training to itself.
        checkpoints: None writes none.
        evaluation: None measures nothing.
        hang_seconds: a worker whose step takes longer ends itself.
        readers: Ray tasks that read for one worker at the same time.
        package_uri: where rank 0 writes the model package.
        tracking: (tracking uri, run id) of the MLflow run; None logs nothing.
    """

    method: str
    options: dict[str, Any]
    generator: dict[str, Any]
    critic: dict[str, Any]
    backbone: dict[str, Any] | None
    style_images: dict[str, bytes]
    style_size_px: int
    content_images: tuple[bytes, ...]
    domains: tuple[str, ...]
    num_images: int
    crops: CropSettings
    seed: int
    package_uri: str
    training: dict[str, Any]
    precision: str = "float32"
    compile: bool = False
    clip_norm: float | None = None
    ema_decay: float = 0.999
    repair: dict[str, Any] | None = None
    checkpoints: CheckpointSettings | None = None
    evaluation: EvaluationSettings | None = None
    hang_seconds: float = 1800.0
    readers: int = 1
    threads: int = 1
    sample_every: int = 500
    log_every: int = 20
    tracking: tuple[str, str] | None = None
    board: object = field(default=None, compare=False)


def read_backbone(settings: TrainSettings) -> Backbone | None:
    """The method's frozen features; None where it reads none.

    Raises:
        ModelError: its weights are missing, altered, or another network's.
    """
    return pin_backbone(settings)[1]


def pin_backbone(settings: TrainSettings) -> tuple[TrainSettings, Backbone | None]:
    """`read_backbone`, and settings with the digest of what was read: with these, workers take no other weights."""
    if settings.backbone is None:
        return settings, None
    name, place = settings.backbone["name"], settings.backbone["weights"]
    weights = pin_backbone_weights(place, settings.backbone["sha256"])
    wide_layers = settings.options.get("content_kind") == "fc6_fc7"
    pinned = replace(settings, backbone={**settings.backbone, "sha256": weights.sha256})
    try:
        return pinned, build_backbone(name, weights.tensors, wide_layers=wide_layers)
    except ValueError as error:
        raise ModelError(f"backbone.weights={place}: {error}") from error


def build(settings: TrainSettings, backbone: Backbone | None) -> Method:
    """The method with its networks; the same weights on every rank, from the seed.

    Args:
        backbone: from `read_backbone`.

    Raises:
        ValueError: the method does not take these options or ingredients.
    """
    torch.manual_seed(settings.seed)
    style_images = {
        name: read_picture(data, settings, settings.style_size_px) for name, data in settings.style_images.items()
    }
    ingredients = Ingredients(settings.generator, settings.critic, backbone, style_images, settings.domains)
    return build_method(settings.method, ingredients, **settings.options)


def read_picture(data: bytes, settings: TrainSettings, short_side_px: int) -> Tensor:
    """An encoded image as float [1, 3, H, W] in [-1, 1], its short side as asked for."""
    pixels_HWC = resize_short_side(decode_image(data, settings.crops.limits), short_side_px)
    return to_float(torch.from_numpy(pixels_HWC.copy())[None])
