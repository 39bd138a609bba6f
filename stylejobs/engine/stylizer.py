"""The stylizing worker: encoded images in, stylized images with their lineage out.

Rows are decoded on a few threads ahead of the generator and encoded behind it. The generator sees micro-batches of
rows of one size, formed in source order within the unit: which rows share a batch is a function of the unit alone, so
a retry gives the same pixels.

The image that is written is x + strength (y - x): x the source, y the generator's image of x, or of x sharpened where
`deblur` applies; with `preserve_colour` y takes the chroma of x. So strength 0 is the source, byte for byte, whatever
else is set, and the generator is not even asked. What is measured of a row (blur score, strength by content match)
is computed on the CPU from that row alone.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from stylejobs.core.luma import keep_colour
from stylejobs.core.match import embed
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.core.precision import autocast
from stylejobs.core.sharpness import Deblur, blur_score
from stylejobs.engine.writer import Converted, Stopwatch, UnitWorker, WriteSettings
from stylejobs.errors import EncodeError, GenerateError, RowError
from stylejobs.records.codec import Limits, decode_image, encode_image
from stylejobs.records.lineage import Draw, draw
from stylejobs.records.resize import resize_short_side
from stylejobs.records.schema import STYLIZED_FIELDS, carried_columns, carrying_schema
from stylejobs.storage.packages import load_package
from stylejobs.storage.reading import UnitRows

_MAX_WAITING_PIXELS = 64_000_000
"""Decoded pixels that may wait for others of their size before they are generated in a smaller batch."""


@dataclass(frozen=True)
class StylizeSettings:
    """What decides the output beside the source; see the keys of the `stylize` config for the meaning.

    Attributes:
        package_uri: the model package, where every worker can read it; `package_sha256` is checked.
        strength: "auto" is by content match, which the package must hold for all styles.
        short_side_px: None keeps the source's size.
        deblur: None sharpens nothing.
        threads: torch threads; `codec_threads` decode and encode.
    """

    write: WriteSettings
    package_uri: str
    model_name: str
    model_version: str
    model_sha256: str
    package_sha256: str
    styles: tuple[str, ...]
    variants: int
    strength: float | Literal["auto"]
    seed: int
    short_side_px: int | None
    format: str
    quality: int
    micro_batch: int
    precision: str
    limits: Limits
    preserve_colour: bool = False
    deblur: Deblur | None = None
    use_gpu: bool = False
    threads: int = 1
    codec_threads: int = 2


@dataclass(frozen=True)
class _Source:
    """A decoded row and what was measured of it; `strength` is one number, or one for each style."""

    pixels_HWC: np.ndarray
    blur_score: float
    strength: float | dict[str, float]


@dataclass(frozen=True)
class _Copy:
    """One stylized copy to be made: a row, what was drawn for it, and its source."""

    row: int
    draw: Draw
    source: _Source


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
        self._s = settings
        self._device = torch.device("cuda" if settings.use_gpu else "cpu")
        loaded = load_package(settings.package_uri, settings.package_sha256)
        self._generator = loaded.generator.to(self._device, memory_format=torch.channels_last)
        self._match = loaded.match
        self._codes = {name: code.to(self._device) for name, code in loaded.styles.items()}
        self._pool = ThreadPoolExecutor(settings.codec_threads, thread_name_prefix="codec")

    def convert(self, rows: UnitRows, stopwatch: Stopwatch) -> Converted:
        errors: dict[int, RowError] = {}
        encoding: dict[tuple[int, int], tuple[Draw, float, Future]] = {}
        for batch in self._batches(self._decoded(rows, errors, stopwatch), rows.keys):
            for copy, made in zip(batch, self._generate(batch, stopwatch), strict=True):
                future = self._pool.submit(self._encode, made, stopwatch)
                encoding[copy.row, copy.draw.variant] = (copy.draw, copy.source.blur_score, future)
        made: dict[tuple[int, int], _Made] = {}
        for (row, variant), (drawn, score, future) in sorted(encoding.items()):
            result = future.result()
            if isinstance(result, RowError):
                errors.setdefault(row, result)
            else:
                made[row, variant] = _Made(drawn, score, *result)
        written = {place: value for place, value in made.items() if place[0] not in errors}
        return Converted(self._table(rows, written), errors)

    def _decoded(
        self, rows: UnitRows, errors: dict[int, RowError], stopwatch: Stopwatch
    ) -> Iterator[tuple[int, _Source]]:
        """Rows that decode, in order, a window of them ahead of the generator."""
        window = 2 * self._s.micro_batch + self._s.codec_threads
        futures: dict[int, Future] = {}
        for row in range(len(rows)):
            for ahead in range(row + len(futures), min(row + window, len(rows))):
                futures[ahead] = self._pool.submit(self._decode, rows.images[ahead], stopwatch)
            result = futures.pop(row).result()
            if isinstance(result, RowError):
                errors[row] = result
            else:
                yield row, result

    def _decode(self, image: bytes | RowError, stopwatch: Stopwatch) -> _Source | RowError:
        if isinstance(image, RowError):
            return image
        with stopwatch.stage("decode"):
            try:
                pixels_HWC = decode_image(image, self._s.limits)
            except RowError as error:
                return error
            if self._s.short_side_px:
                pixels_HWC = resize_short_side(pixels_HWC, self._s.short_side_px)
            return self._measured(pixels_HWC)

    @torch.inference_mode()
    def _measured(self, pixels_HWC: np.ndarray) -> _Source:
        image_1CHW = to_float(torch.from_numpy(np.stack([pixels_HWC])))
        strength = self._s.strength
        if strength == "auto":
            embedding_1D = embed(image_1CHW)
            strength = {style: self._match.strength(embedding_1D, style).item() for style in self._s.styles}
        return _Source(pixels_HWC, blur_score(image_1CHW).item(), strength)

    def _batches(self, decoded: Iterator[tuple[int, _Source]], keys: list[str]) -> Iterator[list[_Copy]]:
        """Micro-batches of copies of one size, in an order that only the unit's rows decide."""
        s = self._s
        waiting: dict[tuple[int, int], list[_Copy]] = {}
        num_pixels = 0
        for row, source in decoded:
            size = source.pixels_HWC.shape[:2]
            for variant in range(s.variants):
                drawn = draw(s.seed, keys[row], variant, s.styles, source.strength)
                waiting.setdefault(size, []).append(_Copy(row, drawn, source))
                num_pixels += size[0] * size[1]
                if len(waiting[size]) == s.micro_batch:
                    num_pixels -= s.micro_batch * size[0] * size[1]
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
            live = [copy for copy in batch if copy.draw.strength > 0.0]
            stylized = iter(self._stylize(live) if live else ())
            return [next(stylized) if copy.draw.strength > 0.0 else copy.source.pixels_HWC for copy in batch]

    @torch.inference_mode()
    def _stylize(self, batch: list[_Copy]) -> list[np.ndarray | RowError]:
        content_BHWC = torch.from_numpy(np.stack([copy.source.pixels_HWC for copy in batch])).to(self._device)
        content_BCHW = to_float(content_BHWC).contiguous(memory_format=torch.channels_last)
        style_BD = torch.stack([self._codes[copy.draw.style] for copy in batch])
        strength_B111 = torch.tensor([copy.draw.strength for copy in batch], device=self._device).view(-1, 1, 1, 1)
        sharp_BCHW = self._sharpened(content_BCHW, batch)
        with autocast(self._device.type, self._s.precision):
            stylized_BCHW = self._generator(sharp_BCHW, style_BD)
        stylized_BCHW = stylized_BCHW.float()
        finite_B = torch.isfinite(stylized_BCHW).flatten(1).all(1).tolist()
        if self._s.preserve_colour:
            stylized_BCHW = keep_colour(stylized_BCHW, content_BCHW)
        made_BHWC = to_uint8(torch.lerp(content_BCHW, stylized_BCHW, strength_B111)).cpu().numpy()
        unusable = GenerateError("non_finite", "the generator's output holds NaN or infinity")
        return [pixels_HWC if finite else unusable for pixels_HWC, finite in zip(made_BHWC, finite_B, strict=True)]

    def _sharpened(self, content_BCHW: torch.Tensor, batch: list[_Copy]) -> torch.Tensor:
        deblur = self._s.deblur
        blurry = [n for n, copy in enumerate(batch) if deblur and deblur.applies_to(copy.source.blur_score)]
        if not blurry:
            return content_BCHW
        sharp_BCHW = content_BCHW.clone()
        sharp_BCHW[blurry] = deblur(content_BCHW[blurry])
        return sharp_BCHW

    def _encode(self, made: np.ndarray | RowError, stopwatch: Stopwatch) -> tuple[bytes, tuple[int, int]] | RowError:
        if isinstance(made, RowError):
            return made
        with stopwatch.stage("encode"):
            try:
                return encode_image(made, self._s.format, self._s.quality), made.shape[:2]
            except EncodeError as error:
                return error

    def _table(self, rows: UnitRows, written: dict[tuple[int, int], _Made]) -> pa.Table:
        s = self._s
        schema = carrying_schema(STYLIZED_FIELDS, rows.carried.schema)
        order = [row for row, _ in written]
        source_sha256 = {row: hashlib.sha256(rows.images[row]).hexdigest() for row in set(order)}
        endings = {"jpeg": "jpg"}
        lineage = [
            {
                "image": {"bytes": made.data, "path": f"{rows.keys[row]}.{endings.get(s.format, s.format)}"},
                "key": rows.keys[row],
                "source_uri": rows.sources[row],
                "source_sha256": source_sha256[row],
                "style": made.draw.style,
                "strength": made.draw.strength,
                "variant": made.draw.variant,
                "seed": made.draw.seed,
                "model_name": s.model_name,
                "model_version": s.model_version,
                "model_sha256": s.model_sha256,
                "width": made.size[1],
                "height": made.size[0],
                "out_sha256": hashlib.sha256(made.data).hexdigest(),
                "is_synthetic": True,
                "blur_score": made.blur_score,
            }
            for (row, _), made in written.items()
        ]
        ours = pa.Table.from_pylist(lineage, schema=pa.schema(STYLIZED_FIELDS))
        carried = rows.carried.take(pa.array(order, pa.int64()))
        names = carried_columns(rows.carried.schema, STYLIZED_FIELDS)
        return pa.table([*ours.columns, *(carried[name] for name in names)], schema=schema)
