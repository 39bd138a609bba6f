"""One Ray Train worker: data from Ray Data, networks in DDP, the loop of `training.py`, and what it tells to whom."""

import contextlib
import faulthandler
import itertools
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import ray
import ray.train
import ray.train.torch
import torch
from torch import nn

from stylejobs.core.methods import Method
from stylejobs.engine.checkpointing import Keeper, Restored, restore_newest
from stylejobs.engine.datasets import TrainingBatch, iterate_batches
from stylejobs.engine.group import Group
from stylejobs.engine.image_order import Place, deal_anew
from stylejobs.engine.metrics import count_troubles, record, record_tracking, repeated_gauges
from stylejobs.engine.train_settings import TrainSettings, build, read_backbone
from stylejobs.engine.train_state import cursors_of
from stylejobs.engine.training import Training, Watch
from stylejobs.engine.training_reader import open_orders, streamed_set
from stylejobs.engine.training_sets import TrainingSet
from stylejobs.errors import StylejobsError
from stylejobs.report.grid import sample_grid
from stylejobs.tracking.system_metrics import SystemMetrics
from stylejobs.tracking.tracker import NullTracker, Tracker

_SYSTEM_SECONDS = 10.0


def train_worker(config: dict) -> dict:
    """Trains to the end, from the newest checkpoint if there is one; rank 0 writes the model package.

    An error of ours would come again, whoever tries: it is left on the board, and the workers that Ray Train starts
    next end at once.

    Returns:
        What `Training.summary` says; {} if another start of the workers has met an error of ours.
    """
    settings: TrainSettings = config["settings"]
    if settings.board is not None and ray.get(settings.board.has_failed.remote()):
        return {}
    try:
        return _train(settings, config["sets"])
    except StylejobsError as error:
        if settings.board is not None:
            # Classes of other modules are told by the one of errors.py that they are derived from.
            kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == StylejobsError.__module__)
            ray.get(settings.board.fail.remote(kind, str(error)))
        raise


def _train(settings: TrainSettings, sets: Mapping[str, TrainingSet]) -> dict:
    _end_if_stuck(settings.hang_seconds)
    count_troubles()
    torch.set_num_threads(settings.threads)
    device = ray.train.torch.get_device()
    group = Group(device)
    tell = _teller(settings)
    restored = restore_newest(settings.checkpoints.run_uri, group, tell)
    with ThreadPoolExecutor(1, thread_name_prefix="first-batch") as pool:
        # Reading starts while the networks are built.
        opening = pool.submit(_open_batches, settings, sets, group, restored)
        method = build(settings, read_backbone(settings))
        networks = wrap(method, device, settings.compile)
        tracked = TrackedWatch(settings, tell) if ray.train.get_context().get_local_rank() == 0 else None
        # The first worker of every node tells what its machine does, the very first also what the training does.
        watch = tracked if tracked is not None and group.is_first else Watch()
        start = group.from_first(uuid.uuid4().hex[:8])
        last_good = restored.checkpoint.uri if restored else None
        keeper = Keeper(settings.checkpoints, group, start, tell, last_good)
        training = Training(settings, method, networks, device, watch, keeper)
        if restored is not None:
            training.restore(restored)
            if group.is_first:
                record("retries", kind="training")
                tell(f"going on from step {training.step} ({training.images_seen:,} images): {last_good}")
        batches = opening.result()
    restored = opening = None  # as large as the model and its optimizers, and not needed again
    with tracked.running(training) if tracked is not None else contextlib.nullcontext():
        with contextlib.closing(_guarded(batches, settings.hang_seconds)) as guarded:
            training.run(guarded)
        training.save()
    return training.summary()


def _open_batches(
    settings: TrainSettings, sets: Mapping[str, TrainingSet], group: Group, restored: Restored | None
) -> Iterator[TrainingBatch]:
    """This worker's batches behind the checkpoint, the first one made."""
    crops = settings.crops
    places = {role: Place(role, crops.seed, group.rank, group.num_workers) for role in sets}
    orders = open_orders(sets, places, crops.batch, crops.limits.max_bytes, settings.readers)
    if restored is not None:
        every = cursors_of(restored.own)
        for role, order in orders.items():
            if restored.is_of(group.num_workers):
                order.seek(every[0][role])
                continue
            planned = sets[role]
            streamed = None if planned.fits_in_memory else streamed_set(planned, crops.limits.max_bytes, 1)
            order.seek(deal_anew([cursors[role] for cursors in every], streamed, Place(role, crops.seed)))
    batches = iterate_batches(orders, crops)
    return itertools.chain([next(batches)], batches)


def _guarded(batches: Iterator[TrainingBatch], hang_seconds: float) -> Iterator[TrainingBatch]:
    """The batches; the process prints its stacks and ends when a step, or making its batch, takes too long.

    Workers that wait for one that hangs end themselves too; Ray Train then ends that one and starts all anew.
    """
    try:
        while True:
            _end_if_stuck(hang_seconds)
            yield next(batches)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_if_stuck(hang_seconds: float) -> None:
    """Ends this process, its stacks printed, unless it is called again or cancelled within that time."""
    faulthandler.dump_traceback_later(hang_seconds, exit=True, file=sys.__stderr__)


def _teller(settings: TrainSettings) -> Callable[[str], None]:
    if settings.board is None:
        return lambda text: None
    return lambda text: settings.board.tell.remote(text) and None


def wrap(method: Method, device: torch.device, compiled: bool) -> dict[str, nn.Module]:
    """Each trained network in a DDP of its own; frozen ones only move. Instance norms have no buffers to sync."""
    for module in (*method.frozen.values(), method.generator, *method.networks.values()):
        module.to(device, memory_format=torch.channels_last)
    if compiled:
        for network in method.networks.values():
            network.compile()
    options = {"forward_sync_buffers": False}
    return {
        name: ray.train.torch.prepare_model(network, parallel_strategy_kwargs=options)
        for name, network in method.networks.items()
    }


class TrackedWatch(Watch):
    """The MLflow run, and the board that the driver's progress line reads."""

    def __init__(self, settings: TrainSettings, tell: Callable[[str], None]):
        self._board, self._tell = settings.board, tell
        self._tracker: Tracker = NullTracker()
        self._counted = (0, 0)
        if settings.tracking:
            from stylejobs.tracking.mlflow_tracker import MlflowTracker

            self._tracker = MlflowTracker.attach(*settings.tracking)

    @contextlib.contextmanager
    def running(self, training: Training) -> Iterator[None]:
        """Logs what the machine does; at the end delivers what still waits. The run is the driver's to close."""
        self._counted = (training.step, training.images_seen)
        node = f"node-{ray.train.get_context().get_node_rank()}"
        try:
            with repeated_gauges(), SystemMetrics(self._tracker, node, _SYSTEM_SECONDS, step=lambda: training.step):
                yield
        finally:
            delivery = self._tracker.finish()
            if not delivery.complete:
                self._tell(f"tracking: {delivery.num_lost} values are missing in the run: {delivery.first_error}")

    def log(self, step: int, metrics: Mapping[str, float], images_seen: int, phase: str) -> None:
        self._tracker.log_metrics(dict(metrics), step)
        (steps, images), self._counted = self._counted, (step, images_seen)
        record("train_steps", step - steps)
        record("images", images_seen - images, verb="train")
        if "images_per_second" in metrics:
            record("images_per_second", metrics["images_per_second"], verb="train")
        record_tracking("train", self._tracker)
        losses = {name: value for name, value in metrics.items() if name.startswith("loss/")}
        if self._board is not None and losses:
            self._board.post.remote(images_seen, losses, phase)

    def event(self, step: int, text: str, metrics: Mapping[str, float]) -> None:
        self._tracker.log_metrics(dict(metrics), step)
        if any(name.startswith("repair/") for name in metrics):
            record("train_repairs")
        if self._board is not None:
            self._board.tell.remote(f"step {step}: {text}")

    def undelivered(self) -> list:
        return self._tracker.undelivered_metrics()

    def tell_again(self, numbers: list) -> None:
        self._tracker.log_again(numbers)

    def sample(self, step: int, make_rows: Callable[[], list]) -> None:
        self._tracker.log_image(sample_grid(make_rows()), "samples", step)
