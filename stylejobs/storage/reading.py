"""A unit of work read into memory: keys, encoded images and the columns that rows carry.

A row whose bytes cannot be had is not an error of the unit: its image is a `RowError`, to become a dead letter.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from stylejobs.errors import ReadError, RowError, SourceError
from stylejobs.storage import locations
from stylejobs.storage.descriptors import Unit, tag_of
from stylejobs.storage.lists import place_of
from stylejobs.storage.parquet_reading import read_parquet
from stylejobs.storage.sources import tag_of_files
from stylejobs.storage.tars import read_samples, too_large
from stylejobs.storage.unit_rows import UnitRows, no_columns

__all__ = ["UnitRows", "check_unchanged", "read_unit"]

_READ_THREADS = 8


def read_unit(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    """Reads a unit. Images above `max_bytes` are not read (files, lists, tars) and give reason `bomb`.

    Of Parquet with a filter, the columns that it names are read first; of row groups in which no row matches, nothing
    else is read.

    Raises:
        SourceError: the file is gone, has changed its columns, or is corrupt.
        StorageError: the storage cannot be reached.
    """
    readers = {"parquet": read_parquet, "tar": _read_tar, "files": _read_files, "list": _read_list}
    try:
        return readers[unit.kind](unit, carried_schema, max_bytes)
    except FileNotFoundError as error:
        raise SourceError(f"{error}: was there when the job was planned and is gone now") from error


def check_unchanged(unit: Unit) -> None:
    """Refuses what has been read if the source is not what was planned any more; lists are not asked.

    Raises:
        SourceError: a file has been replaced or is gone.
    """
    try:
        if unit.kind == "files":
            tag = tag_of_files({name: locations.stat(locations.join(unit.source_uri, name)) for name in unit.files})
        elif unit.kind == "list":
            return
        else:
            tag = tag_of(locations.stat(unit.source_uri))
    except FileNotFoundError as error:
        raise SourceError(f"{error}: was there when the job was planned and is gone now") from error
    if tag != unit.tag:
        raise SourceError(
            f"{unit.source_uri}: was replaced while the job ran; run the command again, which does its units anew"
        )


def _read_files(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    places = [locations.join(unit.source_uri, name) for name in unit.files]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        images = list(pool.map(lambda place: _read_file(place, max_bytes), places))
    return _file_rows(unit, carried_schema, places, images)


def _file_rows(unit: Unit, carried_schema: pa.Schema, places: list[str], images: list[bytes | RowError]) -> UnitRows:
    return UnitRows(
        keys=list(unit.files),
        images=images,
        paths=list(unit.files),
        positions=[(None, None)] * len(places),
        sources=places,
        carried=pa.table(dict(unit.labels), schema=carried_schema) if unit.labels else no_columns(len(places)),
    )


def _read_file(place: str, max_bytes: int) -> bytes | RowError:
    filesystem, path = locations.split(place)
    if locations.is_local(filesystem) and os.path.islink(path) and not os.path.isfile(path):
        return ReadError("not_an_image", f"{place}: a link that leads to no plain file")
    size = locations.stat(place)["size"]
    if size > max_bytes:
        return too_large(size, max_bytes)
    # What the kernel makes up has no size, and may have no end.
    return locations.read_bytes(place) if size else b""


def _read_list(unit: Unit, carried_schema: pa.Schema, max_bytes: int) -> UnitRows:
    """What a line names need not be there: then its row is bad, and no other."""
    places = [locations.absolute(place_of(unit.source_uri, uri)) for uri in unit.files]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        images = list(pool.map(lambda place: _read_listed(place, max_bytes), places))
    return _file_rows(unit, carried_schema, places, images)


def _read_listed(place: str, max_bytes: int) -> bytes | RowError:
    filesystem, path = locations.split(place)
    # Devices and pipes have no end.
    if locations.is_local(filesystem) and not os.path.isfile(path):
        what = "not a plain file" if os.path.exists(path) else "nothing is there"
        return ReadError("not_an_image", f"{place}: {what}")
    try:
        return _read_file(place, max_bytes)
    except FileNotFoundError:
        return ReadError("not_an_image", f"{place}: nothing is there")


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
