"""SIGKILL of the command, of its workers, of its whole Ray: the rows of an undisturbed run, none lost, none twice."""

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.conftest import NUM_UNITS, assert_whole
from tests.faults.processes import Job, descendants, named

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_the_command(start: Callable[..., Job], undisturbed: dict[str, bytes]) -> None:
    job = start("out")
    job.wait_for_units(5)
    job.kill()
    done = job.units_done()
    assert 5 <= done < NUM_UNITS, "killed too late to prove anything"
    assert not (job.dest / "_SUCCESS").exists() and (job.dest / "_stylejobs" / "lease.json").exists()
    (job.dest / "data" / ".part-00009-torn.parquet.0123.tmp").write_bytes(b"what a killed write leaves")

    again = start("out")
    code, result = again.finish()
    assert code == 0, again.text()
    skipped = result["units"]["skipped"]
    assert done <= skipped < NUM_UNITS and result["units"]["done"] == NUM_UNITS - skipped
    assert_whole(job.dest, undisturbed)


def kill_workers(job: Job, times: int, rng: random.Random) -> int:
    """Kills the process of the actor, mid-unit, a few times at random moments; says how often it met one."""
    killed = 0
    while killed < times and job.process.poll() is None:
        time.sleep(rng.uniform(0.1, 1.5))
        for pid in named(descendants(job.process.pid), "ray::MapWorker"):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


@pytest.mark.faults
@pytest.mark.parametrize("times", [2, 20])
@pytest.mark.timeout(1200)
def test_an_actor(start: Callable[..., Job], undisturbed: dict[str, bytes], times: int) -> None:
    rng, killed, rounds = random.Random(0), 0, 0
    while killed < times:
        dest = f"out{rounds}"
        job = start(dest)
        job.wait_for_units(1)
        killed += kill_workers(job, times - killed, rng)
        code, _ = job.finish(600)
        assert code == 0, job.text()
        assert_whole(job.dest, undisturbed)
        rounds += 1
    assert killed >= times


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_node_of_the_cluster(start: Callable[..., Job], undisturbed: dict[str, bytes]) -> None:
    from ray.cluster_utils import Cluster

    shared = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=shared)
    try:
        node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        job = start("out", "cluster.actors=2", environment={"RAY_ADDRESS": cluster.address})
        job.wait_for_units(4)
        cluster.remove_node(node, allow_graceful=False)
        code, result = job.finish(600)
        assert code == 0 and result["units"]["done"] == NUM_UNITS, job.text()
        assert_whole(job.dest, undisturbed)
    finally:
        cluster.shutdown()


@pytest.mark.faults
def test_all_of_ray_but_the_command(start: Callable[..., Job], undisturbed: dict[str, bytes]) -> None:
    job = start("out")
    job.wait_for_units(3)
    for pid in descendants(job.process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    job.process.wait(180)
    assert job.process.returncode != 0 and not (job.dest / "_SUCCESS").exists(), job.text()
    again = start("out")
    code, _ = again.finish()
    assert code == 0, again.text()
    assert_whole(job.dest, undisturbed)


def test_sigterm_stops_cleanly_and_says_how_to_go_on(start: Callable[..., Job], undisturbed: dict[str, bytes]) -> None:
    job = start("out")
    job.wait_for_units(3)
    job.process.send_signal(signal.SIGTERM)
    code, result = job.finish(120)
    assert code == 3 and "pipelines.stylize" in result["resume_command"], job.text()
    assert not (job.dest / "_SUCCESS").exists() and not (job.dest / "_stylejobs" / "lease.json").exists()
    again = start("out")
    assert again.finish()[0] == 0, again.text()
    assert_whole(job.dest, undisturbed)
