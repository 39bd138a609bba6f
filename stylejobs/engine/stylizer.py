"""The stylizing worker: encoded images in, stylized images with their lineage out.

Rows are decoded on a few threads ahead of the generator (decoding.py) and encoded behind it. The generator
(generating.py) sees micro-batches of rows of one size, formed in source order within the unit: which rows share a batch
is a function of the unit alone, so a retry gives the same pixels.

The image that is written is x + strength (y - x): x the source, y the generator's image of x, or of x sharpened where
`deblur` applies; with `preserve_colour` y takes the chroma of x. So strength 0 is the source, byte for byte, whatever
else is set, and the generator is not even asked. What is measured of a row (blur score, strength by content match)
is computed on the CPU from that row alone.

Memory, beside the unit's encoded images in and out, is bounded by the settings and never by the unit: per codec thread
32 * 10**6 pixels decoded ahead and as many waiting to be encoded, 64 * 10**6 pixels waiting for others of their size,
and one pass of the generator; of images that are larger than these bounds, one at a time.
"""

import hashlib
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from stylejobs.engine.decoding import PIXELS_PER_THREAD, DecodeSettings, Decoding, Source
from stylejobs.engine.generating import Content, GenerateSettings, Generating, build_places
from stylejobs.engine.memory import keep_freed_memory
from stylejobs.engine.timed_pool import Task, TimedPool, TooSlowError
from stylejobs.engine.writer import Converted, Stopwatch, UnitWorker, WriteSettings
from stylejobs.errors import EncodeError, RowError
from stylejobs.records.codec import Limits, encode_image
from stylejobs.records.containers import accepted_format
from stylejobs.records.lineage import SOURCE_VARIANT, Draw, Drawing
from stylejobs.records.schema import STYLIZED_FIELDS, carried_columns, carrying_schema
from stylejobs.storage.packages import load_package
from stylejobs.storage.reading import UnitRows

_MAX_WAITING_PIXELS = 64_000_000
"""Decoded pixels that may wait for others of their size before they are generated in a smaller batch."""

_MAX_LOST_THREADS = 4


@dataclass(frozen=True)
class StylizeSettings:
    """What decides the output beside the source; see the keys of the `stylize` config for the meaning.

    Attributes:
        package_uri: the model package, where every worker can read it; `package_sha256` is checked.
        drawing: styles, copies and strengths; strength "auto" is by content match, which the package must then hold.
            A source that is included keeps its own bytes, unless its size changes.
        short_side_px: None keeps the source's size.
        generate: how pixels go through the generator; its `row_seconds` is also the longest that a row may take to
            decode, and to encode.
        threads: torch threads; `codec_threads` decode and encode.
        class_column: of the source, holds the class that a row's styles are drawn for; None where there is none.
        learned: rows that fit at once, as an earlier worker found out; see `Generating.learned`.
    """

    write: WriteSettings
    package_uri: str
    model_name: str
    model_version: str
    model_sha256: str
    package_sha256: str
    short_side_px: int | None
    format: str
    quality: int
    generate: GenerateSettings
    limits: Limits
    drawing: Drawing
    use_gpu: bool = False
    threads: int = 1
    codec_threads: int = 2
    class_column: str | None = None
    learned: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Copy:
    """One stylized copy to be made: a row, what was drawn for it, and its source."""

    row: int
    draw: Draw
    source: Source


@dataclass(frozen=True)
class _Made:
    """One copy that is written: its lineage, and the encoded picture. Holds no pixels: a unit has many of these."""

    draw: Draw
    blur_score: float
    data: bytes
    size: tuple[int, int]


class Stylizer(UnitWorker):
    """Loads the model once; then converts unit after unit."""

    keeps_state = True

    def __init__(self, settings: StylizeSettings):
        super().__init__(settings.write)
        torch.set_num_threads(settings.threads)
        keep_freed_memory()
        self._s = s = settings
        loaded = load_package(s.package_uri, s.package_sha256)
        self._pool = TimedPool(s.codec_threads, s.generate.row_seconds, "codec")
        max_rows = 2 * s.generate.micro_batch + s.codec_threads
        styles = tuple(s.drawing.styles) if s.drawing.strength == "auto" else ()
        decode = DecodeSettings(s.limits, s.short_side_px, styles, s.codec_threads, max_rows)
        self._decode = Decoding(self._pool, decode, loaded.match)
        places = build_places(loaded.generator, loaded.styles, s.use_gpu)
        self._generating = Generating(places, s.generate, s.learned)

    @property
    def learned(self) -> dict[str, int]:
        """Rows that fit at once where fewer did than planned; for the workers that come after this one."""
        return self._generating.learned

    @property
    def is_worn_out(self) -> bool:
        """Whether so many threads hang in rows given up that the process had better be replaced before its next unit.

        Within a unit it goes on, with new threads: begun again elsewhere, the unit would meet the same rows.
        """
        return self._pool.num_lost > _MAX_LOST_THREADS

    def convert(self, rows: UnitRows, stopwatch: Stopwatch, part: dict | None = None) -> Converted:
        """Copies of the rows; `part` of a drawing of variants "each" names the one style that is wanted."""
        errors: dict[int, RowError] = {}
        encoding: dict[tuple[int, int], tuple[Draw, float, Task]] = {}
        for copy, task in self._stylized(rows, errors, stopwatch, part or {}):
            encoding[copy.row, copy.draw.variant] = copy.draw, copy.source.blur_score, task
        made: dict[tuple[int, int], _Made] = {}
        for (row, variant), (drawn, score, task) in sorted(encoding.items()):
            result = self._encoded(task)
            if isinstance(result, RowError):
                errors.setdefault(row, result)
            else:
                made[row, variant] = _Made(drawn, score, *result)
        written = {place: value for place, value in made.items() if place[0] not in errors}
        return Converted(self._table(rows, written), errors, self._balance(rows, written))

    def _balance(self, rows: UnitRows, written: dict[tuple[int, int], _Made]) -> dict[str, dict[str, int]]:
        """Copies by class and style; empty where the source has no classes."""
        balance: dict[str, Counter[str]] = defaultdict(Counter)
        if self._s.class_column:
            labels = rows.carried[self._s.class_column].to_pylist()
            for (row, _), made in written.items():
                balance[str(labels[row])][made.draw.style or "source"] += 1
        return {label: dict(counts) for label, counts in balance.items()}

    def _stylized(
        self, rows: UnitRows, errors: dict[int, RowError], stopwatch: Stopwatch, part: dict
    ) -> Iterator[tuple[_Copy, Task]]:
        """Every copy as it is handed to the encoder; waits while too many pixels wait to be encoded."""
        waiting: deque[tuple[Task, int]] = deque()
        num_pixels = 0
        for batch in self._batches(self._copies(rows, self._decoded(rows, errors, stopwatch), part)):
            for copy, made in zip(batch, self._generate(batch, stopwatch), strict=True):
                source = rows.images[copy.row] if copy.draw.variant == SOURCE_VARIANT else None
                task = self._pool.submit(self._encode, made, stopwatch, source)
                waiting.append((task, copy.source.pixels_HWC[..., 0].size))
                num_pixels += waiting[-1][1]
                yield copy, task
            del batch, copy, made
            while num_pixels > PIXELS_PER_THREAD * self._s.codec_threads:
                task, done_pixels = waiting.popleft()
                self._pool.wait(task)
                num_pixels -= done_pixels

    def _decoded(
        self, rows: UnitRows, errors: dict[int, RowError], stopwatch: Stopwatch
    ) -> Iterator[tuple[int, Source]]:
        """Rows that decode, in order."""
        for row, result in enumerate(self._decode(rows.images, stopwatch)):
            if isinstance(result, RowError):
                errors[row] = result
            else:
                yield row, result

    def _copies(self, rows: UnitRows, decoded: Iterator[tuple[int, Source]], part: dict) -> Iterator[list[_Copy]]:
        """The copies of each row that decodes."""
        s = self._s
        labels = rows.carried[s.class_column].to_pylist() if s.class_column else [None] * len(rows)
        only = part.get("variant")
        for row, source in decoded:
            drawn = s.drawing.draw(rows.keys[row], labels[row], source.own_strength, only)
            yield [_Copy(row, one, source) for one in drawn]

    def _batches(self, copies: Iterator[list[_Copy]]) -> Iterator[list[_Copy]]:
        """Micro-batches of copies of one size, in an order that only the unit's rows decide."""
        waiting: dict[tuple[int, int], list[_Copy]] = {}
        num_pixels = 0
        for copy in itertools.chain.from_iterable(copies):
            size = height, width = copy.source.pixels_HWC.shape[:2]
            waiting.setdefault(size, []).append(copy)
            num_pixels += height * width
            if len(waiting[size]) == self._generating.planned(*size):
                num_pixels -= len(waiting[size]) * height * width
                yield waiting.pop(size)
            while num_pixels > _MAX_WAITING_PIXELS:
                height, width = next(iter(waiting))
                batch = waiting.pop((height, width))
                num_pixels -= len(batch) * height * width
                yield batch
        yield from waiting.values()

    def _generate(self, batch: list[_Copy], stopwatch: Stopwatch) -> list[np.ndarray | RowError]:
        """Pixels uint8 HWC of each copy; those of strength 0 are the source's and cost nothing."""
        with stopwatch.stage("generate"):
            live = [_content(copy) for copy in batch if copy.draw.strength > 0.0]
            stylized = iter(self._generating(live) if live else ())
            return [next(stylized) if copy.draw.strength > 0.0 else copy.source.pixels_HWC for copy in batch]

    def _encode(
        self, made: np.ndarray | RowError, stopwatch: Stopwatch, source: bytes | None
    ) -> tuple[bytes, tuple[int, int]] | RowError:
        """The encoded picture and its size; of a row that is kept as it is, `source`, its own bytes."""
        if isinstance(made, RowError):
            return made
        if source is not None and self._s.short_side_px is None:
            return source, made.shape[:2]
        with stopwatch.stage("encode"):
            try:
                return encode_image(made, self._s.format, self._s.quality), made.shape[:2]
            except EncodeError as error:
                return EncodeError("oom", error.message) if isinstance(error.__cause__, MemoryError) else error

    def _encoded(self, task: Task) -> tuple[bytes, tuple[int, int]] | RowError:
        try:
            return self._pool.result(task)
        except TooSlowError as error:
            return EncodeError("timeout", f"{error} (row_seconds)")

    def _table(self, rows: UnitRows, written: dict[tuple[int, int], _Made]) -> pa.Table:
        s = self._s
        schema = carrying_schema(STYLIZED_FIELDS, rows.carried.schema)
        order = [row for row, _ in written]
        source_sha256 = {row: hashlib.sha256(rows.images[row]).hexdigest() for row in set(order)}
        lineage = [
            {
                "image": {"bytes": made.data, "path": f"{rows.keys[row]}.{_ending(made.data)}"},
                "key": rows.keys[row],
                "source_uri": rows.sources[row],
                "source_sha256": source_sha256[row],
                "style": made.draw.style or None,
                "strength": made.draw.strength,
                "variant": made.draw.variant,
                "seed": made.draw.seed,
                "model_name": s.model_name,
                "model_version": s.model_version,
                "model_sha256": s.model_sha256,
                "width": made.size[1],
                "height": made.size[0],
                "out_sha256": hashlib.sha256(made.data).hexdigest(),
                "is_synthetic": made.draw.variant != SOURCE_VARIANT,
                "blur_score": made.blur_score,
            }
            for (row, _), made in written.items()
        ]
        ours = pa.Table.from_pylist(lineage, schema=pa.schema(STYLIZED_FIELDS))
        carried = rows.carried.take(pa.array(order, pa.int64()))
        names = carried_columns(rows.carried.schema, STYLIZED_FIELDS)
        return pa.table([*ours.columns, *(carried[name] for name in names)], schema=schema)


def _ending(data: bytes) -> str:
    format = accepted_format(data)
    return "jpg" if format == "jpeg" else str(format)


def _content(copy: _Copy) -> Content:
    return Content(copy.source.pixels_HWC, copy.draw.style, copy.draw.strength, copy.source.blur_score)
