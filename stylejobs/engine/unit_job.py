"""A job over units: what is done is skipped, the rest goes through Ray Data's streaming executor, exactly once.

Only unit descriptors and unit results pass through Ray; pixels never leave the actor that decoded them.
"""

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from stylejobs.engine import session
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.writer import UnitWorker
from stylejobs.errors import BudgetError, InfrastructureError, SourceError, StylejobsError
from stylejobs.storage import locations
from stylejobs.storage import units as books
from stylejobs.storage.sources import Source, Unit
from stylejobs.storage.units import Marker

_MAX_FAILED_UNITS = 8
_COUNTED = ("rows_in", "rows_ok", "rows_bad", "bytes_in", "bytes_out")


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

    def count(self, num_units: int) -> int:
        if self.actors is not None:
            return max(1, min(self.actors, num_units))
        resources = session.available()
        fits = resources.get("GPU", 0.0) / self.gpus if self.gpus else resources.get("CPU", 1.0) / max(self.cpus, 1e-9)
        return max(1, min(int(fits), num_units))


@dataclass
class UnitJob:
    """One job: its source, what its output is a function of, and who does the units.

    Attributes:
        identity: goes, with the unit itself, into every fingerprint; what `dest` is refused for when it differs.
        worker: class of the workers, built once an actor from `settings`.
        max_bad: largest allowed share of bad rows.
    """

    verb: str
    dest: str
    source: Source
    identity: dict
    worker: type[UnitWorker]
    settings: object
    max_bad: float
    workers: Workers = field(default_factory=Workers)
    markers: dict[str, Marker] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    failure_code: int = 1
    skipped: int = 0

    def __post_init__(self) -> None:
        shared = books.digest(self.identity)
        self.work = {books.digest([shared, unit.identity()]): (i, unit) for i, unit in enumerate(self.source.units)}
        self.pending = dict(self.work)
        self._counts: Counter[str] = Counter()

    def open(self, plan: dict) -> None:
        """Takes `dest` for this job, or refuses; finds out what is done already."""
        if locations.is_within(self.dest, self.source.uri) or locations.is_within(self.source.uri, self.dest):
            raise SourceError(f"source={self.source.uri} and dest={self.dest}: one lies in the other; keep them apart")
        books.open_books(self.dest, self.identity, plan)
        for marker in books.read_markers(self.dest, self.pending).values():
            self._add(marker)
        self.skipped = len(self.markers)
        self.pending = {name: work for name, work in self.pending.items() if name not in self.markers}

    def run(self, on_unit: Callable[[Marker, JobProgress], None]) -> None:
        """Does the units that are left; `on_unit` sees each as it is done.

        Raises:
            BudgetError: more rows are bad than `max_bad` allows.
            InfrastructureError: units failed as a whole; the message names them.
        """
        total = self.source.num_rows
        with JobProgress(self.verb, total, "images", done=self.count("rows_in")) as progress:
            self._check_budget(total)
            if self.pending:
                books.withdraw_success(self.dest)
            for answer in self._stream():
                if "failed" in answer:
                    self._note_failure(answer)
                    continue
                marker = Marker(**answer["marker"])
                self._add(marker)
                bad = self.count("rows_bad")
                progress.advance(marker.rows_in, f"{bad:,} bad" if bad else "")
                on_unit(marker, progress)
                self._check_budget(total)
        if self.failures:
            raise _failure(self.failure_code, self.failures, len(self.source.units))
        self._check_budget(self.count("rows_in"))

    def publish(self) -> dict:
        """Every unit is done: clears what no longer belongs; returns the proof, which is to be written last."""
        return books.clear_and_prove(self.dest, list(self.markers.values()))

    def count(self, name: str) -> int:
        """The sum of one of the markers' numbers over all units that are done; asked often, so kept as they come."""
        return self._counts[name]

    def _add(self, marker: Marker) -> None:
        self.markers[marker.fingerprint] = marker
        self._counts.update({name: getattr(marker, name) for name in _COUNTED})

    @property
    def by_reason(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for marker in self.markers.values():
            total.update(marker.by_reason)
        return dict(total.most_common())

    @property
    def stage_seconds(self) -> dict[str, float]:
        total: Counter[str] = Counter()
        for marker in self.markers.values():
            total.update(marker.seconds)
        return {stage: round(seconds, 3) for stage, seconds in total.items()}

    def _check_budget(self, num_rows: int | None) -> None:
        """Of `num_rows` in all; None while that is not known (tars have no index)."""
        bad = self.count("rows_bad")
        if num_rows and bad and (bad > self.max_bad * num_rows or bad == num_rows):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.by_reason.items())
            raise BudgetError(
                f"{bad:,} of {num_rows:,} rows are bad ({reasons}), more than max_bad={self.max_bad:g} allows; "
                f"{self.dest}/dead_letter names each; mend the source or raise max_bad"
            )

    def _note_failure(self, answer: dict) -> None:
        self.failures.append(answer["failed"])
        self.failure_code = max(self.failure_code, answer["exit_code"])
        if len(self.failures) >= _MAX_FAILED_UNITS:
            raise _failure(self.failure_code, self.failures, len(self.source.units))

    def _stream(self) -> Iterator[dict]:
        """Results of the pending units, in the order in which they get done."""
        if not self.pending:
            return
        import ray

        descriptors = [
            {"unit": json.dumps({"unit": asdict(unit), "index": index, "fingerprint": fingerprint})}
            for fingerprint, (index, unit) in self.pending.items()
        ]
        results = ray.data.from_items(descriptors, override_num_blocks=len(descriptors)).map_batches(
            **self._placed(self.workers.count(len(descriptors))),
            batch_size=1,
            batch_format="numpy",
            num_cpus=self.workers.cpus,
            num_gpus=self.workers.gpus or None,
        )
        for row in results.iter_rows():
            yield json.loads(row["result"])

    def _placed(self, size: int) -> dict:
        """Actors for workers that load a model; the others run as tasks, in processes that are already warm."""
        from ray.data import ActorPoolStrategy, TaskPoolStrategy

        arguments = (self.worker, self.settings)
        if self.worker.keeps_state:
            return {"fn": UnitActor, "fn_constructor_args": arguments, "compute": ActorPoolStrategy(size=size)}
        return {"fn": _do_unit, "fn_args": arguments, "compute": TaskPoolStrategy(size=size)}


def _do_unit(batch: dict, worker: type[UnitWorker], settings: object) -> dict:
    return UnitActor(worker, settings)(batch)


class UnitActor:
    """A worker as Ray Data sees it: a descriptor in, a result out; a unit that fails does not end the job."""

    def __init__(self, worker: type[UnitWorker], settings: object):
        # Built with the first unit: what goes wrong is then that unit's failure, with our exit code.
        self._build, self._worker = functools.partial(worker, settings), None

    def __call__(self, batch: dict) -> dict:
        work = json.loads(str(batch["unit"][0]))
        unit = Unit(**{**work["unit"], "row_groups": tuple(work["unit"]["row_groups"])})
        try:
            self._worker = self._worker or self._build()
            answer = {"marker": asdict(self._worker.process(unit, work["index"], work["fingerprint"]))}
        except Exception as error:
            code = error.exit_code if isinstance(error, StylejobsError) else 1
            place = f"{unit.source_uri} {unit.row_groups if unit.kind == 'parquet' else unit.name}"
            answer = {"failed": f"{place}: {type(error).__name__}: {error}", "exit_code": code}
        return {"result": [json.dumps(answer)]}


def _failure(exit_code: int, failures: list[str], num_units: int) -> StylejobsError:
    error = InfrastructureError(
        f"{len(failures)} of {num_units} units failed:\n" + "\n".join(f"  {f}" for f in failures)
    )
    error.exit_code = exit_code
    return error
