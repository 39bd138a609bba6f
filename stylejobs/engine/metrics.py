"""What Prometheus can ask of a job: every name, its meaning, unit and tags in one table, and how they are fed.

Ray exports what is recorded here on the metrics port of the node that recorded it: `ray_<name>` for a gauge,
`ray_<name>_total` for a counter, `ray_<name>_bucket`, `_count` and `_sum` for a histogram. It adds tags of its own,
SessionName and WorkerId among them. A process that ends in order delivers what it has; one that is killed loses up to
ten seconds of it. Ray adds up a histogram from the middles of its buckets, so that sums which must be right are
counters. It forgets a gauge that is not set again for twenty seconds, so that they are repeated while a job runs.

Recorded are units, logged steps and faults, never rows, so that it costs nothing. Where no Ray is running nothing is
recorded, and a metric that Ray does not take never ends a job. Values of tags are words of ours: verbs, reasons,
stages; never places or keys, which are without number and may be secret.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from stylejobs.storage import trouble

if TYPE_CHECKING:
    from ray.util.metrics import Metric

    from stylejobs.storage.markers import Marker
    from stylejobs.tracking.tracker import Tracker

log = logging.getLogger(__name__)

PREFIX = "stylejobs_"
_REPEAT_SECONDS = 5.0


@dataclass(frozen=True)
class Spec:
    """One metric; `name` is without the prefix, `boundaries` are a histogram's."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    description: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()


SPECS = (
    Spec("counter", "rows_ok", "Source rows that became images [rows]", ("verb",)),
    Spec("counter", "rows_bad", "Source rows that became dead letters [rows]", ("verb", "reason")),
    Spec("counter", "images", "Images written; of train: images seen by all workers [images]", ("verb",)),
    Spec("counter", "units", "Units of work that came back; outcome: done, failed [units]", ("verb", "outcome")),
    Spec("counter", "stage_seconds", "Time by stage, added up over threads [s]", ("verb", "stage")),
    Spec(
        "histogram", "unit_seconds", "Time that a worker took for a unit that is done [s]", ("verb",),
        (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0),
    ),
    Spec("counter", "oom_steps", "Steps down after memory ran out: a batch halved, a row alone, in tiles [steps]"),
    Spec(
        "counter", "retries",
        "Tries after the first; kind: storage (a request), worker (a process was replaced and its unit begun again), "
        "training (workers went on from a checkpoint) [tries]",
        ("kind",),
    ),
    Spec("counter", "storage_errors", "Errors of the storage that a retry did not mend [errors]", ("action",)),
    Spec("counter", "train_steps", "Optimizer steps [steps]"),
    Spec("counter", "train_repairs", "What the repairer of a training did, skipped steps among it [repairs]"),
    Spec("gauge", "images_per_second", "As the job's own progress says; of train since the last log [1/s]", ("verb",)),
    Spec("gauge", "jobs_running", "1 while a command works, then 0 [jobs]", ("verb",)),
    Spec("gauge", "units_left", "Units that are not done yet [units]", ("verb",)),
    Spec("gauge", "tracking_lag_seconds", "Since MLflow had everything that was logged [s]", ("verb",)),
    Spec("gauge", "tracking_waiting", "Values, texts and files that wait for MLflow [items]", ("verb",)),
)  # fmt: skip
"""Every metric there is."""

_BY_NAME = {spec.name: spec for spec in SPECS}
_gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
_trackers: dict[str, "Tracker"] = {}


def record(name: str, value: float = 1.0, **tags: str) -> None:
    """Adds to a counter, sets a gauge, or observes for a histogram.

    Args:
        name: without the prefix.
        tags: a value for each of the metric's tags.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    spec = _BY_NAME[name]
    try:
        if spec.kind == "gauge":
            _gauges[name, tuple(tags.items())] = value
            _built(spec).set(float(value), tags)
        elif spec.kind == "histogram":
            _built(spec).observe(float(value), tags)
        elif value > 0:  # Ray refuses to add nothing
            _built(spec).inc(float(value), tags)
    except Exception as error:
        log.warning("metrics: %s%s was not recorded: %s: %s", PREFIX, name, type(error).__name__, error)


@cache
def _built(spec: Spec) -> "Metric":
    from ray.util import metrics

    about = {"description": spec.description, "tag_keys": spec.tags}
    if spec.kind == "histogram":
        return metrics.Histogram(PREFIX + spec.name, boundaries=list(spec.boundaries), **about)
    return (metrics.Counter if spec.kind == "counter" else metrics.Gauge)(PREFIX + spec.name, **about)


@contextmanager
def running(verb: str) -> Iterator[None]:
    """Says that a command works, and counts what goes wrong at the storage in this process."""
    count_troubles()
    with repeated_gauges():
        record("jobs_running", 1, verb=verb)
        try:
            yield
        finally:
            record("jobs_running", 0, verb=verb)


@contextmanager
def repeated_gauges() -> Iterator[None]:
    """Sets this process's gauges again and again, the tracking server's with what waits for it then."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(_REPEAT_SECONDS):
            for verb, tracker in list(_trackers.items()):
                record_tracking(verb, tracker)
            for (name, tags), value in list(_gauges.items()):
                record(name, value, **dict(tags))

    thread = threading.Thread(target=repeat, name="stylejobs-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _gauges.clear()
        _trackers.clear()


def record_unit(verb: str, marker: "Marker", seconds: float) -> None:
    """A unit is done; `seconds` it took the worker."""
    record("units", verb=verb, outcome="done")
    record("rows_ok", marker.rows_ok, verb=verb)
    for reason, num_rows in marker.by_reason.items():
        record("rows_bad", num_rows, verb=verb, reason=reason)
    record("images", marker.rows_out, verb=verb)
    for stage, stage_seconds in marker.seconds.items():
        record("stage_seconds", stage_seconds, verb=verb, stage=stage)
    record("unit_seconds", seconds, verb=verb)


def record_tracking(verb: str, tracker: "Tracker") -> None:
    """How far the tracking server is behind; while gauges are repeated, also from now on."""
    _trackers[verb] = tracker
    backlog = tracker.backlog()
    record("tracking_lag_seconds", backlog.seconds, verb=verb)
    record("tracking_waiting", backlog.num_waiting, verb=verb)


def count_troubles() -> None:
    """In a worker: counts errors and retries of the storage from now on, and this process if it replaces another."""
    trouble.listen(_storage_trouble)
    if _replaces_another():
        record("retries", kind="worker")


def _replaces_another() -> bool:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    try:
        return bool(context.get_actor_id() and context.was_current_actor_reconstructed)
    except Exception as error:
        log.warning("metrics: Ray does not say whether this worker was started again: %s", error)
        return False


def _storage_trouble(kind: str, action: str) -> None:
    if kind == "retry":
        record("retries", kind="storage")
    else:
        record("storage_errors", action=action)
