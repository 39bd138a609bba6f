"""A list of images: one URI a line, planned into runs of lines.

`.txt` has one URI a line, and `#` comments. `.csv` (with a header line) and `.jsonl` (an object a line) have it in
`uri`; what else they hold is carried as text. A URI is a local path, absolute or relative to the list's folder, or
`file://` or `s3://`, and is the row's key as it is written. What a line names is taken only if its bytes are a picture.

Sizes of objects are not asked for, since that would be a request for each line: a unit is a number of lines. Its tag is
a digest of the URIs and, for files of this machine, of their sizes and times. So an object that is replaced behind the
same URI is not noticed when a job goes on. The plan holds every line; Parquet is the source for many millions of rows.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stylejobs.errors import SourceError, StorageError
from stylejobs.storage import filters, locations
from stylejobs.storage.descriptors import Source, Unit, tag_of

URI_COLUMN = "uri"

_TYPICAL_BYTES = 128 * 2**10
_MAX_URI_LENGTH = 2048
_MAX_NAMED = 5
# A secret may hold slashes; a bucket holds no colon, unless it is an access point's ARN.
_CREDENTIALS = re.compile(r"://([^/]*@|(?!arn:)[^/@]*:.*@)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class _Line:
    """One entry: its number in the file, its URI and its other columns."""

    number: int
    uri: str
    values: dict[str, str | None]


def plan_list(list_uri: str, unit_bytes: float, where: filters.Where = ()) -> Source:
    """Plans a list into units of `unit_bytes` / 128 kB lines, which is about what a picture has.

    Args:
        where: on the list's columns, see `stylejobs.storage.filters`; lines that do not match are left out.

    Raises:
        SourceError: the list is malformed, empty, names a URI twice, or one that is no place of ours; lines are named.
        StorageError: the list cannot be read.
    """
    place = locations.absolute(list_uri)
    lines = list(_read_lines(place))
    if not lines:
        raise SourceError(f"{list_uri}: an empty list; wanted one URI a line")
    for line in lines:
        _check_uri(place, line)
    _check_unique(list_uri, lines)
    columns = list(dict.fromkeys(name for line in lines for name in line.values))
    filters.check_columns(where, columns, list_uri)
    lines = _filtered(lines, where)
    if not lines:
        raise SourceError(f"{list_uri}: where= matches none of its lines")
    most = max(1, int(unit_bytes // _TYPICAL_BYTES))
    units = [_unit(place, lines[first : first + most], columns) for first in range(0, len(lines), most)]
    return Source(list_uri, "list", units, pa.schema([(column, pa.string()) for column in columns]))


def place_of(list_uri: str, uri: str) -> str:
    """Where a URI of a list is.

    >>> place_of("/data/lists/cats.txt", "one/a.jpg"), place_of("/data/lists/cats.txt", "s3://b/a.jpg")
    ('/data/lists/one/a.jpg', 's3://b/a.jpg')
    """
    if "://" in uri or uri.startswith("/"):
        return uri
    return f"{list_uri.rpartition('/')[0]}/{uri}"


def _read_lines(place: str) -> Iterator[_Line]:
    try:
        text = locations.read_bytes(place).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{place}: not UTF-8 ({error}); save it as UTF-8") from error
    if place.lower().endswith(".csv"):
        return _read_csv(place, text)
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    if place.lower().endswith(".jsonl"):
        return (_read_object(place, number, line) for number, line in lines if line)
    return (_Line(number, line, {}) for number, line in lines if line and not line.startswith("#"))


def _read_csv(place: str, text: str) -> Iterator[_Line]:
    """No value is read as a number or a null, so `007` and `NA` stay what they are."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            if not row:
                continue
            if header is None:
                header = row
                filters.check_columns([(URI_COLUMN, ())], header, f"{place}: wanted a column {URI_COLUMN!r}")
                if len(set(header)) < len(header):
                    raise SourceError(f"{place}: several columns have the same name: {', '.join(header)}")
                continue
            if len(row) != len(header):
                raise SourceError(f"{place}: line {reader.line_num}: {len(row)} values for {len(header)} columns")
            values = dict(zip(header, row, strict=True))
            yield _Line(reader.line_num, values.pop(URI_COLUMN), values)
    except csv.Error as error:
        raise SourceError(f"{place}: not a CSV with a header line: line {reader.line_num}: {error}") from error


def _read_object(place: str, number: int, line: str) -> _Line:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{place}: line {number}: not JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get(URI_COLUMN), str):
        raise SourceError(f'{place}: line {number}: wanted an object with the text field "{URI_COLUMN}"')
    values = {name: _to_text(value) for name, value in found.items() if name != URI_COLUMN}
    return _Line(number, found[URI_COLUMN], values)


def _to_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _check_uri(place: str, line: _Line) -> None:
    """A line may name a place that `locations` reads, and nothing else."""
    uri = line.uri
    try:
        text = "".join(filter(None, (uri, *line.values, *line.values.values())))
        text.encode()
        if not 0 < len(uri) <= _MAX_URI_LENGTH or _CONTROL.search(uri):
            raise SourceError(f"wanted a URI of 1 to {_MAX_URI_LENGTH} letters on one line, got {uri[:80]!r}")
        if _CREDENTIALS.search(uri):
            raise SourceError("the URI holds credentials; give them in the standard AWS environment or profile")
        filesystem, path = locations.split(place_of(place, uri))
        if not locations.is_local(filesystem) and not path.partition("/")[2]:
            raise SourceError(f"{uri} names a bucket; wanted an object in it")
    except SourceError as error:
        raise SourceError(f"{place}: line {line.number}: {error}") from None
    except UnicodeEncodeError:
        raise SourceError(f"{place}: line {line.number}: not text: it holds half of a surrogate pair") from None


def _check_unique(list_uri: str, lines: list[_Line]) -> None:
    first: dict[str, int] = {}
    twice = [line for line in lines if first.setdefault(line.uri, line.number) != line.number]
    if twice:
        named = "".join(f"\n  lines {first[line.uri]} and {line.number}: {line.uri}" for line in twice[:_MAX_NAMED])
        raise SourceError(f"{list_uri}: {len(twice)} line(s) name a URI again, which is the key of its row:{named}")


def _filtered(lines: list[_Line], where: filters.Where) -> list[_Line]:
    if not where:
        return lines
    table = pa.table(
        {column: pa.array([line.values.get(column) for line in lines], pa.string()) for column, _ in where}
    )
    kept = np.flatnonzero(filters.find_matches(where, table).to_numpy())
    return [lines[number] for number in kept]


def _unit(place: str, lines: list[_Line], columns: list[str]) -> Unit:
    stats = [_stat(locations.absolute(place_of(place, line.uri))) for line in lines]
    text = "\n".join(f"{line.uri} {tag_of(info)}" for line, info in zip(lines, stats, strict=True))
    return Unit(
        kind="list",
        source_uri=place,
        name=lines[0].uri,
        tag=hashlib.sha256(text.encode()).hexdigest(),
        num_bytes=sum(info["size"] for info in stats),
        num_rows=len(lines),
        files=tuple(line.uri for line in lines),
        labels={column: [line.values.get(column) for line in lines] for column in columns},
    )


def _stat(place: str) -> dict:
    """Size and time of a file of this machine; of one that is elsewhere, or cannot be looked at, nothing."""
    filesystem, _ = locations.split(place)
    try:
        if locations.is_local(filesystem):
            return locations.stat(place)
    except (FileNotFoundError, StorageError):
        return {"size": 0, "tag": "absent"}
    return {"size": 0, "tag": ""}
