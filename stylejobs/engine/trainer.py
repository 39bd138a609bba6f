"""The training job: Ray Train around the loop, an MLflow run around Ray Train, a registered version at the end."""

import logging
import math
import os
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stylejobs import __version__
from stylejobs.config.methods import GENERATORS, OPTION_OF_KEY
from stylejobs.config.schema import TrainConfig
from stylejobs.config.sections import flatten
from stylejobs.engine.jobs import limits_of
from stylejobs.engine.results import JobResult
from stylejobs.engine.session import ray_session
from stylejobs.engine.train_board import Board, cause, follow
from stylejobs.engine.training_sets import (
    TrainingSet,
    plan_content,
    plan_style,
    read_training_set,
    sample_images,
    unique_names,
)
from stylejobs.errors import ModelError, SourceError, StyleError, UsageError
from stylejobs.storage import locations

if TYPE_CHECKING:
    from stylejobs.core.backbone import Backbone
    from stylejobs.engine.datasets import CropSettings
    from stylejobs.engine.train_settings import TrainSettings

_FULL_RATE_BATCH = 8
_NUM_CONTENT_IMAGES = 128
_NUM_STYLE_IMAGES = 24
_NUM_FAST_STYLE_IMAGES = 64
_LEARN_DOMAINS = ("cyclegan", "cut", "fastcut", "stargan", "content_gan", "exemplar")
"""Methods that would learn a single image by heart, where the others look at its style."""


@dataclass(frozen=True)
class TrainingPlan:
    """A training that can start: its data is there, its style can be read, its method has been built once.

    Attributes:
        sets: those that the method reads batches of, by role.
    """

    run_id: str
    sets: dict[str, TrainingSet]
    settings: "TrainSettings"
    package_uri: str


@dataclass(frozen=True)
class Trained:
    """A finished training: where its package is, and the run that made it."""

    package_uri: str
    summary: dict
    run_id: str
    run_url: str | None


def plan_training(config: TrainConfig) -> TrainingPlan:
    """Reads everything small that the training will need, so that what is missing ends the command now.

    Raises:
        SourceError: `content` is missing, empty, too small, or holds no image that can be decoded.
        StyleError: the same of `style`.
        ModelError: the backbone's weights are missing, altered, or another network's.
        UsageError: the method cannot be built of these options.
    """
    from stylejobs.engine.train_settings import build, read_backbone

    _check_cpus(config)
    if config.load_px is not None and config.load_px < config.size_px:
        raise UsageError(f"load_px={config.load_px}: wanted at least size_px={config.size_px}, the side of the crops")
    content = plan_content(config.content, config.image_column)
    style = plan_style(config.style, config.image_column, _reads_labels(config))
    run_id = uuid.uuid4().hex[:12]
    package_uri = locations.join(locations.absolute(config.storage), f"{config.name}-{run_id}", "package")
    settings = _settings(config, content, style, package_uri)
    _check_counts(config, content, style, settings)
    backbone = read_backbone(settings)
    _check_layers(config, backbone)
    try:
        method = build(settings, backbone)
    except ValueError as error:
        raise UsageError(f"method={config.method}: {error}") from error
    # The critic of exemplars sees exemplars, which have their own size.
    smallest = max((getattr(network, "min_px", 0) for network in method.networks.values()), default=0)
    if config.method != "exemplar" and config.size_px < smallest:
        raise UsageError(f"size_px={config.size_px}: this critic wants at least {smallest} px; fewer critic.layers do")
    has_critic = any(player.is_critic for player in method.players.values())
    if config.repair.on if config.repair.on is not None else has_critic:
        cooldown = config.repair.cooldown_images
        settings = replace(settings, repair={} if cooldown is None else {"cool_down_images": cooldown})
    sets = {"content": content, "style": style}
    return TrainingPlan(run_id, {role: sets[role] for role in method.reads}, settings, package_uri)


def _reads_labels(config: TrainConfig) -> bool:
    """Whether every label of the style set is a style of its own."""
    return "label_conditioned" in (config.generator.name or GENERATORS[config.method][0])


def _check_counts(config: TrainConfig, content: TrainingSet, style: TrainingSet, settings: "TrainSettings") -> None:
    num_images = content.source.num_rows
    if num_images is not None and num_images < config.workers * config.batch:
        raise SourceError(
            f"content={config.content}: {num_images} images are fewer than one step of {config.workers} workers x "
            f"batch {config.batch}; lower workers or batch"
        )
    if config.method not in _LEARN_DOMAINS:
        return
    for planned, sample, kind in (
        (content, settings.content_images, SourceError),
        (style, settings.style_images, StyleError),
    ):
        few = [planned.names[number] for number, count in planned.counts.items() if count < 2]
        if few or len(sample) < 2:
            raise kind(
                f"{planned.role}={planned.uri}: {', '.join(few or planned.names.values())} holds a single image; "
                f"method={config.method} learns what the images of a domain have in common: wanted at least 2 images, "
                "better hundreds; fast, fst and adain learn from one"
            )


def _check_layers(config: TrainConfig, backbone: "Backbone | None") -> None:
    asked = {*(config.backbone.style_layers or ()), config.backbone.content_layer} - {None}
    if backbone is not None and (unknown := asked - set(backbone.layers)):
        raise ModelError(
            f"backbone has no layers {sorted(unknown)}; {config.backbone.name} has {', '.join(backbone.layers)}"
        )


def _settings(config: TrainConfig, content: TrainingSet, style: TrainingSet, package_uri: str) -> "TrainSettings":
    from stylejobs.core.methods import METHODS, PRESETS
    from stylejobs.engine.train_settings import TrainSettings

    limits = limits_of(config.limits)
    method = METHODS[PRESETS.get(config.method, (config.method, {}))[0]]
    most = _NUM_FAST_STYLE_IMAGES if config.method == "fast" else _NUM_STYLE_IMAGES
    style_images = sample_images(style, limits, most, evenly=True)
    values = flatten(config)
    global_batch = config.workers * config.batch
    return TrainSettings(
        method=config.method,
        options={field: values[key] for key, field in OPTION_OF_KEY.items() if values[key] is not None},
        generator=_given(config.generator, has_choice=len(GENERATORS[config.method]) > 1),
        critic=_given(config.critic, has_choice=True),
        backbone=config.backbone.model_dump() if method.needs_backbone else None,
        style_images=dict(zip(unique_names(list(style_images)), style_images.values(), strict=True)),
        style_size_px=config.style_size_px,
        content_images=tuple(sample_images(content, limits, _NUM_CONTENT_IMAGES, evenly=False).values()),
        domains=_domains(content, style),
        num_images=config.steps * global_batch,
        crops=_crops(config, content, style),
        seed=config.seed,
        package_uri=package_uri,
        training={
            "method": config.method,
            "content": content.source.uri,
            "style": config.style,
            "backbone": config.backbone.name if method.needs_backbone else None,
            "workers": config.workers,
            "steps": config.steps,
        },
        precision=config.precision,
        compile=config.compile,
        clip_norm=config.optim.clip_norm,
        ema_decay=config.ema,
        rate_scale=math.sqrt(max(1.0, global_batch / _FULL_RATE_BATCH)),
        threads=config.threads,
        sample_every=config.sample_every,
        log_every=config.log_every,
    )


def _domains(content: TrainingSet, style: TrainingSet) -> tuple[str, ...]:
    """Names of the domains in the order of their numbers, no two the same."""
    styles = [style.names[number] for number in sorted(style.names)]
    *styles, content_name = unique_names([*styles, content.names[0]], folders=False)
    return content_name, *styles


def _crops(config: TrainConfig, content: TrainingSet, style: TrainingSet) -> "CropSettings":
    from stylejobs.engine.datasets import CropSettings

    return CropSettings(
        size_px=config.size_px,
        batch=config.batch,
        seed=config.seed,
        limits=limits_of(config.limits),
        keep=tuple(planned.role for planned in (content, style) if planned.fits_in_memory),
        domains=len(style.names),
        decode_threads=max(1, round(config.worker_cpus)),
        load_px=config.load_px,
    )


def _given(section: Any, has_choice: bool) -> dict[str, Any]:
    """The options of a network that were set; its name where the method leaves a choice."""
    options = section.model_dump(exclude_none=True)
    return options if has_choice else {name: value for name, value in options.items() if name != "name"}


def train(config: TrainConfig, plan: TrainingPlan) -> Trained:
    """Trains on the cluster under one MLflow run; rank 0 leaves a model package in `storage`."""
    from stylejobs.tracking.mlflow_tracker import MlflowTracker

    tags = {"stylejobs.verb": "train", "stylejobs.version": __version__, "stylejobs.training": plan.run_id}
    with MlflowTracker.start(config.experiment, config.run_name or f"train {config.name}", tags) as tracker:
        rows = {f"{role}_rows": planned.source.num_rows for role, planned in plan.sets.items()}
        tracker.log_params({**config.model_dump(mode="json"), **rows})
        with ray_session(config.cluster.num_cpus or _enough_cpus(config), config.cluster.object_store_mb):
            summary = _fit(config, plan, (tracker.uri, tracker.run_id))
    return Trained(plan.package_uri, summary, tracker.run_id, tracker.url)


def _enough_cpus(config: TrainConfig) -> int:
    """Logical CPUs of a Ray that starts here: all of the machine, and never fewer than workers and readers need."""
    return max(os.cpu_count() or 1, math.ceil(config.workers * config.worker_cpus) + 2)


def _check_cpus(config: TrainConfig) -> None:
    """Workers hold their CPUs for the whole run: without one beside them, nothing would ever read an image."""
    held, given = config.workers * config.worker_cpus, config.cluster.num_cpus
    if given is not None and given < held + 1:
        raise UsageError(
            f"cluster.num_cpus={given}: {config.workers} workers hold {held:g} CPUs, which leaves none to read images; "
            f"wanted at least {math.ceil(held) + 1}, or leave it out"
        )


def _fit(config: TrainConfig, plan: TrainingPlan, tracking: tuple[str, str]) -> dict:
    import ray
    from ray.train import DataConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from stylejobs.engine.train_loop import train_worker

    board = ray.remote(num_cpus=0)(Board).remote()
    training = {**plan.settings.training, "mlflow_run": tracking[1]}
    settings = replace(plan.settings, tracking=tracking, board=board, training=training)
    max_bytes = settings.crops.limits.max_bytes
    # Every worker holds the whole of a small style set: a share of few images would be fewer still.
    split = [role for role in plan.sets if role == "content" or role not in settings.crops.keep]
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings, "datasets": tuple(plan.sets)},
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": config.worker_cpus, **({"GPU": 1} if config.use_gpu else {})},
        ),
        run_config=RunConfig(name=f"{config.name}-{plan.run_id}", storage_path=locations.absolute(config.storage)),
        datasets={role: read_training_set(planned, max_bytes) for role, planned in plan.sets.items()},
        dataset_config=DataConfig(datasets_to_split=split),
    )
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    with follow(board, settings.num_images):
        try:
            return trainer.fit().return_value
        except Exception as error:
            raise cause(error) from error


def register(config: TrainConfig, trained: Trained) -> JobResult:
    """Registers the package as a new version of `name` and gives it the alias `candidate`."""
    from stylejobs.engine.registering import register_folder

    version = register_folder(trained.package_uri, config.name, trained.run_id, tags={"method": config.method})
    summary = trained.summary
    losses = ", ".join(f"{name} {value:.4g}" for name, value in summary["losses"].items())
    message = (
        f"trained {config.name} version {version.version} (alias candidate) on {summary['images_seen']:,} images at "
        f"{summary['images_per_second']:.1f} images/s; last losses: {losses}"
    )
    return JobResult(
        "train",
        message=message,
        images_per_second=round(summary["images_per_second"], 2),
        model={"uri": version.uri, "name": version.name, "version": version.version, "sha256": version.sha256},
        mlflow={"run_id": trained.run_id, "url": trained.run_url},
        details={"package": trained.package_uri, **summary},
    )
