"""Parquet files planned into units, from their footers: each is read once, on threads, and let go when it is planned.

With a filter, row groups whose statistics exclude it are no part of any unit.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.errors import SourceError
from stylejobs.records.schema import find_image_column
from stylejobs.storage import filters, locations
from stylejobs.storage.descriptors import Source, Unit, tag_of
from stylejobs.storage.parquet_trust import check_schema

_FOOTER_THREADS = 16
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True)
class _FilePlan:
    """What is kept of one footer."""

    columns: list[str]
    carried: pa.Schema
    units: list[Unit]


def plan_parquet(
    uri: str, root: str, files: dict[str, dict], unit_bytes: float, image_column: str | None, where: filters.Where = ()
) -> Source:
    """Plans Parquet files.

    Args:
        uri: as the command names the source, for messages.
        files: what `locations.stat` says of each, by name within `root`.
        unit_bytes: source bytes of a unit, met as closely as row groups allow.
        image_column: the column with the encoded images; None finds it.
        where: see `stylejobs.storage.filters`.

    Raises:
        SourceError: a file is not whole, or has no images; columns do not agree; the filter can match nothing.
        StorageError: a file cannot be read.
    """

    def plan(item: tuple[str, dict]) -> _FilePlan:
        return _plan_file(root, *item, (unit_bytes, image_column, where))

    units: list[Unit] = []
    schemas: dict[pa.Schema, None] = {}  # most files of a source have the same one
    columns: set[str] = set()
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        for planned in pool.map(plan, files.items()):
            schemas.setdefault(planned.carried)
            columns.update(planned.columns)
            units += planned.units
    filters.check_columns(where, columns, uri)
    if not units:
        unfit = " that where= can match, as their statistics say" if where else ""
        raise SourceError(f"{uri}: its {len(files)} Parquet file(s) hold no rows{unfit}")
    return Source(uri, "parquet", units, _unify(uri, list(schemas)))


def _plan_file(root: str, name: str, info: dict, options: tuple[float, str | None, filters.Where]) -> _FilePlan:
    place = locations.join(root, name)
    unit_bytes, image_column, where = options
    footer = read_footer(place)
    schema = _arrow_schema(footer, place)
    column = find_image_column(schema, image_column, place)
    key = "key" if "key" in schema.names else None
    filters.check_types(where, schema, place)
    statistics = filters.Statistics(where, schema, footer)
    shared = {"image_column": column, "key_column": key, "where": tuple(where)}
    units = [
        Unit("parquet", place, name, tag_of(info), num_bytes, None if where else rows, groups, first_row, **shared)
        for groups, first_row, rows, num_bytes in _group_row_groups(footer, unit_bytes, statistics)
    ]
    carried = pa.schema([f for f in schema if f.name not in (column, key)], metadata=schema.metadata)
    return _FilePlan(schema.names, carried, units)


def _unify(uri: str, schemas: list[pa.Schema]) -> pa.Schema:
    try:
        carried = pa.unify_schemas([schema.remove_metadata() for schema in schemas])
    except pa.ArrowException as error:
        raise SourceError(f"{uri}: its Parquet files do not have the same columns: {error}") from error
    # A column that one file requires may be missing, thus null, in another.
    fields = [pa.field(field.name, plain_type(field.type)) for field in carried]
    return pa.schema(fields, metadata=schemas[0].metadata)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that rows are carried in: Arrow cannot take rows of views, so these become what they are views of."""
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)


def read_footer(uri: str) -> pq.FileMetaData:
    """The footer of a Parquet file: schema, row groups and sizes.

    Raises:
        SourceError: the file is truncated, damaged, not Parquet, or gone.
        StorageError: it cannot be read.
    """
    try:
        with locations.open_file(uri) as file:
            return pq.read_metadata(file)
    except FileNotFoundError:
        raise SourceError(f"{uri}: was there when the source was listed and is gone now") from None
    except _DAMAGE as error:
        raise _not_parquet(uri, error) from error


def _arrow_schema(footer: pq.FileMetaData, uri: str) -> pa.Schema:
    try:
        schema = footer.schema.to_arrow_schema()
    except _DAMAGE as error:
        raise _not_parquet(uri, error) from error
    check_schema(schema, uri)
    return schema


def _not_parquet(uri: str, error: Exception) -> SourceError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return SourceError(f"{uri}: not a whole Parquet file: {reason}; write it again or leave it out")


def _group_row_groups(
    footer: pq.FileMetaData, unit_bytes: float, statistics: filters.Statistics
) -> Iterator[tuple[tuple[int, int], int, int, int]]:
    """(first, last) row group, rows of the file before, rows and bytes of each unit of one file."""
    first, first_row, rows, num_bytes = 0, 0, 0, 0
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        is_out = statistics.exclude(group)
        size = 0 if is_out else sum(group.column(c).total_compressed_size for c in range(group.num_columns))
        if rows and (is_out or num_bytes + size > unit_bytes):
            yield (first, index), first_row, rows, num_bytes
            first, first_row, rows, num_bytes = index, first_row + rows, 0, 0
        if is_out:
            first, first_row = index + 1, first_row + group.num_rows
            continue
        rows += group.num_rows
        num_bytes += size
    if rows:
        yield (first, footer.num_row_groups), first_row, rows, num_bytes
