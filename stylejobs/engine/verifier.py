"""Proves one unit of a stylized dataset: what lies in `dest` against the source, row by row. Changes nothing.

Nothing that the unit's marker says is believed: it is compared with the source read anew, with the bytes that lie
there, and with what the job's settings say of every row. Needs no model; whether the pixels are the generator's is
found out by making some again (replayer.py).

Memory: one unit, first its source, then its output.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from stylejobs.engine.findings import Findings
from stylejobs.engine.read_back import read_dead_letters, read_written
from stylejobs.engine.stream import Worker, WorkItem
from stylejobs.engine.writer import schema_from_text
from stylejobs.errors import DecodeError, SourceError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.containers import accepted_format
from stylejobs.records.lineage import SOURCE_VARIANT, Draw, Drawing
from stylejobs.records.schema import STYLIZED_FIELDS, carried_columns
from stylejobs.storage.markers import Marker
from stylejobs.storage.reading import read_unit
from stylejobs.storage.sinks import Part

ANY_IMAGE = Limits(max_bytes=2**62, max_megapixels=math.inf, max_aspect=math.inf, min_side_px=1)
"""Limits for pictures of our own making."""


@dataclass(frozen=True)
class VerifySettings:
    """What every row is held against, as plain values; see `StylizeSettings`. `model`: the lineage columns of it."""

    dest: str
    carried_schema: str
    max_bytes: int
    sink: str
    drawing: Drawing
    class_column: str | None
    format: str
    model: dict[str, str]


@dataclass(frozen=True)
class _SourceRows:
    """A unit of the source without its pictures. `ids`: (key, source, row group, row) of each row."""

    ids: list[tuple]
    sha256s: list[str | None]
    carried: pa.Table


@dataclass(frozen=True)
class _Wanted:
    """A row that must be there: its number among these, the source row, and what was drawn for it."""

    number: int
    row: int
    draw: Draw


class Verifier(Worker):
    """Verifies work items whose part is `{"marker": ..., "part": ...}`; runs with Ray and without."""

    def __init__(self, settings: VerifySettings):
        self._s = settings
        self._carried = schema_from_text(settings.carried_schema)
        self._carried_as = carried_columns(self._carried, STYLIZED_FIELDS)
        self._columns = {field.name for field in STYLIZED_FIELDS if field.name != "image"}
        self._columns |= set(self._carried_as.values())

    def do(self, item: WorkItem) -> dict:
        """`problems`; `rows`: in, ok (all copies proven) and bad (dead letters); `by_reason` of the bad ones."""
        marker = Marker(**item.part["marker"])
        findings = Findings(marker.file or str(item), item.fingerprint)
        rows, by_reason = self._verify(item, marker, findings)
        return {
            "problems": [asdict(problem) for problem in findings.problems()],
            "rows": dict(zip(("in", "ok", "bad"), rows, strict=True)),
            "by_reason": by_reason,
        }

    def _verify(self, item: WorkItem, marker: Marker, findings: Findings) -> tuple[tuple[int, int, int], dict]:
        try:
            source = self._read_source(item)
        except SourceError as error:
            findings.add("source", f"cannot be read any more: {error}", can_mend=False)
            return (0, 0, 0), {}
        letters = read_dead_letters(self._s.dest, marker, findings)
        alive = _alive(source, letters, findings)
        wanted = self._wanted(source, alive, item.part["part"])
        part = read_written(self._s.dest, self._s.sink, marker, findings)
        proven = Counter(self._check_rows(part, wanted, source, findings))
        num_ok = sum(proven[row] == len(wanted) // len(alive) for row in alive)
        by_reason = dict(Counter(letter["reason"] for letter in letters))
        counted = {"rows_in": len(source.ids), "rows_ok": len(alive), "rows_bad": len(letters), "by_reason": by_reason}
        for field, value in counted.items():
            if getattr(marker, field) != value:
                findings.add("marker", f"its marker says {field} {getattr(marker, field)}, there are {value}")
        return (len(source.ids), num_ok, len(letters)), by_reason

    def _read_source(self, item: WorkItem) -> _SourceRows:
        rows = read_unit(item.unit, self._carried, self._s.max_bytes)
        return _SourceRows(
            ids=[
                (key, source, *position)
                for key, source, position in zip(rows.keys, rows.sources, rows.positions, strict=True)
            ],
            sha256s=[hashlib.sha256(image).hexdigest() if isinstance(image, bytes) else None for image in rows.images],
            carried=rows.carried,
        )

    def _wanted(self, source: _SourceRows, alive: list[int], part: dict) -> list[_Wanted]:
        """Every row that must be there, in the order in which workers write them."""
        drawing, column = self._s.drawing, self._s.class_column
        labels = source.carried[column].to_pylist() if column else [None] * len(source.ids)
        # Strength "auto" is not known without the row's pixels: any number stands for it.
        own = dict.fromkeys(drawing.styles, 1.0)
        draws = [
            (row, drawn)
            for row in alive
            for drawn in drawing.draw(source.ids[row][0], labels[row], own, part.get("variant"))
        ]
        return [_Wanted(number, row, drawn) for number, (row, drawn) in enumerate(draws)]

    def _check_rows(
        self, part: Part | None, wanted: list[_Wanted], source: _SourceRows, findings: Findings
    ) -> list[int]:
        """The source rows of which a copy is proven, one entry for each copy."""
        rows = part.rows if part else []
        if strange := next((row.keys() for row in rows if row.keys() != self._columns), None):
            findings.add("columns", f"wanted {', '.join(sorted(self._columns))}; found {', '.join(sorted(strange))}")
            return []
        open_: dict[tuple, list[_Wanted]] = defaultdict(list)
        for copy in wanted:
            open_[(*source.ids[copy.row][:2], copy.draw.variant)].append(copy)
        carried, proven, order = source.carried.to_pylist(), [], []
        for number, row in enumerate(rows):
            name = (row["key"], row["source_uri"], row["variant"])
            if not open_.get(name):
                kind, text = (
                    ("row_twice", "is there again") if name in open_ else ("row_unknown", "is not in the source")
                )
                findings.add(kind, f"row {number}, {_named(row)}: {text}")
                continue
            copy = _take(open_[name], row["source_sha256"], source)
            order.append(copy.number)
            faults = self._faults(row, copy, source.sha256s[copy.row], carried[copy.row])
            faults += self._picture_faults(row, part.picture, number)
            for kind, text in faults:
                findings.add(kind, f"row {number}, {_named(row)}: {text}")
            proven += [] if faults else [copy.row]
        for copy in (copy for copies in open_.values() for copy in copies):
            key, place = source.ids[copy.row][:2]
            findings.add("row_missing", f"key={key} variant={copy.draw.variant} of {place} is neither there nor dead")
        if order != sorted(order):
            findings.add("row_order", "its rows are not in the order of the source")
        return proven

    def _faults(self, row: dict, copy: _Wanted, source_sha256: str | None, carried: dict) -> list[tuple[str, str]]:
        """What is wrong with the columns of a row: (kind, text)."""
        faults = []
        if row["source_sha256"] != source_sha256:
            faults.append(("source_sha256", f"{row['source_sha256']} is not that of the source, {source_sha256}"))
        is_source = copy.draw.variant == SOURCE_VARIANT
        drawn = {"style": copy.draw.style or None, "seed": copy.draw.seed, "is_synthetic": not is_source}
        for name, value in {**drawn, **self._s.model}.items():
            if row[name] != value:
                faults.append(("lineage", f"{name} is {row[name]!r}, wanted {value!r}"))
        strength = row["strength"]
        is_any = self._s.drawing.strength == "auto" and not is_source
        if not (0.0 <= strength <= 1.0 if is_any else _is_float32(strength, copy.draw.strength)):
            faults.append(("lineage", f"strength is {strength!r}, wanted {'auto' if is_any else copy.draw.strength}"))
        for name, written_as in self._carried_as.items():
            if not self._is_carried(carried[name], row[written_as]):
                faults.append(
                    ("carried", f"{written_as} is {row[written_as]!r}, in the source {carried[name]!r}"[:300])
                )
        return faults

    def _is_carried(self, before: object, after: object) -> bool:
        # JSON, which a webdataset keeps, has no more than these.
        if self._s.sink == "webdataset" and not isinstance(before, str | int | bool | None):
            return True
        return before is after or before == after or repr(before) == repr(after)  # NaN is not equal to itself

    def _picture_faults(self, row: dict, picture: Callable[[int], bytes], number: int) -> list[tuple[str, str]]:
        try:
            data = picture(number)
        except (FileNotFoundError, SourceError) as error:
            return [("image", f"its picture is gone: {error}")]
        if data is None:
            return [("image", "there is no picture")]
        faults = []
        if hashlib.sha256(data).hexdigest() != row["out_sha256"]:
            faults.append(("out_sha256", "the picture's bytes are not those that were written"))
        if (format := accepted_format(data)) != self._s.format and row["is_synthetic"]:
            faults.append(("image", f"wanted {self._s.format}, came {format or 'no image'}"))
        try:
            height, width = decode_image(data, ANY_IMAGE).shape[:2]
            if (height, width) != (row["height"], row["width"]):
                faults.append(("image", f"{width}x{height} pixels, wanted {row['width']}x{row['height']}"))
        except DecodeError as error:
            faults.append(("image", f"does not decode: {error}"))
        return faults


def _alive(source: _SourceRows, letters: list[dict], findings: Findings) -> list[int]:
    """The rows that are not dead, in order."""
    dead = Counter(letter["id"] for letter in letters)
    alive = []
    for row, id in enumerate(source.ids):
        if dead[id]:
            dead[id] -= 1
        else:
            alive.append(row)
    for (key, place, *_), count in dead.items():
        if count:
            findings.add("dead_letters", f"names key={key} of {place}, which is not in the source, or only once")
    return alive


def _take(copies: list[_Wanted], source_sha256: str, source: _SourceRows) -> _Wanted:
    """Of rows of one name the first with these source bytes, else the first."""
    fitting = (n for n, copy in enumerate(copies) if source.sha256s[copy.row] == source_sha256)
    return copies.pop(next(fitting, 0))


def _named(row: dict) -> str:
    return f"key={row['key']} variant={row['variant']}"


def _is_float32(value: object, wanted: float) -> bool:
    return isinstance(value, float | int) and np.float32(value) == np.float32(wanted)
