"""A few rows out of a source of any size: which units to look into, what is read of them, which rows are taken."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from stylejobs.errors import RowError
from stylejobs.storage.descriptors import Unit
from stylejobs.storage.unit_rows import UnitRows

_T = TypeVar("_T")
_OVERSAMPLED = 4  # files of which nothing but the name is known are read for each that is taken


def take_evenly(items: Sequence[_T], count: int) -> list[_T]:
    """At most `count` items, spread evenly, in order.

    >>> take_evenly("abcdefghij", 4), take_evenly("ab", 4)
    (['b', 'd', 'g', 'i'], ['a', 'b'])
    """
    count = min(count, len(items))
    return [items[(2 * index + 1) * len(items) // (2 * count)] for index in range(count)]


def spread_over_files(units: Sequence[Unit], count: int) -> list[Unit]:
    """At most `count` units out of as many source files as that allows: a small file counts as much as a large one."""
    by_file: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        by_file[file_of(unit)].append(unit)
    files = take_evenly(list(by_file.values()), count)
    share, rest = divmod(count, max(1, len(files)))
    return [unit for n, file in enumerate(files) for unit in take_evenly(file, share + (n < rest))]


def file_of(unit: Unit) -> str:
    """What counts as a unit's source file: its Parquet file or tar, the folder or the run of lines that it is."""
    return unit.source_uri if unit.kind in ("parquet", "tar") else unit.name


def narrow(unit: Unit, num_rows: int) -> Unit:
    """The part of a unit that is read for a sample of `num_rows` rows.

    Of Parquet its first row groups, as many as hold the rows; of files and lists some that are spread over it; of a tar
    all. Keys stay what they are in the whole unit.
    """
    if unit.kind == "parquet":
        first, last = unit.row_groups
        per_group = (unit.num_rows or num_rows) / (last - first)
        wanted = max(1, min(last - first, math.ceil(num_rows / max(1.0, per_group))))
        return replace(unit, row_groups=(first, first + wanted), num_rows=None)
    if unit.kind == "tar":
        return unit
    rows = take_evenly(range(len(unit.files)), _OVERSAMPLED * num_rows)
    return replace(
        unit,
        files=tuple(unit.files[row] for row in rows),
        labels={column: [values[row] for row in rows] for column, values in unit.labels.items()},
        num_rows=len(rows),
    )


def take_rows(rows: UnitRows, num_rows: int) -> UnitRows:
    """At most `num_rows` rows of all sizes: evenly by the length of their bytes, then in the order of the source."""
    by_size = sorted(range(len(rows)), key=lambda row: (_num_bytes(rows.images[row]), row))
    return rows.select(sorted(take_evenly(by_size, num_rows)))


def _num_bytes(image: bytes | RowError) -> int:
    return 0 if isinstance(image, RowError) else len(image)
