"""The worker's side of a unit: read it, convert its rows, write one shard and its dead letters, then the marker.

Also runs without Ray: benchmarks and tests call `UnitWorker.process` directly.
"""

import base64
import hashlib
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from stylejobs.errors import RowError
from stylejobs.records.schema import DEAD_LETTER
from stylejobs.storage import locations
from stylejobs.storage.reading import UnitRows, read_unit
from stylejobs.storage.shards import encode_shard
from stylejobs.storage.sources import Unit
from stylejobs.storage.units import Marker, part_name, write_marker


@dataclass(frozen=True)
class WriteSettings:
    """What every worker needs to know; plain values, so that it travels.

    Attributes:
        dest: absolute URI of the dataset.
        carried_schema: columns that rows carry, as `to_text` gives them.
        max_bytes: encoded images above this are not read.
        row_group_bytes: of the shards written.
    """

    dest: str
    carried_schema: str
    max_bytes: int
    row_group_bytes: float


@dataclass
class Converted:
    """What a unit became: rows to write, and per bad row its number in the unit and its error."""

    table: pa.Table
    errors: dict[int, RowError] = field(default_factory=dict)


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


class UnitWorker(ABC):
    """Turns units into shards. Subclasses say what becomes of the rows.

    Attributes:
        keeps_state: building a worker is expensive, so that it should do many units.
    """

    keeps_state = False

    def __init__(self, settings: WriteSettings):
        self._settings = settings
        self._carried = schema_from_text(settings.carried_schema)

    @abstractmethod
    def convert(self, rows: UnitRows, stopwatch: Stopwatch) -> Converted:
        """Converts the rows of one unit; a bad row goes into `errors`, it never raises."""

    def process(self, unit: Unit, index: int, fingerprint: str) -> Marker:
        """Does one unit from reading to marker. Doing it again rewrites the same files with the same bytes."""
        stopwatch = Stopwatch()
        with stopwatch.stage("read"):
            rows = read_unit(unit, self._carried, self._settings.max_bytes)
        converted = self.convert(rows, stopwatch)
        name = part_name(index, fingerprint)
        with stopwatch.stage("write"):
            file, file_sha256, size = self._write("data", name, converted.table)
            dead_letter, _, _ = self._write("dead_letter", name, _dead_letters(rows, converted.errors))
        marker = Marker(
            fingerprint=fingerprint,
            index=index,
            file=file,
            file_sha256=file_sha256,
            dead_letter=dead_letter,
            rows_in=len(rows),
            rows_ok=len(rows) - len(converted.errors),
            rows_bad=len(converted.errors),
            by_reason=dict(Counter(error.reason for error in converted.errors.values())),
            bytes_in=unit.num_bytes,
            bytes_out=size,
            seconds={stage: round(seconds, 4) for stage, seconds in stopwatch.seconds.items()},
        )
        write_marker(self._settings.dest, marker)
        return marker

    def _write(self, folder: str, name: str, table: pa.Table) -> tuple[str | None, str | None, int]:
        if len(table) == 0:
            return None, None, 0
        data = encode_shard(table, self._settings.row_group_bytes)
        locations.write_atomic(locations.join(self._settings.dest, folder, name), data)
        return f"{folder}/{name}", hashlib.sha256(data).hexdigest(), len(data)


def _dead_letters(rows: UnitRows, errors: dict[int, RowError]) -> pa.Table:
    letters = [
        {
            "key": rows.keys[row],
            "source": rows.sources[row],
            "row_group": rows.positions[row][0],
            "row": rows.positions[row][1],
            "stage": error.stage,
            "reason": error.reason,
            "message": error.message,
            "attempt": 1,
        }
        for row, error in sorted(errors.items())
    ]
    return pa.Table.from_pylist(letters, schema=DEAD_LETTER)


def schema_to_text(schema: pa.Schema) -> str:
    """An Arrow schema as text, for descriptors."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_from_text(text: str) -> pa.Schema:
    """The inverse of `schema_to_text`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
