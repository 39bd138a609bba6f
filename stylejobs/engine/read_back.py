"""Reads back what a unit has written, trusting nothing: what cannot be had is a finding, not an error.

Only the storage being away is an error: it says nothing about the dataset.
"""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from stylejobs.engine.findings import Findings
from stylejobs.errors import SourceError, StorageError
from stylejobs.records.schema import DEAD_LETTER_ID
from stylejobs.storage import locations
from stylejobs.storage.markers import Marker
from stylejobs.storage.parquet_trust import read_dataset_table
from stylejobs.storage.sinks import Part, read_part
from stylejobs.storage.units import part_name

_KEPT = {"parquet": ("data", ".parquet"), "webdataset": ("data", ".tar"), "files": ("lineage", ".parquet")}
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError)


def read_written(dest: str, sink: str, marker: Marker, findings: Findings) -> Part | None:
    """The rows that a unit wrote; None where it wrote none, or none that can be read.

    Args:
        sink: "parquet", "webdataset" or "files".

    Raises:
        StorageError: the storage cannot be reached.
    """
    if marker.file is None:
        return None
    folder, ending = _KEPT[sink]
    name = f"{folder}/{part_name(marker.index, marker.fingerprint).removesuffix('.parquet')}{ending}"
    if marker.file != name:
        findings.add("marker", f"its marker names {marker.file}, wanted {name}")
        return None
    try:
        data = locations.read_bytes(locations.join(dest, name))
    except FileNotFoundError:
        findings.add("file_missing", "is gone")
        return None
    is_whole = hashlib.sha256(data).hexdigest() == marker.file_sha256
    if not is_whole:
        findings.add("file_sha256", f"its {len(data):,} bytes are not those that were written: sha256 differs")
    try:
        return read_part(dest, name) if sink != "parquet" else _parse(data, name)
    except StorageError as error:
        # A parser that fails on damaged bytes looks like a storage that fails; whole bytes leave only the storage.
        if is_whole:
            raise
        findings.add("unreadable", str(error))
    except (*_DAMAGE, SourceError) as error:
        findings.add("unreadable", f"cannot be read: {error}")
    return None


def _parse(data: bytes, name: str) -> Part:
    # Without the checksums of pages: the file's own digest is compared, and a damaged picture can be named.
    table = read_dataset_table(data, name)
    images = pc.struct_field(table["image"], "bytes")
    return Part(table.drop_columns(["image"]).to_pylist(), lambda row: images[row].as_py())


def read_dead_letters(dest: str, marker: Marker, findings: Findings) -> list[dict]:
    """A unit's dead letters, each with `id`: (key, source, row group, row).

    Raises:
        StorageError: the storage cannot be reached.
    """
    name = f"dead_letter/{part_name(marker.index, marker.fingerprint)}"
    if marker.dead_letter is None:
        return []
    if marker.dead_letter != name:
        findings.add("marker", f"its marker names {marker.dead_letter}, wanted {name}")
        return []
    try:
        data = locations.read_bytes(locations.join(dest, name))
        letters = read_dataset_table(data, name).to_pylist()
        return [{**letter, "id": tuple(letter[column] for column in DEAD_LETTER_ID)} for letter in letters]
    except FileNotFoundError:
        findings.add("dead_letters", f"{name} is gone")
    except (*_DAMAGE, SourceError) as error:
        findings.add("dead_letters", f"{name} cannot be read: {error}")
    return []
