"""Work items through Ray Data's streaming executor: descriptors in, answers out, pixels nowhere.

A *work item* is a unit of the source and the part of its output that is wanted. Workers know nothing of Ray. An answer
is plain values; what a worker measured of many images may come with it as tensors, which travel as safetensors.
"""

import functools
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from stylejobs.engine import session
from stylejobs.engine.metrics import count_troubles
from stylejobs.errors import StylejobsError
from stylejobs.storage.descriptors import Unit

TENSORS = "//tensors"
"""Key of the tensors, by name, in what `Worker.do` gives back; they are taken out of `Answer.value`."""

_MAX_BLOCKS = 10_000


@dataclass(frozen=True)
class WorkItem:
    """What a worker does in one go.

    Attributes:
        index: its number in the plan, for the names of files.
        fingerprint: a digest of everything that its output is a function of.
        part: which of the unit's copies are made, in words of the worker; empty for all.
    """

    unit: Unit
    index: int
    fingerprint: str
    part: dict = field(default_factory=dict)

    def to_text(self) -> str:
        """As JSON, which is how it travels."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "WorkItem":
        """The inverse of `to_text`."""
        held = json.loads(text)
        return cls(**{**held, "unit": Unit.from_plain(held["unit"])})

    def __str__(self) -> str:
        unit = self.unit
        return f"{unit.source_uri} {unit.row_groups if unit.kind == 'parquet' else unit.name}"


class Worker(ABC):
    """Does work items, one after the other.

    Attributes:
        keeps_state: building a worker is expensive, so that it should do many items.
    """

    keeps_state = False

    @property
    def is_worn_out(self) -> bool:
        """Whether the process had better be replaced before the next item."""
        return False

    @abstractmethod
    def do(self, item: WorkItem) -> dict:
        """The answer: plain values, and under `TENSORS` tensors. What it raises is the failure of this item alone."""


@dataclass(frozen=True)
class Workers:
    """How many workers a job gets, and what each takes.

    Attributes:
        actors: None for one per GPU if workers take GPUs, else as many as the cluster's CPUs hold.
        cpus, gpus: of one actor; fractions share a device.
    """

    actors: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def count(self, num_items: int) -> int:
        """Workers for so many items: never more than there are."""
        if self.actors is not None:
            return max(1, min(self.actors, num_items))
        resources = session.available()
        fits = resources.get("GPU", 0.0) / self.gpus if self.gpus else resources.get("CPU", 1.0) / max(self.cpus, 1e-9)
        return max(1, min(int(fits), num_items))


@dataclass(frozen=True)
class Answer:
    """What became of an item: `value`, or why it failed, or nothing because there was no time left.

    Attributes:
        exit_code: of the failure.
        seconds: that the worker took for it [s].
        tensors: safetensors, where the worker gave any.
    """

    fingerprint: str
    value: dict | None = None
    failure: str | None = None
    exit_code: int = 0
    seconds: float = 0.0
    tensors: bytes = b""


def stream(
    items: Sequence[WorkItem],
    worker: type[Worker],
    settings: object,
    workers: Workers,
    deadline: float | None = None,
) -> Iterator[Answer]:
    """Answers as they come, in any order, one for each item.

    Args:
        settings: what `worker` is built from.
        deadline: time since the epoch in seconds [s] after which no item should be under way.
    """
    import ray

    # A block an item, so that whoever is free takes the next; of very many a few, since each block costs a millisecond.
    results = ray.data.from_items(
        [{"item": item.to_text()} for item in items], override_num_blocks=min(len(items), _MAX_BLOCKS)
    )
    results = results.map_batches(
        **_placed(worker, settings, deadline, workers.count(len(items))),
        batch_size=1,
        batch_format="numpy",
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )
    for row in results.iter_rows():
        yield Answer(**json.loads(row["answer"]), tensors=row["tensors"])


def _placed(worker: type[Worker], settings: object, deadline: float | None, size: int) -> dict:
    """Actors for workers that load a model; the others run as tasks, in processes that are already warm."""
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    arguments = (worker, settings, deadline)
    if worker.keeps_state:
        return {"fn": StreamActor, "fn_constructor_args": arguments, "compute": ActorPoolStrategy(size=size)}
    return {"fn": _do_item, "fn_args": arguments, "compute": TaskPoolStrategy(size=size)}


def _do_item(batch: dict, worker: type[Worker], settings: object, deadline: float | None) -> dict:
    return StreamActor(worker, settings, deadline)(batch)


class StreamActor:
    """A worker as Ray Data sees it: a descriptor in, an answer out; an item that fails does not end the job."""

    def __init__(self, worker: type[Worker], settings: object, deadline: float | None):
        count_troubles()
        # Built with the first item: what goes wrong is then that item's failure, with our exit code.
        self._build, self._worker = functools.partial(worker, settings), None
        self._deadline, self._longest = deadline, 0.0

    def __call__(self, batch: dict) -> dict:
        answer = asdict(self._answer(WorkItem.from_text(str(batch["item"][0]))))
        tensors = answer.pop("tensors")
        return {"answer": [json.dumps(answer)], "tensors": [tensors]}

    def _answer(self, item: WorkItem) -> Answer:
        if self._worker is not None and self._worker.is_worn_out:
            os._exit(1)  # Ray starts another process, which meets this item first
        # Items of a job take about the same time: one that would not be whole before the deadline is not begun.
        if self._deadline is not None and time.time() + self._longest > self._deadline:
            return Answer(item.fingerprint)
        try:
            self._worker = self._worker or self._build()
            started = time.monotonic()
            value = self._worker.do(item)
            seconds = time.monotonic() - started
            self._longest = max(self._longest, seconds)
            return Answer(item.fingerprint, value=value, seconds=seconds, tensors=_packed(value.pop(TENSORS, {})))
        except Exception as error:
            code = error.exit_code if isinstance(error, StylejobsError) else 1
            return Answer(item.fingerprint, failure=f"{item}: {type(error).__name__}: {error}", exit_code=code)


def _packed(tensors: dict) -> bytes:
    if not tensors:
        return b""  # workers that only move bytes need not load torch
    from safetensors.torch import save

    return save(tensors)
