"""A unit of work read into memory: keys, encoded images and the columns that rows carry.

A row whose bytes cannot be had is not an error of the unit: its image is a `RowError`, to become a dead letter.
"""

import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.errors import DecodeError, RowError, SourceError
from stylejobs.storage import locations
from stylejobs.storage.sources import IMAGE_ENDINGS, Unit

_READ_THREADS = 8


@dataclass(frozen=True)
class UnitRows:
    """The rows of one unit, in source order; all lists and `carried` are aligned.

    Attributes:
        keys: the row's key, or one made of the file's name and the row's number.
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
        with locations.storage_errors("read", unit.source_uri):
            return readers[unit.kind](unit, carried_schema, max_bytes)
    except FileNotFoundError as error:
        raise SourceError(f"{unit.source_uri}: was there when the job was planned and is gone now") from error


def _read_parquet(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    filesystem, path = locations.split(unit.source_uri)
    with filesystem.open(path, "rb", cache_type="none") as file:
        try:
            parquet = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
            groups = range(*unit.row_groups)
            table = parquet.read_row_groups(list(groups))
            sizes = [parquet.metadata.row_group(group).num_rows for group in groups]
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"{unit.source_uri}: row groups {unit.row_groups} cannot be read: {error}") from error
    rows = range(unit.first_row, unit.first_row + table.num_rows)
    row_groups = [group for group, size in zip(groups, sizes, strict=True) for _ in range(size)]
    images, paths = _images(table[unit.image_column])
    stem = os.path.splitext(unit.name)[0]
    keys = [f"{stem}/{row}" for row in rows]
    if unit.key_column:
        given = table[unit.key_column].to_pylist()
        keys = [made if key is None else str(key) for key, made in zip(given, keys, strict=True)]
    return UnitRows(
        keys=keys,
        images=images,
        paths=[path or key for path, key in zip(paths, keys, strict=True)],
        positions=list(zip(row_groups, rows, strict=True)),
        sources=[unit.source_uri] * len(keys),
        carried=_carried(table, carried_schema),
    )


def _images(column: pa.ChunkedArray) -> tuple[list[bytes | RowError], list[str | None]]:
    missing = DecodeError("not_an_image", "the image column holds no bytes in this row")
    values = column.to_pylist()
    if pa.types.is_struct(column.type):
        paths = [(value or {}).get("path") for value in values]
        values = [(value or {}).get("bytes") for value in values]
    else:
        paths = [None] * len(values)
    return [missing if value is None else value for value in values], paths


def _carried(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The carried columns in the plan's order and types; a column that this file lacks is null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
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
    return _too_large(size, max_bytes) if size > max_bytes else locations.read_bytes(place)


def _too_large(size: int, max_bytes: int) -> RowError:
    return DecodeError("bomb", f"{size} bytes, more than limits.max_mb allows ({max_bytes} bytes)")


def _read_tar(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    samples = _group_samples(unit, max_bytes)
    stem = unit.name.split(".tar")[0].removesuffix(".tgz")
    keys = [f"{stem}/{name}" for name in samples]
    return UnitRows(
        keys=keys,
        images=[sample.image for sample in samples.values()],
        paths=[sample.path for sample in samples.values()],
        positions=[(None, row) for row in range(len(keys))],
        sources=[unit.source_uri] * len(keys),
        carried=pa.Table.from_pylist([sample.columns() for sample in samples.values()], schema=carried_schema),
    )


class _Sample:
    """The members of a tar that share a name up to its first dot."""

    def __init__(self, name: str):
        self.image: bytes | RowError = DecodeError("not_an_image", "the sample has no image member")
        self.path = name
        self.members: dict[str, bytes] = {}

    def columns(self) -> dict:
        known = {name: self.members.get(name) for name in ("txt", "cls", "json")}
        texts = {name: None if data is None else data.decode("utf-8", "replace") for name, data in known.items()}
        return {**texts, "members": [(ending, data) for ending, data in self.members.items() if ending not in known]}


def _group_samples(unit: Unit, max_bytes: int) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    for path, data in _members(unit, max_bytes):
        folder, _, base = path.rpartition("/")
        name, _, ending = base.partition(".")
        name = f"{folder}/{name}" if folder else name
        sample = samples.setdefault(name, _Sample(name))
        is_image = f".{ending.lower()}".endswith(IMAGE_ENDINGS)
        if is_image and isinstance(sample.image, RowError) and sample.path == name:
            sample.image, sample.path = data, path
        elif isinstance(data, bytes):
            sample.members[ending] = data
    return samples


def _members(unit: Unit, max_bytes: int) -> Iterator[tuple[str, bytes | RowError]]:
    """Regular members only: links and devices in a tar are never followed."""
    filesystem, path = locations.split(unit.source_uri)
    with filesystem.open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    if member.isfile():
                        too_large = member.size > max_bytes
                        yield (
                            member.name,
                            _too_large(member.size, max_bytes) if too_large else tar.extractfile(member).read(),
                        )
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(f"{unit.source_uri}: not a whole tar file: {error}") from error
