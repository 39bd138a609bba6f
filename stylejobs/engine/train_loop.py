"""One training worker: batches -> objectives -> steps. Reads like the algorithm.

Runs in a Ray Train worker; everything it needs comes in `TrainSettings`, plain values that travel.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import ray
import ray.train
import ray.train.torch
import torch
from torch import Tensor, nn

from stylejobs.core.backbone import build_backbone
from stylejobs.core.ema import Ema
from stylejobs.core.methods import FastOptions, Method, build_method
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.engine.datasets import CropSettings, iterate_crops
from stylejobs.engine.models import read_style, style_name
from stylejobs.errors import TrainingError
from stylejobs.records.codec import decode_image
from stylejobs.records.resize import resize_short_side
from stylejobs.report.grid import sample_grid
from stylejobs.storage import locations
from stylejobs.storage.packages import save_package
from stylejobs.storage.weights import read_backbone_weights
from stylejobs.tracking.tracker import NullTracker, Tracker


@dataclass(frozen=True)
class TrainSettings:
    """See the keys of the `train` config.

    Attributes:
        learning_rate: as given, already scaled to the global batch.
        sample_images: encoded content images for the sample grid, the same at every step.
        package_uri: where rank 0 writes the model package.
        tracking: (tracking uri, run id) of the MLflow run; None logs nothing.
    """

    method: str
    style_uri: str
    style_size_px: int
    steps: int
    precision: str
    ema_decay: float
    threads: int
    seed: int
    crops: CropSettings
    generator: dict
    backbone: dict
    weights: dict
    learning_rate: float
    sample_every: int
    log_every: int
    sample_images: tuple[bytes, ...]
    package_uri: str
    training: dict
    tracking: tuple[str, str] | None = None
    board: object = field(default=None, compare=False)


def train_worker(config: dict) -> dict:
    """Trains to the end and, on rank 0, writes the model package.

    Returns:
        {"images_seen", "seconds", "images_per_second", "losses"}: over all workers; the last logged losses.
    """
    settings: TrainSettings = config["settings"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    batches = iterate_crops(ray.train.get_dataset_shard("content"), settings.crops, rank)
    with ThreadPoolExecutor(1, thread_name_prefix="first-batch") as pool:
        first = pool.submit(next, batches)  # the data pipeline starts while the networks are built
        method = build(settings)
        device = ray.train.torch.get_device()
        networks = wrap(method, device)
        trainer = _Loop(settings, method, networks, device, world_size, _Watch(settings, rank))
        batches = itertools.chain([first.result()], batches)
    try:
        trainer.run(batches)
        if rank == 0:
            trainer.save()
    finally:
        trainer.watch.finish()
    return trainer.summary()


def build(settings: TrainSettings) -> Method:
    """The method with its networks; the same weights on every rank, from the seed."""
    backbone = build_backbone(
        settings.backbone["name"], read_backbone_weights(settings.backbone["weights"], settings.backbone["sha256"])
    )
    given = {name: value for name, value in settings.weights.items() if value is not None}
    layers = {name: settings.backbone[name] for name in ("content_layer", "style_layers")}
    options = FastOptions(**layers, **given, learning_rate=settings.learning_rate)
    style_BCHW = read_style(settings.style_uri)
    style_HWC = resize_short_side(to_uint8(style_BCHW)[0].numpy(), settings.style_size_px)
    return build_method(
        settings.method,
        generator_options=settings.generator,
        backbone=backbone,
        style_image_BCHW=to_float(torch.from_numpy(style_HWC)[None]),
        style_name=style_name(settings.style_uri),
        options=options,
    )


def wrap(method: Method, device: torch.device) -> dict[str, nn.Module]:
    """Each trained network in a DDP of its own; frozen ones only move. Instance norms have no buffers to sync."""
    for frozen in method.frozen.values():
        frozen.to(device)
    options = {"forward_sync_buffers": False}
    return {
        name: ray.train.torch.prepare_model(
            network.to(device, memory_format=torch.channels_last), parallel_strategy_kwargs=options
        )
        for name, network in method.networks.items()
    }


class _Loop:
    """Steps, averaged weights, logs and samples of one worker."""

    def __init__(
        self,
        settings: TrainSettings,
        method: Method,
        networks: Mapping[str, nn.Module],
        device: torch.device,
        world_size: int,
        watch: "_Watch",
    ):
        self.watch = watch
        self._s, self._method, self._networks, self._device = settings, method, networks, device
        self._world_size = world_size
        self._optimizers = method.build_optimizers(networks)
        self._ema = Ema(method.networks["generator"], settings.ema_decay)
        self._losses: dict[str, float] = {}
        self._images_seen = 0
        self._seconds = 0.0

    def run(self, batches: Iterator[dict[str, Tensor]]) -> None:
        started = time.monotonic()
        for step in range(1, self._s.steps + 1):
            batch = {name: images.to(self._device, non_blocking=True) for name, images in next(batches).items()}
            terms = self._step(batch)
            self._ema.update(self._method.networks["generator"])
            self._images_seen += self._world_size * next(iter(batch.values())).shape[0]
            self._seconds = time.monotonic() - started
            if step % self._s.log_every == 0 or step == self._s.steps:
                self._log(step, terms)
            if step % self._s.sample_every == 0 or step == self._s.steps:
                self.watch.sample(step, self._sample)

    def _step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each player moves once, in the method's order."""
        terms: dict[str, Tensor] = {}
        autocast = torch.autocast(self._device.type, torch.bfloat16) if self._s.precision == "bf16" else nullcontext()
        with autocast:
            for objective in self._method.objectives(self._networks, batch):
                optimizer = self._optimizers[objective.player]
                optimizer.zero_grad(set_to_none=True)
                objective.loss.backward()
                optimizer.step()
                terms |= objective.terms
        return terms

    def _log(self, step: int, terms: dict[str, Tensor]) -> None:
        self._losses = {name: float(value) for name, value in terms.items()}
        if not all(map(_is_finite, self._losses.values())):
            raise TrainingError(f"step {step}: a loss is not finite: {self._losses}; lower optim.lr")
        rates = {"images_per_second": self._images_seen / self._seconds, "images_seen": float(self._images_seen)}
        learning_rates = {f"lr/{name}": opt.param_groups[0]["lr"] for name, opt in self._optimizers.items()}
        losses = {f"loss/{name}": value for name, value in self._losses.items()}
        self.watch.log(step, {**losses, **rates, **learning_rates}, self._images_seen)

    @torch.no_grad()
    def _sample(self) -> list:
        """Rows of the sample grid: content beside what the averaged generator makes of it."""
        generator = self._method.networks["generator"]
        kept = {name: value.clone() for name, value in generator.state_dict().items()}
        generator.load_state_dict(self._ema.state_dict())
        rows = []
        for data in self._s.sample_images:
            content_HWC = resize_short_side(decode_image(data, self._s.crops.limits), self._s.crops.size_px)
            content_BCHW = to_float(torch.from_numpy(content_HWC.copy())[None]).to(self._device)
            stylized_BCHW = generator(content_BCHW, content_BCHW.new_zeros(1, 0))
            rows.append([content_HWC, to_uint8(stylized_BCHW)[0].cpu().numpy()])
        generator.load_state_dict(kept)
        return rows

    def save(self) -> None:
        """The averaged generator as a model package; the last raw weights beside it."""
        s, method = self._s, self._method
        training = {**s.training, "images_seen": self._images_seen, "losses": self._losses}
        raw = method.networks["generator"].state_dict()
        for place, weights in ((s.package_uri, self._ema.state_dict()), (locations.join(s.package_uri, "raw"), raw)):
            save_package(place, method.generator_name, method.generator_options, weights, method.styles, training)

    def summary(self) -> dict:
        return {
            "images_seen": self._images_seen,
            "seconds": self._seconds,
            "images_per_second": self._images_seen / max(1e-9, self._seconds),
            "losses": self._losses,
        }


class _Watch:
    """Where rank 0 tells what happens: the MLflow run, and the board that the driver's progress line reads."""

    def __init__(self, settings: TrainSettings, rank: int):
        self._board = settings.board if rank == 0 else None
        self._active = rank == 0
        self._tracker: Tracker = NullTracker()
        if rank == 0 and settings.tracking:
            from stylejobs.tracking.mlflow_tracker import MlflowTracker

            self._tracker = MlflowTracker.attach(*settings.tracking)

    def log(self, step: int, metrics: dict[str, float], images_seen: int) -> None:
        self._tracker.log_metrics(metrics, step)
        if self._board is not None:
            losses = {name: value for name, value in metrics.items() if name.startswith("loss/")}
            self._board.post.remote(images_seen, losses)

    def sample(self, step: int, make_rows) -> None:
        if self._active:
            self._tracker.log_image(sample_grid(make_rows()), "samples", step)

    def finish(self) -> None:
        """Delivers what still waits; the run is the driver's to close."""
        self._tracker.finish()


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
