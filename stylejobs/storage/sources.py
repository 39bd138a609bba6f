"""What a job reads: a source of images planned into units of work, from listings and Parquet footers only.

A source is Parquet (a file, or a folder of files), WebDataset tars, a folder of image files, or a list of URIs. A
*unit* is a range of row groups of one Parquet file, one tar, or a run of image files or of lines; its descriptor is
small, plain and travels to the worker, which reads the bytes itself (`stylejobs.storage.reading`). What makes up a unit
is a function of the source, `unit_bytes` and the filter alone, never of the cluster.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator

import pyarrow as pa

from stylejobs.errors import SourceError
from stylejobs.records.schema import WEBDATASET_FIELDS
from stylejobs.storage import locations
from stylejobs.storage.descriptors import (
    IMAGE_ENDINGS,
    LIST_ENDINGS,
    PARQUET_ENDINGS,
    TAR_ENDINGS,
    Source,
    Unit,
    tag_of,
)
from stylejobs.storage.filters import parse_where
from stylejobs.storage.labels import Labels
from stylejobs.storage.lists import plan_list
from stylejobs.storage.parquet_plan import plan_parquet


def plan_source(
    uri: str,
    unit_bytes: float,
    image_column: str | None = None,
    labels: str = "none",
    labels_csv: str | None = None,
    where: Iterable[str] = (),
) -> Source:
    """Plans a source into units.

    Args:
        uri: a Parquet file, a tar, a list of URIs (`stylejobs.storage.lists`), or a folder of Parquet, tars or images
            (searched recursively, endings in any case).
        unit_bytes: source bytes of a unit, met as closely as row groups and files allow.
        image_column: the column with the encoded images; None finds it.
        labels: "none", "folder" (the name of a file's folder) or "csv"; for image files only.
        labels_csv: where the CSV is; None for SOURCE/labels.csv.
        where: `column=value` each, see `stylejobs.storage.filters`; for Parquet and lists with columns.

    Raises:
        SourceError: nothing is there, nothing usable is in it, or a file cannot be read as what it says it is.
        StorageError: the storage cannot be reached.
    """
    wanted = parse_where(where)
    root, files = _list_source(uri)
    kind = _find_kind(uri, files)
    found = files if kind == "list" else _of_kind(kind, files)
    _check_names(root, found)
    if labels != "none" and kind != "files":
        raise SourceError(
            f"{uri}: labels={labels} is for folders of image files; {kind} sources carry their own columns"
        )
    if wanted and kind not in ("parquet", "list"):
        raise SourceError(
            f"{uri}: where= needs columns, as Parquet, a .csv or a .jsonl list have them; this is a source of {kind}; "
            "`ingest` makes Parquet of it, with the column `label` by labels=folder"
        )
    if kind == "parquet":
        return plan_parquet(uri, root, found, unit_bytes, image_column, wanted)
    if kind == "list":
        return plan_list(uri, unit_bytes, wanted)
    if kind == "tar":
        units = [Unit("tar", _place(root, name), name, tag_of(info), info["size"]) for name, info in found.items()]
        return Source(uri, kind, units, pa.schema(WEBDATASET_FIELDS))
    columns = Labels.read(labels, root, labels_csv, list(found))
    units = list(_plan_files(root, found, unit_bytes, columns))
    return Source(uri, kind, units, pa.schema([(column, pa.string()) for column in columns.columns]))


def _of_kind(kind: str, files: dict[str, dict]) -> dict[str, dict]:
    endings = {"parquet": PARQUET_ENDINGS, "tar": TAR_ENDINGS, "files": IMAGE_ENDINGS}[kind]
    return {
        name: info
        for name, info in files.items()
        if _ends(name, endings) and not (kind == "parquet" and _is_marked(name))
    }


def _find_kind(uri: str, files: dict[str, dict]) -> str:
    by_kind = {kind: _of_kind(kind, files) for kind in ("parquet", "tar", "files")}
    kinds = [kind for kind, found in by_kind.items() if found]
    if len(kinds) > 1:
        examples = " and ".join(next(iter(by_kind[kind])) for kind in kinds)
        raise SourceError(
            f"{uri}: holds {' and '.join(kinds)} sources, such as {examples}; name a folder with one kind"
        )
    if kinds:
        return kinds[0]
    if _ends(uri, LIST_ENDINGS) and len(files) == 1:
        return "list"
    endings = " ".join(PARQUET_ENDINGS + TAR_ENDINGS + IMAGE_ENDINGS)
    raise SourceError(
        f"{uri}: wanted images ({endings}) or a list of their URIs ({' '.join(LIST_ENDINGS)}), found {len(files)} "
        "file(s) and none of these"
    )


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


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings)


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


def tag_of_files(stats: dict[str, dict]) -> str:
    """The tag of a unit of files: a digest of their names, sizes and times, in order."""
    lines = "\n".join(f"{name} {tag_of(info)}" for name, info in stats.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _files_unit(root: str, names: list[str], files: dict[str, dict], labels: Labels) -> Unit:
    return Unit(
        kind="files",
        source_uri=root,
        name=os.path.dirname(names[0]),
        tag=tag_of_files({name: files[name] for name in names}),
        num_bytes=sum(files[name]["size"] for name in names),
        num_rows=len(names),
        files=tuple(names),
        labels=labels.of(names),
    )
