"""How fast one worker will stylize: as given, as the job's first part was measured, or by trying a few pictures."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stylejobs.core.bootstrap import Interval, bootstrap_interval
from stylejobs.engine.header_sample import HeaderSample
from stylejobs.engine.samples import narrow, spread_over_files, take_evenly, take_rows
from stylejobs.engine.stylizer import Stylizer, StylizeSettings
from stylejobs.engine.writer import Stopwatch, schema_from_text
from stylejobs.errors import GateError, RowError
from stylejobs.records.codec import read_header
from stylejobs.storage.descriptors import Unit
from stylejobs.storage.markers import Marker
from stylejobs.storage.reading import read_unit
from stylejobs.storage.unit_rows import UnitRows

TYPICAL_BYTES = {"jpeg": 0.35e6, "png": 2.2e6, "webp": 0.2e6}
"""Bytes of 10**6 stylized pixels at the default quality, where nothing was measured."""

_PROBE_SECONDS = 5.0
_PROBE_UNITS = 4
_PROBE_ROWS = 32
_GROUP_ROWS = 4
_MOST_MARKERS = 1000


@dataclass(frozen=True)
class Pace:
    """What one worker does, and what comes out of it.

    Attributes:
        rate: stylized images a second of one worker, with a 95 % interval over the pictures that were measured.
        bytes_per_image: of a stylized image; None where nothing was measured.
        how: where it comes from, in words.
    """

    rate: Interval
    bytes_per_image: float | None
    how: str


def given_pace(rate: float) -> Pace:
    """The pace that somebody knows, in images a second of one worker."""
    return Pace(Interval(rate, rate, rate), None, "given with rate=")


def measured_pace(markers: Collection[Marker], copies: int, codec_threads: int) -> Pace | None:
    """The pace of the part of the job that is done; None where nothing is.

    A worker's time for a unit is that of reading and writing and of the slower of the two that run side by side: the
    generator, and the codec on its threads.

    Args:
        copies: stylized images that a unit of work makes of each row.
    """
    done = take_evenly([marker for marker in markers if marker.rows_ok and marker.seconds], _MOST_MARKERS)
    if not done:
        return None
    images_N = torch.tensor([float(copies * marker.rows_ok) for marker in done], dtype=torch.float64)
    seconds_N = torch.tensor([_wall(marker.seconds, codec_threads) for marker in done], dtype=torch.float64)
    rate = _interval(lambda rows: images_N[rows].sum(1) / seconds_N[rows].sum(1), (len(done),))
    num_bytes = sum(marker.bytes_out for marker in done)
    return Pace(rate, num_bytes / images_N.sum().item(), f"measured in {len(done):,} unit(s) that are done")


def _wall(seconds: dict[str, float], codec_threads: int) -> float:
    codec = (seconds.get("decode", 0.0) + seconds.get("encode", 0.0)) / codec_threads
    return max(1e-6, seconds.get("read", 0.0) + seconds.get("write", 0.0) + max(seconds.get("generate", 0.0), codec))


def probe_pace(units: Sequence[Unit], settings: StylizeSettings, sample: HeaderSample) -> Pace:
    """Stylizes up to 32 real pictures of up to 4 units in this process, for about 5 seconds.

    Larger pictures than that leaves time for are not tried: the rate is that of pixels, divided by the mean size of
    the sampled headers.

    Raises:
        GateError: not one of the pictures could be stylized.
    """
    use_gpu = settings.use_gpu and torch.cuda.is_available()
    num_threads = torch.get_num_threads()
    try:
        groups, where = _try_pictures(units, replace(settings, use_gpu=use_gpu)), "GPU" if use_gpu else "CPU"
    finally:
        torch.set_num_threads(num_threads)
    made_G, seconds_G, bytes_G = (torch.tensor(column, dtype=torch.float64) for column in zip(*groups, strict=True))
    weighted_U, rows_U = sample.megapixels(settings.short_side_px)

    def rate(groups: Tensor, rows: Tensor) -> Tensor:
        per_second = made_G[groups].sum(1) / seconds_G[groups].sum(1)
        return per_second * rows_U[rows].sum(1) / weighted_U[rows].sum(1)

    mean = (weighted_U.sum() / rows_U.sum()).item()
    how = f"a probe of {made_G.sum():.2f} megapixels on this machine's {where}"
    if settings.use_gpu and not use_gpu:
        how += "; workers will hold GPUs, so give rate= if you know theirs"
    interval = _interval(rate, (len(groups), len(rows_U)))
    return Pace(interval, (bytes_G.sum() / made_G.sum()).item() * mean, how)


def _interval(statistic: Callable[..., Tensor], sizes: tuple[int, ...]) -> Interval:
    """95 % by resampling; of a single observation nothing is known, and taking it twice says so: no width."""

    def resampled(*drawn: Tensor) -> Tensor:
        return statistic(*(rows.clamp(max=size - 1) for rows, size in zip(drawn, sizes, strict=True)))

    return bootstrap_interval(resampled, tuple(max(2, size) for size in sizes))


def _try_pictures(units: Sequence[Unit], settings: StylizeSettings) -> list[tuple[float, float, float]]:
    """(megapixels made, seconds, bytes made) of each group of pictures."""
    worker, deadline = Stylizer(settings), time.monotonic() + _PROBE_SECONDS
    made: list[tuple[float, float, float]] = []
    reasons: set[str] = set()
    pace = None  # seconds for 10**6 pixels of source
    for rows in _read_groups(units, settings):
        if pace is None:  # the smallest alone: it pays for what is done once, and says what others will take
            few, megapixels = _fitting(rows, settings, 0.0)
            warm = _timed(worker, few, reasons)
            pace = warm and warm[1] / megapixels
        left = deadline - time.monotonic()
        if pace and (left > 0 or not made):
            few, megapixels = _fitting(rows, settings, left / pace)
            if group := _timed(worker, few, reasons):
                made.append(group)
                pace = max(pace / 2, group[1] / megapixels)
        if made and left <= 0:
            break
    if not made:
        raise GateError(
            f"plan: none of the sampled pictures could be stylized ({'; '.join(sorted(reasons))}): look at the model "
            "and the source"
        )
    return made


def _read_groups(units: Sequence[Unit], settings: StylizeSettings) -> Iterator[UnitRows]:
    """A few rows of all sizes at a time, out of several files."""
    carried = schema_from_text(settings.write.carried_schema)
    chosen = spread_over_files(units, _PROBE_UNITS)
    num_rows = _PROBE_ROWS // len(chosen)
    for unit in chosen:
        rows = take_rows(read_unit(narrow(unit, num_rows), carried, settings.limits.max_bytes), num_rows)
        num_groups = math.ceil(len(rows) / _GROUP_ROWS)
        for group in range(num_groups):
            yield rows.select(range(group, len(rows), num_groups))


def _fitting(rows: UnitRows, settings: StylizeSettings, most: float) -> tuple[UnitRows, float]:
    """The smallest rows, but at least one, of together at most so many megapixels; and these megapixels."""
    sizes = {row: _num_pixels(image, settings) / 1e6 for row, image in enumerate(rows.images)}
    taken, total = [], 0.0
    for row in sorted(sizes, key=sizes.__getitem__):
        if taken and total + sizes[row] > most:
            break
        taken.append(row)
        total += sizes[row]
    return rows.select(sorted(taken)), total


def _num_pixels(image: bytes | RowError, settings: StylizeSettings) -> float:
    if isinstance(image, RowError):
        return float("inf")
    try:
        header = read_header(image, settings.limits)
    except RowError:
        return float("inf")
    factor = settings.short_side_px / min(header.height, header.width) if settings.short_side_px else 1.0
    return header.height * header.width * factor * factor


def _timed(worker: Stylizer, rows: UnitRows, reasons: set[str]) -> tuple[float, float, float] | None:
    started = time.monotonic()
    converted = worker.convert(rows, Stopwatch())
    seconds = time.monotonic() - started
    reasons.update(str(error) for error in converted.errors.values())
    made = converted.table.select(["image", "width", "height", "is_synthetic"]).to_pylist()
    made = [row for row in made if row["is_synthetic"]]
    megapixels = sum(row["width"] * row["height"] for row in made) / 1e6
    return (megapixels, seconds, float(sum(len(row["image"]["bytes"]) for row in made))) if made else None
