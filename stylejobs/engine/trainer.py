"""The training job: Ray Train around the loop, an MLflow run around Ray Train, a registered version at the end."""

import logging
import math
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stylejobs import __version__
from stylejobs.config.schema import TrainConfig
from stylejobs.engine.jobs import limits_of
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.results import JobResult
from stylejobs.engine.session import ray_session
from stylejobs.errors import ModelError, RowError, SourceError, StylejobsError
from stylejobs.storage import locations
from stylejobs.storage.sources import Source

_FULL_RATE_BATCH = 8
_NUM_SAMPLES = 4


@dataclass(frozen=True)
class TrainingPlan:
    """A training that can start: its data is there, its style can be read, its backbone has weights."""

    run_id: str
    source: Source
    sample_images: tuple[bytes, ...]
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
        SourceError: `content` is missing, empty, or not image shards.
        StyleError: `style` is missing or not an image.
        ModelError: the backbone's weights are missing, altered, or another network's.
    """
    from stylejobs.core.backbone import build_backbone
    from stylejobs.engine.datasets import plan_content
    from stylejobs.engine.models import read_style
    from stylejobs.storage.weights import read_backbone_weights

    source = plan_content(config.content, config.image_column)
    if source.num_rows < config.workers * config.batch:
        raise SourceError(
            f"content={config.content}: {source.num_rows} images are fewer than one step of {config.workers} workers x "
            f"batch {config.batch}; lower workers or batch"
        )
    read_style(config.style)
    weights = read_backbone_weights(config.backbone.weights, config.backbone.sha256)
    try:
        backbone = build_backbone(config.backbone.name, weights)
    except ValueError as error:
        raise ModelError(f"backbone.weights={config.backbone.weights}: {error}") from error
    asked = {*(config.backbone.style_layers or ()), config.backbone.content_layer} - {None}
    if unknown := asked - set(backbone.layers):
        raise ModelError(
            f"backbone has no layers {sorted(unknown)}; {config.backbone.name} has {', '.join(backbone.layers)}"
        )
    run_id = uuid.uuid4().hex[:12]
    package_uri = locations.join(locations.absolute(config.storage), f"{config.name}-{run_id}", "package")
    return TrainingPlan(run_id, source, _sample_images(source, config), package_uri)


def _sample_images(source: Source, config: TrainConfig) -> tuple[bytes, ...]:
    """The first images of the set that decode, for the sample grid; the set's first unit must hold one."""
    from stylejobs.records.codec import decode_image
    from stylejobs.storage.reading import read_unit

    limits = limits_of(config.limits)
    unit = source.units[0]
    samples = []
    for image in read_unit(unit, source.carried_schema, limits.max_bytes).images:
        try:
            if not isinstance(image, RowError):
                decode_image(image, limits)
                samples.append(image)
        except RowError:
            continue
        if len(samples) == _NUM_SAMPLES:
            break
    if not samples:
        raise SourceError(f"content={config.content}: no image of its first {unit.num_rows} rows can be decoded")
    return tuple(samples)


def train(config: TrainConfig, plan: TrainingPlan) -> Trained:
    """Trains on the cluster under one MLflow run; rank 0 leaves a model package in `storage`."""
    from stylejobs.tracking.mlflow_tracker import MlflowTracker

    tags = {"stylejobs.verb": "train", "stylejobs.version": __version__, "stylejobs.training": plan.run_id}
    with MlflowTracker.start(config.experiment, config.run_name or f"train {config.name}", tags) as tracker:
        tracker.log_params({**config.model_dump(mode="json"), "content_rows": plan.source.num_rows})
        with ray_session(config.cluster.num_cpus, config.cluster.object_store_mb):
            summary = _fit(config, plan, (tracker.uri, tracker.run_id))
    return Trained(plan.package_uri, summary, tracker.run_id, tracker.url)


def _fit(config: TrainConfig, plan: TrainingPlan, tracking: tuple[str, str]) -> dict:
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from stylejobs.engine.datasets import read_training_images
    from stylejobs.engine.train_loop import train_worker

    num_images = config.steps * config.workers * config.batch
    board = ray.remote(num_cpus=0)(_Board).remote()
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"settings": _settings(config, plan, tracking, board)},
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": config.worker_cpus, **({"GPU": 1} if config.use_gpu else {})},
        ),
        run_config=RunConfig(name=f"{config.name}-{plan.run_id}", storage_path=locations.absolute(config.storage)),
        datasets={"content": read_training_images(plan.source)},
    )
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    with _progress(board, num_images):
        try:
            return trainer.fit().return_value
        except Exception as error:
            raise _cause(error) from error


def _settings(config: TrainConfig, plan: TrainingPlan, tracking: tuple[str, str], board: object) -> "object":
    from stylejobs.engine.datasets import CropSettings, fits_in_memory
    from stylejobs.engine.train_loop import TrainSettings

    generator = config.generator.model_dump()
    generator.pop("name")
    global_batch = config.workers * config.batch
    return TrainSettings(
        method=config.method,
        style_uri=locations.absolute(config.style),
        style_size_px=config.style_size_px,
        steps=config.steps,
        precision=config.precision,
        ema_decay=config.ema,
        threads=config.threads,
        seed=config.seed,
        crops=CropSettings(
            config.size_px, config.batch, config.seed, limits_of(config.limits), keep=fits_in_memory(plan.source)
        ),
        generator=generator,
        backbone=config.backbone.model_dump(),
        weights={f"{name}_weight": value for name, value in config.loss.model_dump().items()},
        learning_rate=config.optim.lr * math.sqrt(max(1.0, global_batch / _FULL_RATE_BATCH)),
        sample_every=config.sample_every,
        log_every=config.log_every,
        sample_images=plan.sample_images,
        package_uri=plan.package_uri,
        training={
            "method": config.method,
            "content": plan.source.uri,
            "style": config.style,
            "backbone": config.backbone.name,
            "workers": config.workers,
            "steps": config.steps,
            "mlflow_run": tracking[1],
        },
        tracking=tracking,
        board=board,
    )


class _Board:
    """An actor between rank 0 and the driver's progress line: the newest numbers only."""

    def __init__(self) -> None:
        self._news: tuple[int, dict[str, float]] = (0, {})

    def post(self, images_seen: int, losses: dict[str, float]) -> None:
        self._news = (images_seen, losses)

    def read(self) -> tuple[int, dict[str, float]]:
        return self._news


@contextmanager
def _progress(board, num_images: int) -> Iterator[None]:
    """Shows what the board says while the training runs."""
    import ray

    ended = threading.Event()

    def follow() -> None:
        shown = 0
        with JobProgress("train", num_images, "images") as progress:
            while True:
                last = ended.wait(1.0)
                seen, losses = ray.get(board.read.remote())
                note = " ".join(f"{name.removeprefix('loss/')} {value:.4g}" for name, value in losses.items())
                progress.advance(seen - shown, note)
                shown = seen
                if last:
                    return

    thread = threading.Thread(target=follow, name="train-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)


def _cause(error: BaseException) -> BaseException:
    """Our own error inside what Ray Train wraps around it, if there is one."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        inner = waiting.pop()
        if inner is None or inner in seen:
            continue
        seen.append(inner)
        if isinstance(inner, StylejobsError):
            return inner
        waiting += [inner.__cause__, getattr(inner, "cause", None), *getattr(inner, "worker_failures", {}).values()]
    return error


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
