"""What a job reads: a source of images planned into units of work, from listings and Parquet footers only.

A source is Parquet (a file, or a folder of files), WebDataset tars, or a folder of image files. A *unit* is a range of
row groups of one Parquet file, one tar, or a run of image files; its descriptor is small, plain and travels to the
worker, which reads the bytes itself (`stylejobs.storage.reading`). What makes up a unit is a function of the source
and `unit_bytes` alone, never of the cluster.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.errors import SourceError
from stylejobs.records.schema import WEBDATASET_FIELDS, find_image_column
from stylejobs.storage import locations
from stylejobs.storage.labels import Labels

PARQUET_ENDINGS = (".parquet", ".pq")
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

_FOOTER_THREADS = 16
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True)
class Unit:
    """One unit of work.

    Attributes:
        kind: "parquet", "tar" or "files".
        source_uri: the file (for "files": the folder) that the rows come from.
        name: the file's name within the source, part of the keys of rows that have none of their own.
        tag: changes when the bytes of the unit change (etag, or size and modification time).
        num_bytes: source bytes of the unit.
        num_rows: rows of the unit; None for a tar, which has no index.
        row_groups: first and one past the last row group ("parquet").
        first_row: rows of the file before the unit ("parquet").
        image_column, key_column: of a "parquet" unit.
        files: names within the folder ("files"), with `labels` by column, aligned.
    """

    kind: str
    source_uri: str
    name: str
    tag: str
    num_bytes: int
    num_rows: int | None = None
    row_groups: tuple[int, int] = (0, 0)
    first_row: int = 0
    image_column: str = ""
    key_column: str | None = None
    files: tuple[str, ...] = ()
    labels: dict[str, list[str | None]] = field(default_factory=dict)

    def identity(self) -> dict:
        """What the rows of the unit are a function of: goes into its fingerprint."""
        described = asdict(self)
        return {name: value for name, value in described.items() if name not in ("num_bytes", "num_rows")}


@dataclass(frozen=True)
class Source:
    """A planned source: its units, and the columns that rows carry beside image and key."""

    uri: str
    kind: str
    units: list[Unit]
    carried_schema: pa.Schema

    @property
    def num_rows(self) -> int | None:
        counts = [unit.num_rows for unit in self.units]
        return None if None in counts else sum(counts)

    def summary(self) -> dict:
        """Its size, for plans and reports."""
        num_bytes = sum(unit.num_bytes for unit in self.units)
        return {"uri": self.uri, "kind": self.kind, "units": len(self.units), "rows": self.num_rows, "bytes": num_bytes}


def plan_source(
    uri: str, unit_bytes: float, image_column: str | None = None, labels: str = "none", labels_csv: str | None = None
) -> Source:
    """Plans a source into units.

    Args:
        uri: a Parquet file, a tar, or a folder of either or of images (searched recursively, endings in any case).
        unit_bytes: source bytes of a unit, met as closely as row groups and files allow.
        image_column: the column with the encoded images; None finds it.
        labels: "none", "folder" (the name of a file's folder) or "csv"; for image files only.
        labels_csv: where the CSV is; None for SOURCE/labels.csv.

    Raises:
        SourceError: nothing is there, nothing usable is in it, or a file cannot be read as what it says it is.
        StorageError: the storage cannot be reached.
    """
    root, files = _list_source(uri)
    by_kind = {
        "parquet": {
            name: info for name, info in files.items() if _ends(name, PARQUET_ENDINGS) and not _is_marked(name)
        },
        "tar": {name: info for name, info in files.items() if _ends(name, TAR_ENDINGS)},
        "files": {name: info for name, info in files.items() if _ends(name, IMAGE_ENDINGS)},
    }
    kinds = [kind for kind, found in by_kind.items() if found]
    if len(kinds) > 1:
        examples = " and ".join(next(iter(by_kind[kind])) for kind in kinds)
        raise SourceError(
            f"{uri}: holds {' and '.join(kinds)} sources, such as {examples}; name a folder with one kind"
        )
    if not kinds:
        endings = " ".join(PARQUET_ENDINGS + TAR_ENDINGS + IMAGE_ENDINGS)
        raise SourceError(f"{uri}: wanted images ({endings}), found {len(files)} file(s) and none of these")
    kind = kinds[0]
    _check_names(root, by_kind[kind])
    if labels != "none" and kind != "files":
        raise SourceError(
            f"{uri}: labels={labels} is for folders of image files; {kind} sources carry their own columns"
        )
    if kind == "parquet":
        return _plan_parquet(uri, root, by_kind[kind], unit_bytes, image_column)
    if kind == "tar":
        units = [
            Unit("tar", _place(root, name), name, _tag(info), info["size"]) for name, info in by_kind[kind].items()
        ]
        return Source(uri, kind, units, pa.schema(WEBDATASET_FIELDS))
    found = Labels.read(labels, root, labels_csv, list(by_kind[kind]))
    units = list(_plan_files(root, by_kind[kind], unit_bytes, found))
    return Source(uri, kind, units, pa.schema([(column, pa.string()) for column in found.columns]))


def _list_source(uri: str) -> tuple[str, dict[str, dict]]:
    """The root of the source and its files by name within the root; of a dataset of ours, only its data."""
    root = locations.absolute(uri)
    if not locations.exists(root):
        raise SourceError(
            f"{uri}: nothing is there; wanted a Parquet file, a tar, or a folder of images, Parquet or tars"
        )
    if not locations.is_folder(root):
        folder, _, name = root.rpartition("/")
        return folder, {name: locations.stat(root)}
    names = {place[len(root.rstrip("/")) + 1 :]: info for place, info in locations.list_files(root).items()}
    if "_stylejobs/plan.json" in names:
        names = {name: info for name, info in names.items() if name.startswith("data/")}
    return root, names


def _check_names(root: str, names: Iterable[str]) -> None:
    """Keys and references of rows are text, which a name of other bytes cannot become."""
    for name in names:
        place = _place(root, name)
        try:
            place.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(place).decode("utf-8", "backslashreplace")
            raise SourceError(f"{shown}: the file's name is not UTF-8; rename it") from None


def _is_marked(name: str) -> bool:
    """Writers of Parquet keep their own notes under names with an underscore."""
    return any(part.startswith("_") for part in name.split("/"))


def _place(root: str, name: str) -> str:
    return locations.join(root, name)


def _tag(info: dict) -> str:
    return f"{info['size']}:{info['tag']}"


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings)


def _plan_parquet(uri: str, root: str, files: dict, unit_bytes: float, image_column: str | None) -> Source:
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        footers = list(pool.map(lambda name: read_footer(_place(root, name)), files))
    units: list[Unit] = []
    schemas = []
    for (name, info), footer in zip(files.items(), footers, strict=True):
        schema = _arrow_schema(footer, _place(root, name))
        column = find_image_column(schema, image_column, _place(root, name))
        key = "key" if "key" in schema.names else None
        schemas.append(pa.schema([f for f in schema if f.name not in (column, key)], metadata=schema.metadata))
        shared = {"image_column": column, "key_column": key}
        units += [
            Unit("parquet", _place(root, name), name, _tag(info), num_bytes, rows, groups, first_row, **shared)
            for groups, first_row, rows, num_bytes in _group_row_groups(footer, unit_bytes)
        ]
    if not units:
        raise SourceError(f"{uri}: its {len(files)} Parquet file(s) hold no rows")
    try:
        carried = pa.unify_schemas([schema.remove_metadata() for schema in schemas])
    except pa.ArrowException as error:
        raise SourceError(f"{uri}: its Parquet files do not have the same columns: {error}") from error
    # A column that one file requires may be missing, thus null, in another.
    fields = [pa.field(field.name, plain_type(field.type)) for field in carried]
    return Source(uri, "parquet", units, pa.schema(fields, metadata=schemas[0].metadata))


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
        return footer.schema.to_arrow_schema()
    except _DAMAGE as error:
        raise _not_parquet(uri, error) from error


def _not_parquet(uri: str, error: Exception) -> SourceError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return SourceError(f"{uri}: not a whole Parquet file: {reason}; write it again or leave it out")


def _group_row_groups(footer: pq.FileMetaData, unit_bytes: float) -> Iterator[tuple[tuple[int, int], int, int, int]]:
    """(first, last) row group, rows before, rows and bytes of each unit of one file."""
    first, first_row, rows, num_bytes = 0, 0, 0, 0
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        size = sum(group.column(c).total_compressed_size for c in range(group.num_columns))
        if rows and num_bytes + size > unit_bytes:
            yield (first, index), first_row, rows, num_bytes
            first, first_row, rows, num_bytes = index, first_row + rows, 0, 0
        rows += group.num_rows
        num_bytes += size
    if rows:
        yield (first, footer.num_row_groups), first_row, rows, num_bytes


def _plan_files(root: str, files: dict[str, dict], unit_bytes: float, labels: Labels) -> Iterator[Unit]:
    batch: list[str] = []
    num_bytes = 0
    for name, info in files.items():
        if batch and num_bytes + info["size"] > unit_bytes:
            yield _files_unit(root, batch, files, labels)
            batch, num_bytes = [], 0
        batch.append(name)
        num_bytes += info["size"]
    yield _files_unit(root, batch, files, labels)


def _files_unit(root: str, names: list[str], files: dict[str, dict], labels: Labels) -> Unit:
    stats = "\n".join(f"{name} {_tag(files[name])}" for name in names)
    return Unit(
        kind="files",
        source_uri=root,
        name=os.path.dirname(names[0]),
        tag=hashlib.sha256(stats.encode()).hexdigest(),
        num_bytes=sum(files[name]["size"] for name in names),
        num_rows=len(names),
        files=tuple(names),
        labels=labels.of(names),
    )
