"""The worker's side of a unit: read it, convert its rows, write one shard and its dead letters, then the marker.

Also runs without Ray: benchmarks and tests call `UnitWorker.process` directly.
"""

import base64
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from stylejobs.engine.stream import Worker, WorkItem
from stylejobs.errors import RowError
from stylejobs.records.schema import DEAD_LETTER
from stylejobs.storage import locations
from stylejobs.storage.markers import Marker, write_marker
from stylejobs.storage.reading import UnitRows, check_unchanged, read_unit
from stylejobs.storage.shards import encode_shard
from stylejobs.storage.sinks import Written, write_part
from stylejobs.storage.sources import Unit
from stylejobs.storage.units import part_name


@dataclass(frozen=True)
class WriteSettings:
    """What every worker needs to know; plain values, so that it travels.

    Attributes:
        dest: absolute URI of the dataset.
        carried_schema: columns that rows carry, as `to_text` gives them.
        max_bytes: encoded images above this are not read.
        row_group_bytes: of the shards written.
        sink: how rows are kept, see `stylejobs.storage.sinks`; dead letters are always Parquet.
    """

    dest: str
    carried_schema: str
    max_bytes: int
    row_group_bytes: float
    sink: str = "parquet"


@dataclass
class Converted:
    """What a unit became: rows to write, its bad rows by their number, rows written by class and style.

    Attributes:
        attempts: how often a bad row was tried, where that is more than once.
    """

    table: pa.Table
    errors: dict[int, RowError] = field(default_factory=dict)
    balance: dict[str, dict[str, int]] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)


class Stopwatch:
    """Seconds by stage, added up over threads."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - started


class UnitWorker(Worker):
    """Turns units into shards. Subclasses say what becomes of the rows."""

    def __init__(self, settings: WriteSettings):
        self._settings = settings
        self._carried = schema_from_text(settings.carried_schema)

    @abstractmethod
    def convert(self, rows: UnitRows, stopwatch: Stopwatch, part: dict | None = None) -> Converted:
        """Converts the rows of one unit, or the `part` of it that an item is; a bad row goes into `errors`."""

    @property
    def learned(self) -> dict[str, int]:
        """What the workers that come after this one should know, as names and numbers."""
        return {}

    def do(self, item: WorkItem) -> dict:
        return {"marker": asdict(self.process(item.unit, item.index, item.fingerprint, item.part))}

    def process(self, unit: Unit, index: int, fingerprint: str, part: dict | None = None) -> Marker:
        """Does one unit from reading to marker. Doing it again rewrites the same files with the same bytes."""
        stopwatch = Stopwatch()
        with stopwatch.stage("read"):
            rows = read_unit(unit, self._carried, self._settings.max_bytes)
            check_unchanged(unit)
        converted = self.convert(rows, stopwatch, part)
        name = part_name(index, fingerprint)
        with stopwatch.stage("write"):
            written = self._write(name, converted.table)
            dead_letter = self._write_dead_letters(name, _dead_letters(rows, converted))
        marker = Marker(
            fingerprint=fingerprint,
            index=index,
            file=written.file,
            file_sha256=written.file_sha256,
            dead_letter=dead_letter,
            rows_in=len(rows),
            rows_ok=len(rows) - len(converted.errors),
            rows_bad=len(converted.errors),
            rows_out=len(converted.table),
            by_reason=dict(Counter(error.reason for error in converted.errors.values())),
            bytes_in=unit.num_bytes,
            bytes_out=written.num_bytes,
            seconds={stage: round(seconds, 4) for stage, seconds in stopwatch.seconds.items()},
            balance=converted.balance,
            learned=self.learned,
        )
        write_marker(self._settings.dest, marker)
        return marker

    def _write(self, name: str, table: pa.Table) -> Written:
        s = self._settings
        return write_part(s.sink, s.dest, name.removesuffix(".parquet"), table, s.row_group_bytes)

    def _write_dead_letters(self, name: str, letters: pa.Table) -> str | None:
        if len(letters) == 0:
            return None
        data = encode_shard(letters, self._settings.row_group_bytes)
        locations.write_atomic(locations.join(self._settings.dest, "dead_letter", name), data)
        return f"dead_letter/{name}"


def _dead_letters(rows: UnitRows, converted: Converted) -> pa.Table:
    letters = [
        {
            "key": rows.keys[row],
            "source": rows.sources[row],
            "row_group": rows.positions[row][0],
            "row": rows.positions[row][1],
            "stage": error.stage,
            "reason": error.reason,
            "message": error.message,
            "attempt": converted.attempts.get(row, 1),
        }
        for row, error in sorted(converted.errors.items())
    ]
    return pa.Table.from_pylist(letters, schema=DEAD_LETTER)


def schema_to_text(schema: pa.Schema) -> str:
    """An Arrow schema as text, for descriptors."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_from_text(text: str) -> pa.Schema:
    """The inverse of `schema_to_text`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
