"""Number 4: what of the workers' time is lost to scheduling, with 1 and with 32 workers that only wait.

The nodes are Ray's own (`ray.cluster_utils`): several raylets on this machine, the driver on a head without CPUs. Units
go through `stylejobs.engine.stream`, as those of a job do. The workers wait for each other before their first unit, so
that starting them is apart; what is counted ends when the first worker finds no more units.
"""

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylejobs.engine.session import ray_session
from stylejobs.engine.stream import Answer, Worker, Workers, WorkItem, stream
from stylejobs.storage.descriptors import Unit

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

UNIT_SECONDS = 1.5
_LONGEST_START_SECONDS = 600.0
_START_ATTEMPTS = 4
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback only, all nodes being on this machine
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_worker_niceness": "0",
}
"""As a session of ours sets them; read when Ray is imported, which is here before there is a session."""


@dataclass(frozen=True)
class Waiting:
    """How the workers wait: for each other in `folder`, then so long for every unit [s]."""

    folder: str
    num_workers: int
    unit_seconds: float


class WaitingWorker(Worker):
    """Waits instead of stylizing; answers when it did so."""

    keeps_state = True

    def __init__(self, settings: Waiting):
        self._s = settings
        place = Path(settings.folder)
        (place / str(os.getpid())).touch()
        until = time.monotonic() + _LONGEST_START_SECONDS
        while len(list(place.iterdir())) < settings.num_workers:
            if time.monotonic() > until:
                raise TimeoutError(f"{settings.num_workers} workers did not start in {_LONGEST_START_SECONDS:.0f} s")
            time.sleep(0.05)

    def do(self, item: WorkItem) -> dict:
        started = time.time()
        time.sleep(self._s.unit_seconds)
        return {"worker": os.getpid(), "started": started, "ended": time.time()}


@contextmanager
def simulated_nodes(num_nodes: int, cpus_each: int) -> Iterator[None]:
    """A Ray cluster of several nodes on this machine, ours while the block runs."""
    os.environ.update(_ENVIRONMENT)
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for cpus in (0, *[cpus_each] * num_nodes):
            _add_node(cluster, cpus)
        os.environ["RAY_ADDRESS"] = cluster.address
        with ray_session():
            yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()


def _add_node(cluster: "Cluster", num_cpus: int) -> None:
    # Ray gives its own processes 30 seconds; a loaded machine sometimes needs another try.
    for attempt in range(_START_ATTEMPTS):
        try:
            cluster.add_node(num_cpus=num_cpus, include_dashboard=False)
            return
        except Exception:
            if attempt == _START_ATTEMPTS - 1:
                raise


def measure(num_workers: int, units_each: int) -> tuple[float, float]:
    """Units a second of so many workers, and the seconds until all of them had started."""
    items = [
        WorkItem(Unit("parquet", "/simulated", f"{number}", "", 0), number, f"{number:064x}")
        for number in range(num_workers * units_each)
    ]
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="stylejobs-nodes-") as folder:
        settings = Waiting(folder, num_workers, UNIT_SECONDS)
        answers = list(stream(items, WaitingWorker, settings, Workers(actors=num_workers)))
    by_worker = _by_worker(answers)
    up = max(done[0]["started"] for done in by_worker)
    idle = min(done[-1]["ended"] for done in by_worker)
    # Parts of units count: what a worker was doing when the count begins or ends.
    units = sum(
        max(0.0, min(done["ended"], idle) - max(done["started"], up)) / (done["ended"] - done["started"])
        for all_done in by_worker
        for done in all_done
    )
    return units / (idle - up), up - began


def _by_worker(answers: list[Answer]) -> list[list[dict]]:
    by_worker = defaultdict(list)
    for answer in answers:
        if answer.failure:
            raise RuntimeError(answer.failure)
        by_worker[answer.value["worker"]].append(answer.value)
    return [sorted(done, key=lambda unit: unit["ended"]) for done in by_worker.values()]


def efficiency(num_workers: int, num_nodes: int, units_each: int) -> tuple[float, str]:
    """rate(n) / (n rate(1)), and how it came about."""
    with simulated_nodes(num_nodes, -(-num_workers // num_nodes)):
        one, _ = measure(1, units_each)
        many, start_seconds = measure(num_workers, units_each)
    detail = f"{many:.2f} units/s to {one:.3f}; all up after {start_seconds:.0f} s"
    return many / (num_workers * one), detail


if __name__ == "__main__":
    print(*efficiency(*map(int, sys.argv[1:])))
