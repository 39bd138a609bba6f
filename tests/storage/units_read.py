"""Small sources, and units planned and read in one step, for the tests of storage."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.storage.reading import UnitRows, read_unit
from stylejobs.storage.sources import Source, plan_source


def read_all(place: Path | str, unit_bytes: float = 10**9, max_bytes: int = 10**9) -> list[UnitRows]:
    source = plan_source(str(place), unit_bytes)
    return [read_unit(unit, source.carried_schema, max_bytes) for unit in source.units]


def read_one(place: Path | str, **options: int) -> UnitRows:
    (rows,) = read_all(place, **options)
    return rows


def reread(source: Source, number: int = 0) -> UnitRows:
    """Reads what was planned before; the file may have changed since."""
    return read_unit(source.units[number], source.carried_schema, 10**9)


def noise(*sizes: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.bytes(size) for size in sizes]


def write_parquet(path: Path, **columns: object) -> None:
    """Two rows."""
    pq.write_table(pa.table({"image": [b"one", b"two"], **columns}), path)
