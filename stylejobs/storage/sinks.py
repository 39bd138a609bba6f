"""Where a unit's pictures go: `sink=parquet`, `webdataset`, `files` or `null`; written, found again, and read back.

    parquet     data/part-<nnnnn>-<fingerprint12>.parquet   rows with their pictures
    webdataset  data/part-<nnnnn>-<fingerprint12>.tar       a picture and a .json with its lineage for each row
    files       data/<tree of the key>/<name>-v<variant>-<fingerprint12>-<row>.<ending>
                lineage/part-<nnnnn>-<fingerprint12>.parquet: every column but `image`, and `file`, the picture's place
    null        nothing: what is left of a job's time is reading, decoding, the generator and encoding

A picture's name holds the fingerprint of its unit and its row in it: two rows never meet in one file, also not on file
systems for which A and a are the same, a retry writes the same names, and whose a picture is can be seen from its name.
"""

import base64
import hashlib
import io
import json
import math
import re
import tarfile
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from stylejobs.errors import RowError, SourceError
from stylejobs.records.schema import declared_features
from stylejobs.storage import locations
from stylejobs.storage.descriptors import IMAGE_ENDINGS
from stylejobs.storage.picture_names import owner_of, picture_name
from stylejobs.storage.shards import encode_shard, read_shard
from stylejobs.storage.tars import read_samples

SINKS = ("parquet", "webdataset", "files", "null")

_WRITE_THREADS = 8
_FOLDERS = ("data", "lineage", "dead_letter")
_ANY_SIZE = 2**62


@dataclass(frozen=True)
class Written:
    """What a unit left: its file relative to `dest` (None for none), the digest of that, and all bytes written."""

    file: str | None = None
    file_sha256: str | None = None
    num_bytes: int = 0


def write_part(sink: str, dest: str, part: str, table: pa.Table, row_group_bytes: float) -> Written:
    """Writes the stylized rows of one unit; again, it writes the same bytes under the same names.

    Args:
        part: `part-<nnnnn>-<fingerprint12>`.
        table: with columns `image` struct<bytes, path>, `key` and `variant`.
        row_group_bytes: see `encode_shard`.

    Raises:
        StorageError: `dest` cannot be written.
    """
    if len(table) == 0 or sink == "null":
        return Written()
    if sink == "parquet":
        return _write(dest, f"data/{part}.parquet", encode_shard(table, row_group_bytes))
    names = _name_pictures(part, table)
    if sink == "webdataset":
        return _write(dest, f"data/{part}.tar", _encode_tar(names, table))
    return _write_files(dest, part, names, table, row_group_bytes)


def _write(dest: str, file: str, data: bytes) -> Written:
    locations.write_atomic(locations.join(dest, file), data)
    return Written(file, hashlib.sha256(data).hexdigest(), len(data))


def _name_pictures(part: str, table: pa.Table) -> list[tuple[str, str]]:
    """For each row the name of its picture, safe to be a path, and the ending."""
    fingerprint12 = part.rpartition("-")[2]
    columns = (table["key"], table["variant"], pc.struct_field(table["image"], "path"))
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return [
        (picture_name(key, variant, fingerprint12, row), _ending(path)) for row, (key, variant, path) in enumerate(rows)
    ]


def _ending(path: str) -> str:
    ending = path.rpartition(".")[2].lower()
    return ending if f".{ending}" in IMAGE_ENDINGS else "img"


def _encode_tar(names: list[tuple[str, str]], table: pa.Table) -> bytes:
    """Samples in the order of rows, nothing of this machine in their headers.

    Readers take a sample's name to end at its first dot, so the names have none, nor have their folders.
    """
    sink = io.BytesIO()
    images = pc.struct_field(table["image"], "bytes")
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for (name, ending), image, lineage in zip(names, images, _lineage(table), strict=True):
            stem = name.replace(".", "_")
            text = json.dumps(_to_plain(lineage), ensure_ascii=False, allow_nan=False).encode()
            for path, data in ((f"{stem}.{ending}", image.as_py()), (f"{stem}.json", text)):
                member = tarfile.TarInfo(path)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def _lineage(table: pa.Table) -> list[dict]:
    return table.drop_columns(["image"]).to_pylist()


def _to_plain(value: object) -> object:
    """A value that JSON has: bytes become base64, numbers that are none become null, the rest what it prints as."""
    if isinstance(value, dict):
        return {str(name): _to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _write_files(
    dest: str, part: str, names: list[tuple[str, str]], table: pa.Table, row_group_bytes: float
) -> Written:
    files = [f"data/{name}.{ending}" for name, ending in names]
    images = pc.struct_field(table["image"], "bytes").to_pylist()
    with ThreadPoolExecutor(_WRITE_THREADS) as pool:
        list(pool.map(lambda file, data: locations.write_atomic(locations.join(dest, file), data), files, images))
    features = {name: feature for name, feature in declared_features(table.schema).items() if name != "image"}
    lineage = table.drop_columns(["image"]).add_column(0, pa.field("file", pa.string()), pa.array(files, pa.string()))
    declared = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    written = _write(
        dest, f"lineage/{part}.parquet", encode_shard(lineage.replace_schema_metadata(declared), row_group_bytes)
    )
    return Written(written.file, written.file_sha256, written.num_bytes + sum(map(len, images)))


def find_strays(dest: str, files: Collection[str], fingerprints: Collection[str]) -> list[str]:
    """What lies in a dataset's folders and belongs to none of its units.

    Args:
        dest: absolute.
        files: relative to `dest`: the files and dead letters that the markers name.
        fingerprints: of the units that are done.

    Returns:
        Absolute URIs.
    """
    heads = {fingerprint[:12] for fingerprint in fingerprints}
    files = set(files)
    found = [place for folder in _FOLDERS for place in locations.list_files(locations.join(dest, folder))]
    names = ((place, place[len(dest.rstrip("/")) + 1 :]) for place in found)
    return [place for place, name in names if name not in files and owner_of(name) not in heads]


@dataclass(frozen=True)
class Part:
    """What one unit wrote, read back.

    Attributes:
        rows: every column but `image`, row by row; of a webdataset what JSON makes of them.
        picture: the encoded picture of a row by its number here; FileNotFoundError where it is gone.
    """

    rows: list[dict]
    picture: Callable[[int], bytes]


def read_part(dest: str, file: str, max_row_groups: int | None = None) -> Part:
    """The rows that a unit wrote, whatever the sink; pictures of `sink=files` are read when they are asked for.

    Args:
        file: a marker's `file`.
        max_row_groups: read no more than these of Parquet.

    Raises:
        FileNotFoundError: the file is gone.
        SourceError: it is damaged.
        StorageError: it cannot be read.
    """
    place = locations.join(dest, file)
    if file.endswith(".tar"):
        return _read_tar(place)
    table = read_shard(place, max_row_groups)
    if "file" in table.column_names and "image" not in table.column_names:
        files = table["file"].to_pylist()
        return Part(table.drop_columns(["file"]).to_pylist(), lambda row: _read_picture(dest, files[row]))
    images = pc.struct_field(table["image"], "bytes")
    return Part(_lineage(table), lambda row: images[row].as_py())


def _read_picture(dest: str, file: str) -> bytes:
    if not re.fullmatch(r"data/.+", file) or ".." in file.split("/"):
        raise SourceError(f"{dest}: its lineage names {file!r}, which is no picture of it; the table was changed")
    return locations.read_bytes(locations.join(dest, file))


def _read_tar(place: str) -> Part:
    samples = read_samples(place, _ANY_SIZE)
    try:
        rows = [json.loads(sample.members["json"]) for sample in samples]
    except (KeyError, ValueError) as error:
        raise SourceError(f"{place}: a sample without its lineage: {error!r}; delete the file and run again") from error
    images = [sample.image for sample in samples]
    for image in images:
        if isinstance(image, RowError):
            raise SourceError(f"{place}: a sample without its picture: {image.message}")
    return Part(rows, images.__getitem__)
