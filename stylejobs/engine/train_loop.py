"""One Ray Train worker: data from Ray Data, networks in DDP, the loop of `training.py`, and what it tells to whom."""

import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import ray
import ray.train
import ray.train.torch
import torch
from torch import nn

from stylejobs.core.methods import Method
from stylejobs.engine.datasets import iterate_batches
from stylejobs.engine.train_settings import TrainSettings, build, read_backbone
from stylejobs.engine.training import Training, Watch
from stylejobs.report.grid import sample_grid
from stylejobs.tracking.tracker import NullTracker, Tracker


def train_worker(config: dict) -> dict:
    """Trains to the end and, on rank 0, writes the model package.

    Returns:
        What `Training.summary` says.
    """
    settings: TrainSettings = config["settings"]
    rank = ray.train.get_context().get_world_rank()
    torch.set_num_threads(settings.threads)
    shards = {name: ray.train.get_dataset_shard(name) for name in config["datasets"]}
    batches = iterate_batches(shards, settings.crops, rank)
    with ThreadPoolExecutor(1, thread_name_prefix="first-batch") as pool:
        first = pool.submit(next, batches)  # the data pipeline starts while the networks are built
        method = build(settings, read_backbone(settings))
        device = ray.train.torch.get_device()
        networks = wrap(method, device, settings.compile)
        watch = TrackedWatch(settings) if rank == 0 else Watch()
        training = Training(settings, method, networks, device, watch)
        batches = itertools.chain([first.result()], batches)
    try:
        training.run(batches)
        training.save()
    finally:
        if isinstance(watch, TrackedWatch):
            watch.finish()
    return training.summary()


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
    """Rank 0's: the MLflow run, and the board that the driver's progress line reads."""

    def __init__(self, settings: TrainSettings):
        self._board = settings.board
        self._tracker: Tracker = NullTracker()
        if settings.tracking:
            from stylejobs.tracking.mlflow_tracker import MlflowTracker

            self._tracker = MlflowTracker.attach(*settings.tracking)

    def log(self, step: int, metrics: Mapping[str, float], images_seen: int, phase: str) -> None:
        self._tracker.log_metrics(dict(metrics), step)
        if self._board is not None:
            losses = {name: value for name, value in metrics.items() if name.startswith("loss/")}
            self._board.post.remote(images_seen, losses, phase)

    def event(self, step: int, text: str, metrics: Mapping[str, float]) -> None:
        self._tracker.log_metrics({f"repair/{name}": value for name, value in metrics.items()}, step)
        if self._board is not None:
            self._board.tell.remote(f"step {step}: {text}")

    def sample(self, step: int, make_rows: Callable[[], list]) -> None:
        self._tracker.log_image(sample_grid(make_rows()), "samples", step)

    def finish(self) -> None:
        """Delivers what still waits; the run is the driver's to close."""
        self._tracker.finish()
