"""The worker of `retry=`: only the dead rows of a unit are done again, and what comes out is merged into its files.

The shard keeps its name and its order: what it holds afterwards is what it would have held if these rows had never
failed, up to the last bit of pixels that shared a forward pass with others. A crash between shard and marker leaves a
shard that is not the marker's; the unit is then done as a whole.
"""

import hashlib

import numpy as np
import pyarrow as pa

from stylejobs.engine.stylizer import Stylizer
from stylejobs.engine.writer import Converted, Stopwatch
from stylejobs.errors import RowError
from stylejobs.records.schema import DEAD_LETTER_ID
from stylejobs.storage import locations
from stylejobs.storage.markers import Marker
from stylejobs.storage.parquet_trust import read_dataset_table
from stylejobs.storage.unit_rows import UnitRows


def retry_part(marker: Marker, reasons: tuple[str, ...] | None) -> dict | None:
    """What an item's part says to a Retrier; None where the unit has no dead row of these reasons (None: of any)."""
    if not marker.rows_bad or (reasons is not None and not marker.by_reason.keys() & set(reasons)):
        return None
    kept = {"file": marker.file, "file_sha256": marker.file_sha256, "dead_letter": marker.dead_letter}
    return {"retry": {**kept, "reasons": reasons, "balance": marker.balance}}


class Retrier(Stylizer):
    """Does the dead rows of units again; the part of an item is that of `retry_part`."""

    def convert(self, rows: UnitRows, stopwatch: Stopwatch, part: dict | None = None) -> Converted:
        """The whole unit: what it holds already, and what its dead rows have become."""
        before = part["retry"]
        letters = self._read_letters(before)
        held = self._read_held(before)
        numbers = _find_rows(rows, letters)
        if held is None or numbers is None:
            return super().convert(rows, stopwatch, part)
        reasons = before["reasons"]
        picked = [row for row, letter in numbers.items() if reasons is None or letter["reason"] in reasons]
        made = super().convert(rows.select(picked), stopwatch, part)
        errors, attempts = {}, {}
        for row, letter in numbers.items():
            errors[row] = _as_error(letter)
            attempts[row] = letter["attempt"] + (row in picked)
        for number, row in enumerate(picked):
            if number in made.errors:
                errors[row] = made.errors[number]
            else:
                del errors[row], attempts[row]
        alive = [row for row in range(len(rows)) if row not in numbers]
        revived = [row for row in picked if row not in errors]
        table = _merge(held, alive, made.table, revived)
        return Converted(table, errors, _add(before["balance"], made.balance), attempts)

    def _read_letters(self, before: dict) -> list[dict]:
        place = locations.join(self._settings.dest, before["dead_letter"])
        return read_dataset_table(locations.read_bytes(place), place).to_pylist()

    def _read_held(self, before: dict) -> pa.Table | None:
        """The rows that the unit has; None where they are not Parquet, or not those of its marker."""
        if before["file"] is None or not before["file"].endswith(".parquet"):
            return None
        place = locations.join(self._settings.dest, before["file"])
        data = locations.read_bytes(place)
        if hashlib.sha256(data).hexdigest() != before["file_sha256"]:
            return None
        return read_dataset_table(data, place)


def _find_rows(rows: UnitRows, letters: list[dict]) -> dict[int, dict] | None:
    """The letters by their row's number in the unit; None where one has no row any more."""
    ids = zip(rows.keys, rows.sources, rows.positions, strict=True)
    number_of = {(key, source, *position): row for row, (key, source, position) in enumerate(ids)}
    numbers = {number_of.get(tuple(letter[name] for name in DEAD_LETTER_ID)): letter for letter in letters}
    return None if None in numbers else dict(sorted(numbers.items()))


def _as_error(letter: dict) -> RowError:
    error = RowError(letter["reason"], letter["message"])
    error.stage = letter["stage"]
    return error


def _merge(held: pa.Table, alive: list[int], made: pa.Table, revived: list[int]) -> pa.Table:
    """Both tables in the order of the source; each source row has as many rows in its table as any other there."""
    owners = [np.repeat(rows, len(table) // max(1, len(rows))) for table, rows in ((held, alive), (made, revived))]
    order = np.argsort(np.concatenate(owners), kind="stable")
    return pa.concat_tables([held.cast(made.schema), made]).take(pa.array(order, pa.int64())).combine_chunks()


def _add(one: dict[str, dict[str, int]], other: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    total = {label: dict(counts) for label, counts in one.items()}
    for label, counts in other.items():
        for style, count in counts.items():
            total.setdefault(label, {}).setdefault(style, 0)
            total[label][style] += count
    return total
