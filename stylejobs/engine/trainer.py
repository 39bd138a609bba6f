"""The training job: Ray Train around the loop, an MLflow run around Ray Train, a registered version at the end."""

import contextlib
import logging
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from stylejobs.config.schema import TrainConfig
from stylejobs.config.sections import flatten
from stylejobs.engine.metrics import running
from stylejobs.engine.results import JobResult
from stylejobs.engine.session import ray_session
from stylejobs.engine.train_board import Board, cause, follow
from stylejobs.engine.train_plan import TrainingPlan, plan_training
from stylejobs.engine.train_run import RunRecord
from stylejobs.errors import PartialError, StorageError
from stylejobs.storage import locations
from stylejobs.storage.checkpoints import list_checkpoints
from stylejobs.storage.lease import hold

__all__ = ["Trained", "plan_training", "register", "train"]


@dataclass(frozen=True)
class Trained:
    """A finished training: where its package is, and the run that made it."""

    package_uri: str
    summary: dict
    run: RunRecord
    run_url: str | None


def train(config: TrainConfig, plan: TrainingPlan) -> Trained:
    """Trains on the cluster under one MLflow run, from the newest checkpoint of `resume`; leaves a model package.

    Raises:
        StylejobsError: what ended it; `resume_with` says how to go on.
    """
    from stylejobs.tracking.mlflow_tracker import MlflowTracker
    from stylejobs.tracking.provenance import code_tags

    run = plan.run
    tags = {"stylejobs.verb": "train", "stylejobs.training": run.run_id, "stylejobs.config_sha256": run.digest}
    # What MLflow shows as the run's description.
    learned = f"in the style of {config.style}" if config.style else "and its labels"
    about = f"{config.method}: {config.content} {learned}. To go on: `resume={run.folder}`."
    tags |= {**code_tags(), "mlflow.note.content": about}
    run_name = config.run_name or f"train {config.name}"
    with (
        hold(run.uri, "train"),  # also proves that the storage can be written, before hours of work are put into it
        MlflowTracker.start(config.experiment, run_name, tags, run_id=run.mlflow_run_id) as tracker,
    ):
        run = run.with_mlflow(tracker.run_id)
        run.write()
        with _resumable(run):
            if plan.run.mlflow_run_id is None:
                tracker.log_params({key: value for key, value in flatten(config).items() if value is not None})
                for role, planned in plan.sets.items():
                    digest = run.values[f"{role}.digest"]
                    tracker.log_dataset(role, planned.source.uri, digest, "training", planned.source.summary())
            print(f"train: run {run.folder} in {config.storage}", file=sys.stderr)
            num_cpus = config.cluster.num_cpus or _enough_cpus(config)
            with ray_session(num_cpus, config.cluster.object_store_mb), running("train"):
                summary = _fit(config, plan, (tracker.uri, tracker.run_id))
    return Trained(plan.settings.package_uri, summary, run, tracker.url)


@contextlib.contextmanager
def _resumable(run: RunRecord) -> Iterator[None]:
    """Whatever ends the training, its checkpoints stay; the error says how to go on from them."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            error = PartialError("stopped before the end")
        try:
            # A storage that failed is not asked once more, for minutes; the command that goes on will.
            can_go_on = isinstance(error, StorageError) or bool(list_checkpoints(run.uri))
        except StorageError:
            can_go_on = True
        error.resume_with = f"resume={run.folder}" if can_go_on else None
        raise error


def _enough_cpus(config: TrainConfig) -> int:
    """Logical CPUs of a Ray that starts here: all of the machine, and never fewer than workers and readers need."""
    return max(os.cpu_count() or 1, math.ceil(config.workers * config.worker_cpus) + 2)


def _fit(config: TrainConfig, plan: TrainingPlan, tracking: tuple[str, str]) -> dict:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from stylejobs.engine.train_loop import train_worker

    # Beside the driver, so that it does not go with a node that is lost.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote()
    training = {**plan.settings.training, "mlflow_run": tracking[1]}
    settings = replace(plan.settings, tracking=tracking, board=board, training=training)
    workers = config.workers if config.min_workers is None else (config.min_workers, config.workers)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings, "sets": plan.sets},
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo", timeout_s=round(config.hang_seconds)),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": config.worker_cpus, **({"GPU": 1} if config.use_gpu else {})},
        ),
        run_config=RunConfig(
            name=plan.run.folder,
            storage_path=locations.absolute(config.storage),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    done = max((checkpoint.images_seen for checkpoint in list_checkpoints(plan.run.uri)), default=0)
    with follow(board, settings.num_images, done):
        try:
            summary = trainer.fit().return_value
        except Exception as error:
            raise cause(error, board) from error
    return _summary(summary, board)


def _summary(summary: dict | None, board: Any) -> dict:
    """What the workers returned; nothing, if an earlier start of them met an error of ours."""
    if not summary:
        raise cause(RuntimeError("the workers ended without a result"), board)
    return summary


def register(config: TrainConfig, trained: Trained) -> JobResult:
    """Registers the package as a new version of `name` and gives it the alias `candidate`."""
    from stylejobs.engine.registering import register_folder

    run, summary = trained.run, trained.summary
    version = register_folder(trained.package_uri, config.name, run.mlflow_run_id, tags={"method": config.method})
    losses = ", ".join(f"{name} {value:.4g}" for name, value in summary["losses"].items())
    early = ", stopped early" if summary["stopped_early"] else ""
    message = (
        f"trained {config.name} version {version.version} (alias candidate) on {summary['images_seen']:,} images at "
        f"{summary['images_per_second']:.1f} images/s{early}; last losses: {losses}"
    )
    return JobResult(
        "train",
        message=message,
        images_per_second=round(summary["images_per_second"], 2),
        model={"uri": version.uri, "name": version.name, "version": version.version, "sha256": version.sha256},
        mlflow={"run_id": run.mlflow_run_id, "url": trained.run_url},
        details={"package": trained.package_uri, "run": run.folder, **summary},
    )
