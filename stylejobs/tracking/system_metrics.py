"""The load of this machine beside a run's own numbers: CPU, memory, disk, network, and GPUs where there are any.

MLflow's collectors measure; a thread of ours hands their numbers to any tracker, so that they survive an outage like
the rest. MLflow's own monitor is not used: it asks the server before every sample and stops at the first failure.
"""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stylejobs.tracking.client import set_environment
from stylejobs.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0


class SystemMetrics:
    """Logs the load of this machine while its block runs, as `system/<node>/<name>` with the names of MLflow.

    MLflow shows what begins with `system/` under "System metrics". The numbers are the whole machine's, whoever uses
    it: one worker of each machine logs them. A last sample is taken when the block ends, so a short one has a sample
    too. Nothing here raises or waits for a server: what cannot be measured is left out and said once.

    Args:
        tracker: where the numbers go; for one without a run nothing is measured.
        node: names the machine among those of the run; None leaves it out of the names.
        seconds: between two samples.
        step: gives the step of a sample, such as the training's; None counts the samples.
    """

    def __init__(
        self, tracker: Tracker, node: str | None = None, seconds: float = 10.0, step: Callable[[], int] | None = None
    ) -> None:
        self._tracker = tracker
        self._prefix = f"system/{node}/" if node else "system/"
        self._seconds = seconds
        self._step = step
        self._stop = threading.Event()
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name="stylejobs-system-metrics", daemon=True)

    def __enter__(self) -> Self:
        if self._tracker.run_id is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            # A driver that hangs must not hold the training; the run may be finished by the time it answers.
            self._given_up = True
            log.warning("system metrics: the last sample took more than %g s and is left out", STOP_SECONDS)

    def _run(self) -> None:
        collectors = _open_collectors()
        # The load of the CPU counts since the last look at it, so the first look says nothing.
        _measure(collectors)
        number = 0
        stopping = False
        while collectors and not stopping:
            stopping = self._stop.wait(self._seconds)
            metrics = _measure(collectors)
            if self._given_up:
                return
            step = number if self._step is None else self._step()
            self._tracker.log_metrics({self._prefix + name: value for name, value in metrics.items()}, step)
            number += 1


def _open_collectors() -> "list[BaseMetricsMonitor]":
    set_environment()
    try:
        from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor, gpu_monitor, network_monitor
    except ImportError as error:
        log.warning("system metrics: none of this machine: %s", error)
        return []
    # A GPU that does not tell its power (a slice, a virtual one) would be named at every sample.
    logging.getLogger(gpu_monitor.__name__).setLevel(logging.ERROR)
    opened = []
    for kind in (cpu_monitor.CPUMonitor, disk_monitor.DiskMonitor, network_monitor.NetworkMonitor):
        try:
            opened.append(kind())
        except Exception as error:
            log.warning("system metrics: no %s: %s", kind.__name__, error)
    try:
        opened.append(gpu_monitor.GPUMonitor())
    except Exception as error:
        log.debug("system metrics: no GPU: %s", error)
    return opened


def _measure(collectors: "list[BaseMetricsMonitor]") -> dict[str, float]:
    """One look at the machine; a collector that fails is taken off the list."""
    metrics: dict[str, float] = {}
    for collector in list(collectors):
        try:
            collector.collect_metrics()
            metrics.update(collector.aggregate_metrics())
            collector.clear_metrics()
        except Exception as error:
            collectors.remove(collector)
            log.warning("system metrics: no more of %s: %s", type(collector).__name__, error)
    return metrics
