"""Makes stylized rows again from their lineage, the source and the package in `dest`, and compares.

A row is made again alone, or with the other rows that are asked for of its unit, not with those that shared its batch:
that would mean to stylize the whole unit. So its pixels may differ in the last bit (generating.py), and after a lossy
encoding bytes may differ that look alike: rows agree from 40 dB on, equal bytes are counted apart.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np

from stylejobs.engine.stream import Worker, WorkItem
from stylejobs.engine.stylizer import Stylizer, StylizeSettings
from stylejobs.engine.verifier import ANY_IMAGE
from stylejobs.engine.writer import Stopwatch, schema_from_text
from stylejobs.errors import DecodeError, RowError
from stylejobs.records.codec import decode_image
from stylejobs.records.schema import STYLIZED_FIELDS
from stylejobs.storage.descriptors import Unit
from stylejobs.storage.reading import UnitRows, read_unit
from stylejobs.storage.sinks import read_part

MIN_PSNR_DB = 40.0
_COMPARED = [field.name for field in STYLIZED_FIELDS if field.name not in ("image", "out_sha256")]
_MEASURED = ("strength", "blur_score")
_MEASURED_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Replayed:
    """A row that was made again, beside the one that is stored.

    Attributes:
        is_identical: the same bytes.
        psnr_db: of the decoded pictures [dB]; None for the same pixels, and where there is nothing to compare.
        differs: columns of the lineage that have other values than stored.
        failure: why there is nothing to compare.
    """

    key: str
    variant: int
    is_identical: bool = False
    psnr_db: float | None = None
    differs: tuple[str, ...] = ()
    failure: str | None = None

    @property
    def fault(self) -> str | None:
        """What does not agree; None where all does."""
        if self.failure:
            return self.failure
        if self.differs:
            return f"other values than stored in {', '.join(self.differs)}"
        if self.psnr_db is not None and self.psnr_db < MIN_PSNR_DB:
            return f"the picture is another one: PSNR {self.psnr_db:.1f} dB, wanted {MIN_PSNR_DB:g} dB or more"
        return None


class Replayer(Worker):
    """Makes rows of work items again, whose part is `{"file": ..., "rows": [number in the file, ...]}`."""

    keeps_state = True

    def __init__(self, settings: StylizeSettings):
        self._s = settings
        self._carried = schema_from_text(settings.write.carried_schema)
        self._stylizer = Stylizer(settings)

    def do(self, item: WorkItem) -> dict:
        """`replayed`: one for each row."""
        part = read_part(self._s.write.dest, item.part["file"])
        stored = [{**part.rows[number], "image": part.picture(number)} for number in item.part["rows"]]
        return {"replayed": [asdict(replayed) for replayed, _ in self.replay(item.unit, stored, item.part)]}

    def replay(self, unit: Unit, stored: list[dict], part: dict) -> list[tuple[Replayed, bytes | None]]:
        """Compares stored rows, which hold their picture's bytes as `image`, with what is made now; also that."""
        rows = self.read(unit, {row["key"] for row in stored})
        sha256s = [hashlib.sha256(image).hexdigest() if isinstance(image, bytes) else None for image in rows.images]
        names = list(zip(rows.keys, rows.sources, sha256s, strict=True))
        wanted = {(row["key"], row["source_uri"], row["source_sha256"]) for row in stored}
        taken = [row for row, name in enumerate(names) if name in wanted]
        made, errors = self.make(rows, taken, part)
        by_name = {(row["key"], row["source_uri"], row["source_sha256"], row["variant"]): row for row in made}
        why = {names[row]: str(error) for row, error in errors.items()}
        return [self._compared(row, by_name, why) for row in stored]

    def read(self, unit: Unit, keys: set[str]) -> UnitRows:
        """The rows of a unit, or of what is listed by name only those with these keys."""
        return read_unit(only_keys(unit, keys), self._carried, self._s.write.max_bytes)

    def make(self, rows: UnitRows, taken: Iterable[int], part: dict) -> tuple[list[dict], dict[int, RowError]]:
        """All copies of some rows with their lineage, `image` being bytes; errors by the row's number in `rows`."""
        taken = list(taken)
        converted = self._stylizer.convert(rows.select(taken), Stopwatch(), part)
        made = [{**row, "image": row["image"]["bytes"]} for row in converted.table.to_pylist()]
        return made, {taken[row]: error for row, error in converted.errors.items()}

    def _compared(self, row: dict, by_name: dict, why: dict) -> tuple[Replayed, bytes | None]:
        name = (row["key"], row["source_uri"], row["source_sha256"])
        made = by_name.get((*name, row["variant"]))
        if made is None:
            failure = why.get(name, "its source bytes are not in the source any more")
            return Replayed(row["key"], row["variant"], failure=f"cannot be made again: {failure}"), None
        differs = tuple(name for name in _COMPARED if not _agree(name, row.get(name), made[name]))
        is_identical = row["image"] == made["image"]
        try:
            psnr_db = None if is_identical else _psnr_db(row["image"], made["image"])
        except DecodeError as error:
            failure = f"the stored picture does not decode: {error}"
            return Replayed(row["key"], row["variant"], failure=failure), made["image"]
        return Replayed(row["key"], row["variant"], is_identical, psnr_db, differs), made["image"]


def only_keys(unit: Unit, keys: set[str]) -> Unit:
    """A unit of files or of a list, without what has other keys; units of other kinds are read as a whole."""
    if unit.kind not in ("files", "list"):
        return unit
    kept = [number for number, name in enumerate(unit.files) if name in keys]
    labels = {column: [values[number] for number in kept] for column, values in unit.labels.items()}
    return replace(unit, files=tuple(unit.files[number] for number in kept), labels=labels)


def _agree(name: str, stored: object, made: object) -> bool:
    if name in _MEASURED and isinstance(stored, float | int):
        return math.isclose(stored, made, rel_tol=_MEASURED_TOLERANCE, abs_tol=_MEASURED_TOLERANCE)
    return stored == made


def _psnr_db(a: bytes, b: bytes) -> float | None:
    """10 log10(255^2 / mean squared difference) of two encoded pictures; None for equal pixels, 0 for other sizes."""
    a_HWC, b_HWC = (decode_image(data, ANY_IMAGE).astype(np.float32) for data in (a, b))
    if a_HWC.shape != b_HWC.shape:
        return 0.0
    error = float(np.mean(np.square(a_HWC - b_HWC), dtype=np.float64))
    return 10.0 * math.log10(255.0**2 / error) if error else None
