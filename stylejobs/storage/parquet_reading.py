"""Units of Parquet read into memory: only the row groups of the unit, only the rows that its filter wants."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.errors import DecodeError, ReadError, RowError, SourceError
from stylejobs.records.schema import find_image_column
from stylejobs.storage import filters, locations
from stylejobs.storage.descriptors import Unit
from stylejobs.storage.parquet_plan import plain_type
from stylejobs.storage.parquet_trust import check_inflation, check_schema
from stylejobs.storage.unit_rows import UnitRows, concat_rows, no_columns

_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)


def read_parquet(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    """The rows of a unit of Parquet; those of a row group that is damaged are bad rows, and no others.

    Raises:
        SourceError: the file is not Parquet any more, or other than planned.
    """
    try:
        return _read(unit, carried_schema)
    except _DamageError:
        groups = range(*unit.row_groups)
        return concat_rows([_read_group(unit, group, carried_schema) for group in groups], carried_schema)


class _DamageError(SourceError):
    """A row group cannot be read, though the footer can."""


def _read(unit: Unit, carried_schema: pa.Schema) -> UnitRows:
    try:
        table, positions = _read_row_groups(unit, carried_schema)
        images, paths = _images(table[unit.image_column])
        given = table[unit.key_column].to_pylist() if unit.key_column else [None] * len(table)
        carried = _carried(table, unit, carried_schema)
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise _DamageError(f"{unit.source_uri}: row groups {unit.row_groups} cannot be read: {error}") from error
    keys = [f"{unit.name}/{row}" if key is None else str(key) for key, (_, row) in zip(given, positions, strict=True)]
    return UnitRows(
        keys=keys,
        images=images,
        paths=[path or key for path, key in zip(paths, keys, strict=True)],
        positions=positions,
        sources=[unit.source_uri] * len(keys),
        carried=carried,
    )


def _read_group(unit: Unit, group: int, carried_schema: pa.Schema) -> UnitRows:
    """One row group of the unit. One that is damaged gives its rows all the same, by their numbers, without a picture
    and without the other columns: a filter that cannot be asked leaves none of them out."""
    with _open(unit) as parquet:
        sizes = [parquet.metadata.row_group(before).num_rows for before in range(unit.row_groups[0], group + 1)]
    first = unit.first_row + sum(sizes[:-1])
    num_rows = None if unit.where else sizes[-1]
    try:
        return _read(replace(unit, row_groups=(group, group + 1), first_row=first, num_rows=num_rows), carried_schema)
    except _DamageError as error:
        rows = range(first, first + sizes[-1])
        keys = [f"{unit.name}/{row}" for row in rows]
        return UnitRows(
            keys=keys,
            images=[ReadError("decode", str(error))] * len(keys),
            paths=keys,
            positions=[(group, row) for row in rows],
            sources=[unit.source_uri] * len(keys),
            carried=pa.table([pa.nulls(len(keys), field.type) for field in carried_schema], schema=carried_schema)
            if len(carried_schema)
            else no_columns(len(keys)),
        )


@contextmanager
def _open(unit: Unit) -> Iterator[pq.ParquetFile]:
    with locations.open_file(unit.source_uri, cache_type="none") as file:
        try:
            parquet = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
            check_schema(parquet.schema_arrow, unit.source_uri)
        except FileNotFoundError:
            raise
        except _DAMAGE as error:
            raise SourceError(f"{unit.source_uri}: row groups {unit.row_groups} cannot be read: {error}") from error
        yield parquet


def _read_row_groups(unit: Unit, carried_schema: pa.Schema) -> tuple[pa.Table, list[tuple[int, int]]]:
    """The rows of the unit that match its filter, and for each its row group and its number in the file."""
    with _open(unit) as parquet:
        # As the plan had it: `schema_arrow` differs from it for UUID and JSON columns of other writers.
        _check_columns(parquet.metadata.schema.to_arrow_schema(), unit, carried_schema)
        if unit.row_groups[1] > parquet.num_row_groups:
            raise SourceError(
                f"{unit.source_uri}: row groups {unit.row_groups} cannot be read: it has {parquet.num_row_groups} now; "
                "run the command again"
            )
        check_inflation(parquet.metadata, range(*unit.row_groups), unit.source_uri)
        groups = np.arange(*unit.row_groups)
        sizes = np.array([parquet.metadata.row_group(int(group)).num_rows for group in groups], int)
        num_rows = int(sizes.sum())
        is_taken = _matches(parquet, unit, num_rows)
        group_of_row = np.repeat(groups, sizes)
        read = np.unique(group_of_row[is_taken])
        table = parquet.read_row_groups(read.tolist())
    if not len(table) == np.isin(group_of_row, read).sum() or unit.num_rows not in (None, num_rows):
        raise SourceError(
            f"{unit.source_uri}: row groups {unit.row_groups} hold {len(table)} rows; their footer says {num_rows}, "
            f"the plan {unit.num_rows}; write the file again, or run the command again if it has changed"
        )
    if not is_taken.all():
        table = table.filter(pa.array(is_taken[np.isin(group_of_row, read)]))
    rows = unit.first_row + np.flatnonzero(is_taken)
    return table, list(zip(group_of_row[is_taken].tolist(), rows.tolist(), strict=True))


def _matches(parquet: pq.ParquetFile, unit: Unit, num_rows: int) -> np.ndarray:
    """Which rows of the unit match its filter, bool [num_rows]."""
    if not unit.where:
        return np.ones(num_rows, bool)
    columns = [column for column, _ in unit.where]
    found = filters.find_matches(unit.where, parquet.read_row_groups(list(range(*unit.row_groups)), columns=columns))
    if len(found) != num_rows:
        raise SourceError(
            f"{unit.source_uri}: row groups {unit.row_groups} hold {len(found)} rows in {', '.join(columns)}; their "
            f"footer says {num_rows}; write the file again, or run the command again if it has changed"
        )
    return found.to_numpy()


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
        return no_columns(len(table))
    return pa.table(columns, schema=schema)
