"""A job over units: what is done is skipped, the rest goes through Ray Data's streaming executor, exactly once.

Only unit descriptors and unit results pass through Ray; pixels never leave the actor that decoded them.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from stylejobs.engine import command
from stylejobs.engine.budget import Budget, guess_rows
from stylejobs.engine.metrics import record, record_unit
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.stream import Answer, Workers, WorkItem, stream
from stylejobs.engine.writer import UnitWorker
from stylejobs.errors import (
    InfrastructureError,
    PartialError,
    SourceError,
    StorageError,
    StylejobsError,
)
from stylejobs.storage import lease, locations
from stylejobs.storage import units as books
from stylejobs.storage.markers import Marker, Markers
from stylejobs.storage.sources import Source

_MAX_FAILED_UNITS = 8
# Units that failed with nothing done between them, or the time [s] between the first and the last: storage is away.
# Each has asked again and again, for a minute if there is an answer, for three if there is none.
_MAX_AWAY_IN_A_ROW, _MAX_AWAY_SECONDS = 3, 120.0
_COUNTED = ("rows_in", "rows_ok", "rows_bad", "rows_out", "bytes_in", "bytes_out")


@dataclass
class UnitJob:
    """One job: its source, what its output is a function of, and who does the units.

    Attributes:
        identity: goes, with the unit itself, into every fingerprint; what `dest` is refused for when it differs.
        worker: class of the workers, built once an actor from `settings`.
        budget: how many rows may be bad.
        parts: what is made of every unit, an item each; a part is a function of its own words, see the worker.
        deadline: when the job should have stopped, in seconds since the epoch [s].
        counted_as: the verb in metrics. Units that are done again count there as a whole, so these go apart.
        is_storage_away: it has ended for that; each question more would be answered after minutes, if at all.
    """

    verb: str
    dest: str
    source: Source
    identity: dict
    worker: type[UnitWorker]
    settings: object
    budget: Budget
    workers: Workers = field(default_factory=Workers)
    parts: Sequence[dict] = ({},)
    deadline: float | None = None
    markers: dict[str, Marker] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    failure_code: int = 1
    skipped: int = 0
    is_storage_away: bool = False

    def __post_init__(self) -> None:
        shared = books.digest(self.identity)
        self.work: dict[str, WorkItem] = {}
        for unit in self.source.units:
            unit_identity = unit.identity()
            for part in self.parts:
                fingerprint = books.digest([shared, unit_identity, *([part] if part else [])])
                self.work[fingerprint] = WorkItem(unit, len(self.work), fingerprint, part)
        self.pending = dict(self.work)
        self.counted_as = self.verb
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._balance: Counter[tuple[str, str]] = Counter()
        self._held = ExitStack()
        self._away_in_a_row: list[float] = []

    def open(self, plan: dict) -> None:
        """Takes `dest` for this job, or refuses; finds out what is done already."""
        if locations.is_within(self.dest, self.source.uri) or locations.is_within(self.source.uri, self.dest):
            raise SourceError(f"source={self.source.uri} and dest={self.dest}: one lies in the other; keep them apart")
        books.check_dest(self.dest, self.identity)
        self._lease = self._held.enter_context(lease.hold(self.dest, self.verb))
        self._released_by_command = command.at_end(self._held.close)
        books.open_books(self.dest, self.identity, plan)
        self._books = Markers(self.dest)
        for marker in self._books.read(self.pending).values():
            self._add(marker)
        self._books.compact()
        self.skipped = len(self.markers)
        self.pending = {name: item for name, item in self.pending.items() if name not in self.markers}

    def do_again(self, choose: Callable[[Marker], dict | None]) -> None:
        """Takes up units that are done, and no others; `choose` adds to the part of those that it wants."""
        self.pending, self.counted_as = {}, "retry"
        for name, marker in list(self.markers.items()):
            more = choose(marker)
            if more is not None:
                self.pending[name] = replace(self.work[name], part={**self.work[name].part, **more})
                self._count(self.markers.pop(name), -1)
        self.skipped = len(self.markers)

    def release(self, at_once: bool = False) -> None:
        """Gives `dest` free, unless a command is running, which does so when it has written its result.

        Args:
            at_once: also then, for a `dest` that is about to be deleted.
        """
        if at_once or not self._released_by_command:
            self._held.close()

    def run(self, on_unit: Callable[[Marker, JobProgress], None]) -> None:
        """Does the units that are left; `on_unit` sees each as it is done.

        Raises:
            BudgetError: more rows are bad than the budget allows.
            InfrastructureError: units failed as a whole; the message names them.
            PartialError: the deadline has come.
        """
        total = None if self.source.num_rows is None else self.source.num_rows * len(self.parts)
        with JobProgress(self.verb, total, "images", done=self.count("rows_in")) as progress:
            self._check_budget(total)
            if self.pending:
                books.withdraw_success(self.dest)
            for answer in self._answers():
                if answer.failure:
                    self._note_failure(answer)
                if answer.value is None:
                    continue
                marker = Marker(**answer.value["marker"])
                self._away_in_a_row.clear()
                self._add(marker)
                self._books.add(marker)
                record_unit(self.counted_as, marker, answer.seconds)
                record("units_left", len(self.work) - len(self.markers), verb=self.counted_as)
                bad = self.count("rows_bad")
                progress.advance(marker.rows_in, f"{bad:,} bad" if bad else "")
                on_unit(marker, progress)
                self._check_budget(total)
        if self.failures:
            raise self._failure()
        if left := len(self.work) - len(self.markers):
            raise PartialError(f"deadline: {left:,} of {len(self.work):,} units are left; what is done is whole")
        self._check_budget(self.count("rows_in"))

    def _answers(self) -> Iterator[Answer]:
        """Of the pending items, in the order in which they get done."""
        if not self.pending:
            return
        for answer in stream(list(self.pending.values()), self.worker, self.settings, self.workers, self.deadline):
            if self._lease.lost:
                raise InfrastructureError(f"dest={self.dest} has been taken over by another job: {self._lease.lost}")
            yield answer

    def publish(self) -> dict:
        """Every unit is done: clears what no longer belongs; returns the proof, which is to be written last."""
        return books.clear_and_prove(self.dest, self._books, list(self.markers.values()))

    def count(self, name: str) -> int:
        """The sum of one of the markers' numbers over all units that are done; asked often, so kept as they come."""
        return self._counts[name]

    def _add(self, marker: Marker) -> None:
        self.markers[marker.fingerprint] = marker
        self._count(marker, 1)

    def _count(self, marker: Marker, sign: int) -> None:
        balance = {(label, style): n for label, by in marker.balance.items() for style, n in by.items()}
        held = {name: getattr(marker, name) for name in _COUNTED}
        for total, counts in ((self._counts, held), (self._reasons, marker.by_reason), (self._balance, balance)):
            for name, count in counts.items():
                total[name] += sign * count

    @property
    def learned(self) -> dict[str, int]:
        """The least that any worker has noted under each name."""
        noted = (item for marker in self.markers.values() for item in marker.learned.items())
        least: dict[str, int] = {}
        for name, number in noted:
            least[name] = min(number, least.get(name, number))
        return least

    @property
    def balance(self) -> dict[str, dict[str, int]]:
        """Rows written by class and style, where the source has classes."""
        balance: dict[str, dict[str, int]] = {}
        for (label, style), count in sorted(self._balance.items()):
            balance.setdefault(label, {})[style] = count
        return balance

    @property
    def by_reason(self) -> dict[str, int]:
        """Bad rows by reason, the most frequent first."""
        return {reason: count for reason, count in self._reasons.most_common() if count}

    @property
    def stage_seconds(self) -> dict[str, float]:
        total: Counter[str] = Counter()
        for marker in self.markers.values():
            total.update(marker.seconds)
        return {stage: round(seconds, 3) for stage, seconds in total.items()}

    def _check_budget(self, num_rows: int | None) -> None:
        if num_rows is None:
            total = len(self.parts) * sum(unit.num_bytes for unit in self.source.units)
            num_rows = guess_rows(self.count("rows_in"), self.count("bytes_in"), total)
        self.budget.check(self.by_reason, num_rows, self.dest)

    def _note_failure(self, answer: Answer) -> None:
        self.failures.append(answer.failure)
        record("units", verb=self.counted_as, outcome="failed")
        self.failure_code = max(self.failure_code, answer.exit_code)
        self.is_storage_away = self._is_away(answer)
        if len(self.failures) >= _MAX_FAILED_UNITS or self.is_storage_away:
            raise self._failure()

    def _is_away(self, answer: Answer) -> bool:
        """Whether this failure says that storage is away, rather than that it was for a moment."""
        if answer.exit_code != StorageError.exit_code:
            return False
        self._away_in_a_row.append(time.monotonic())
        lasted = self._away_in_a_row[-1] - self._away_in_a_row[0]
        return len(self._away_in_a_row) >= _MAX_AWAY_IN_A_ROW or lasted >= _MAX_AWAY_SECONDS

    def _failure(self) -> StylejobsError:
        lines = "\n".join(f"  {failure}" for failure in self.failures)
        error = InfrastructureError(f"{len(self.failures)} of {len(self.work)} units failed:\n{lines}")
        error.exit_code = self.failure_code
        return error
