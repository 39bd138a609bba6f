"""A unit of work read into memory: keys, encoded images and the columns that rows carry.

A row whose bytes cannot be had is not an error of the unit: its image is a `RowError`, to become a dead letter.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.errors import DecodeError, RowError, SourceError
from stylejobs.records.schema import find_image_column
from stylejobs.storage import locations
from stylejobs.storage.sources import Unit, plain_type
from stylejobs.storage.tars import read_samples, too_large

_READ_THREADS = 8


@dataclass(frozen=True)
class UnitRows:
    """The rows of one unit, in source order; all lists and `carried` are aligned.

    Attributes:
        keys: the row's key; without one, the name of its image file, `file.parquet/row` with the row's number in the
            file, or for tars `shard/sample`, where the shard is the tar's name without `.tar` (other endings stay, so
            that `a.tar` and `a.tgz` have different keys).
        images: encoded bytes, or why there are none.
        paths: name of the picture's file where the source has one, else the key.
        positions: (row group, row within the file), (None, None) for plain files.
        sources: URI of the file that the row came from.
        carried: the source's other columns.
    """

    keys: list[str]
    images: list[bytes | RowError]
    paths: list[str]
    positions: list[tuple[int | None, int | None]]
    sources: list[str]
    carried: pa.Table

    def __len__(self) -> int:
        return len(self.keys)


def read_unit(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    """Reads a unit. Images above `max_bytes` are not read (files, tars) and give reason `bomb`.

    Raises:
        SourceError: the file is gone, has changed its columns, or is corrupt.
        StorageError: the storage cannot be reached.
    """
    readers = {"parquet": _read_parquet, "tar": _read_tar, "files": _read_files}
    try:
        return readers[unit.kind](unit, carried_schema, max_bytes)
    except FileNotFoundError as error:
        raise SourceError(f"{error}: was there when the job was planned and is gone now") from error


def _read_parquet(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    try:
        table, row_groups = _read_row_groups(unit, carried_schema)
        images, paths = _images(table[unit.image_column])
        given = table[unit.key_column].to_pylist() if unit.key_column else [None] * len(table)
        carried = _carried(table, unit, carried_schema)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{unit.source_uri}: row groups {unit.row_groups} cannot be read: {error}") from error
    rows = range(unit.first_row, unit.first_row + len(table))
    keys = [f"{unit.name}/{row}" if key is None else str(key) for key, row in zip(given, rows, strict=True)]
    return UnitRows(
        keys=keys,
        images=images,
        paths=[path or key for path, key in zip(paths, keys, strict=True)],
        positions=list(zip(row_groups, rows, strict=True)),
        sources=[unit.source_uri] * len(keys),
        carried=carried,
    )


def _read_row_groups(unit: Unit, carried_schema: pa.Schema) -> tuple[pa.Table, list[int]]:
    """The rows of the unit, and for each its row group."""
    with locations.open_file(unit.source_uri, cache_type="none") as file:
        parquet = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
        # As the plan had it: `schema_arrow` differs from it for UUID and JSON columns of other writers.
        _check_columns(parquet.metadata.schema.to_arrow_schema(), unit, carried_schema)
        groups = range(*unit.row_groups)
        table = parquet.read_row_groups(list(groups))
        sizes = [parquet.metadata.row_group(group).num_rows for group in groups]
    if not len(table) == sum(sizes) == unit.num_rows:
        raise SourceError(
            f"{unit.source_uri}: row groups {unit.row_groups} hold {len(table)} rows; their footer says {sum(sizes)}, "
            f"the plan {unit.num_rows}; write the file again, or run the command again if it has changed"
        )
    return table, [group for group, size in zip(groups, sizes, strict=True) for _ in range(size)]


def _check_columns(schema: pa.Schema, unit: Unit, carried_schema: pa.Schema) -> None:
    """A file that was written again since the plan may have other columns, which must not pass for the planned."""
    find_image_column(schema, unit.image_column, unit.source_uri)
    types = dict(zip(schema.names, schema.types, strict=True))
    changed = [] if unit.key_column in (None, *types) else [f"{unit.key_column} (gone)"]
    for field in carried_schema:
        found = pa.null() if _is_own(field.name, unit) else plain_type(types.get(field.name, pa.null()))
        if found not in (field.type, pa.null()):
            changed.append(f"{field.name} (was {field.type}, is {found})")
    if len(types) < len(schema.names):
        changed.append("several columns have the same name")
    if changed:
        raise SourceError(
            f"{unit.source_uri}: its columns have changed since the job was planned: {', '.join(changed)}; "
            "run the command again"
        )


def _is_own(name: str, unit: Unit) -> bool:
    """Whether a column of the unit's file is its image or key, though another file may carry one of that name."""
    return name in (unit.image_column, unit.key_column)


def _images(column: pa.ChunkedArray) -> tuple[list[bytes | RowError], list[str | None]]:
    missing = DecodeError("not_an_image", "the image column holds no bytes in this row")
    values = column.to_pylist()
    if pa.types.is_struct(column.type):
        paths = [(value or {}).get("path") for value in values]
        values = [(value or {}).get("bytes") for value in values]
    else:
        paths = [None] * len(values)
    return [missing if value is None else value for value in values], paths


def _carried(table: pa.Table, unit: Unit, schema: pa.Schema) -> pa.Table:
    """The carried columns in the plan's order and types; a column that this file lacks is null."""
    found = {name for name in table.column_names if not _is_own(name, unit)}
    columns = [
        table[field.name].cast(field.type) if field.name in found else pa.nulls(len(table), field.type)
        for field in schema
    ]
    if not columns:
        return _no_columns(len(table))
    return pa.table(columns, schema=schema)


def _no_columns(num_rows: int) -> pa.Table:
    """A table of no columns that still knows its length."""
    return pa.table({"row": pa.nulls(num_rows)}).select([])


def _read_files(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    places = [locations.join(unit.source_uri, name) for name in unit.files]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        images = list(pool.map(lambda place: _read_file(place, max_bytes), places))
    carried = pa.table(dict(unit.labels), schema=carried_schema) if unit.labels else _no_columns(len(places))
    return UnitRows(
        keys=list(unit.files),
        images=images,
        paths=list(unit.files),
        positions=[(None, None)] * len(places),
        sources=places,
        carried=carried,
    )


def _read_file(place: str, max_bytes: int) -> bytes | RowError:
    size = locations.stat(place)["size"]
    return too_large(size, max_bytes) if size > max_bytes else locations.read_bytes(place)


def _read_tar(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    samples = read_samples(unit.source_uri, max_bytes)
    shard = unit.name.removesuffix(".tar")
    return UnitRows(
        keys=[f"{shard}/{sample.name}" for sample in samples],
        images=[sample.image for sample in samples],
        paths=[sample.path for sample in samples],
        positions=[(None, row) for row in range(len(samples))],
        sources=[unit.source_uri] * len(samples),
        carried=pa.Table.from_pylist([sample.columns() for sample in samples], schema=carried_schema),
    )
