"""Workers, nodes and commands that die while they train: the model of an undisturbed run, to the bit."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from infra.stack.servers import mlflow_server
from stylejobs.storage.checkpoints import list_checkpoints
from tests.faults.processes import descendants, named
from tests.faults.training_job import (
    EVERY,
    NUM_IMAGES,
    STEPS,
    TrainJob,
    assert_as_if_undisturbed,
    newest_step,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.faults
def test_a_worker_then_the_command_is_killed(
    train: Callable[..., TrainJob], undisturbed_training: dict, tracking_store: str
) -> None:
    """The training goes on by itself after the one, and with `resume=` after the other."""
    job = train("killed")
    job.wait_for_checkpoint(EVERY)
    os.kill(job.workers()[-1], signal.SIGKILL)
    job.wait_for(r"going on from step \d+ .*")
    job.wait_for_checkpoint(3 * EVERY)
    job.kill()
    assert 3 * EVERY <= newest_step(job.run_uri) < STEPS, "killed too late to prove anything"
    (newest, *_) = list_checkpoints(job.run_uri)
    changed = train("killed", "resume=latest", "optim.lr=0.001", "recipe.pool=4")
    code, result = changed.finish()
    assert code == 5 and "optim.lr: was none, is 0.001" in result["message"], changed.text()
    assert "allow=optim.lr" in result["message"] and "recipe.pool" not in result["message"]

    again = train("killed", "resume=latest")
    # Workers outlive their command by some seconds, and may leave one checkpoint more.
    assert int(again.wait_for(r"going on from step \d+").split()[-1]) >= newest.step
    code, result = again.finish(600)
    assert code == 0, again.text()
    assert_as_if_undisturbed(again, result, undisturbed_training, tracking_store)


@pytest.mark.faults
def test_numbers_that_had_not_arrived_when_the_command_was_killed_are_in_its_checkpoint(
    train: Callable[..., TrainJob], tmp_path: Path
) -> None:
    """Steps before a checkpoint are not taken again, so that what was told of them must outlive the process."""
    server = mlflow_server(tmp_path / "server")
    try:
        server.wait()
        told = {"MLFLOW_TRACKING_URI": server.url}
        job = train("untold", environment=told)
        job.wait_for_checkpoint(EVERY)
        server.signal(signal.SIGSTOP)
        job.wait_for_checkpoint(3 * EVERY)
        workers = job.workers()
        job.kill()
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        server.signal(signal.SIGCONT)
        again = train("untold", "resume=latest", environment=told)
        assert int(again.wait_for(r"going on from step \d+").split()[-1]) >= 3 * EVERY
        code, result = again.finish(600)
        assert code == 0, again.text()
        history = MlflowClient(server.url).get_metric_history(result["mlflow"]["run_id"], "loss/cycle")
    finally:
        server.kill()
    assert {metric.step for metric in history} == set(range(5, STEPS + 1, 5))


@pytest.fixture
def two_nodes() -> Iterator[tuple[Any, Any]]:
    """(a Ray cluster, its second node): room for one worker on each, and to read beside the one on the first."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 3, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster, cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    finally:
        cluster.shutdown()


@pytest.mark.faults
def test_a_worker_of_a_cluster_is_killed(
    train: Callable[..., TrainJob], undisturbed_training: dict, tracking_store: str, two_nodes: tuple[Any, Any]
) -> None:
    cluster, _ = two_nodes
    job = train("clustered", "worker_cpus=2", environment={"RAY_ADDRESS": cluster.address})
    job.wait_for_checkpoint(EVERY)
    workers = named(descendants(os.getpid()), "ray::RayTrainWorker")
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)
    job.wait_for(r"going on from step \d+ .*")
    code, result = job.finish(600)
    assert code == 0, job.text()
    assert_as_if_undisturbed(job, result, undisturbed_training, tracking_store)


@pytest.mark.faults
def test_a_node_is_lost_and_the_training_goes_on_with_fewer_workers(
    train: Callable[..., TrainJob], tracking_store: str, two_nodes: tuple[Any, Any]
) -> None:
    cluster, node = two_nodes
    job = train("elastic", "worker_cpus=2", "min_workers=1", environment={"RAY_ADDRESS": cluster.address})
    job.wait_for_checkpoint(EVERY)
    cluster.remove_node(node, allow_graceful=False)
    job.wait_for(r"2 workers became 1: image pools and places in the data were dealt anew")
    code, result = job.finish(600)
    assert code == 0 and result["details"]["images_seen"] == NUM_IMAGES, job.text()
    version = MlflowClient(tracking_store).get_model_version_by_alias("elastic", "candidate")
    assert str(version.version) == result["model"]["version"]
