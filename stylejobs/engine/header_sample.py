"""How large the pictures of a source are, from a few headers: no pixel is decoded, whatever the source's size.

Image shards say it in their columns `width` and `height`, of which a row group's worth is read. Of other sources the
headers of a few pictures of each sampled unit are. A unit's pictures stand for all of its rows.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from stylejobs.engine.samples import take_evenly
from stylejobs.errors import RowError, SourceError
from stylejobs.records.codec import Limits, read_header
from stylejobs.storage import locations
from stylejobs.storage.descriptors import Source, Unit
from stylejobs.storage.lists import place_of
from stylejobs.storage.tars import read_samples

BUCKETS = (0.25, 1.0, 4.0, 16.0, math.inf)
"""Upper bounds of the size buckets of plans, in 10**6 pixels."""

_SIZE_COLUMNS = ("height", "width")
_MIN_UNITS, _MAX_UNITS = 8, 64
_MOST_BYTES = 2**30
_PER_UNIT = 8
_PER_ROW_GROUP = 4096
_HEAD_BYTES = 2**18
_THREADS = 8


@dataclass(frozen=True)
class UnitSizes:
    """What was seen of one unit.

    Attributes:
        num_rows: of the whole unit; what its bytes and those of its first pictures suggest where nothing says it.
        sizes: (height, width) of some upright pictures, in pixels; at least one.
    """

    num_bytes: int
    num_rows: float
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class HeaderSample:
    """Sizes of pictures all over a source.

    Attributes:
        how: where they come from, in words.
    """

    units: tuple[UnitSizes, ...]
    how: str

    @property
    def num_images(self) -> int:
        return sum(len(unit.sizes) for unit in self.units)

    @property
    def bytes_per_row(self) -> float:
        """Source bytes."""
        return sum(unit.num_bytes for unit in self.units) / sum(unit.num_rows for unit in self.units)

    def megapixels(self, short_side_px: int | None) -> tuple[Tensor, Tensor]:
        """Of each sampled unit, its megapixels (as stylized) and its rows, both float64 [U]; their ratio is the mean.

        Args:
            short_side_px: of the result; None keeps the source's.
        """
        rows_U = torch.tensor([unit.num_rows for unit in self.units], dtype=torch.float64)
        means = [sum(_megapixels(*size, short_side_px) for size in unit.sizes) / len(unit.sizes) for unit in self.units]
        return rows_U * torch.tensor(means, dtype=torch.float64), rows_U

    def buckets(self, num_rows: int) -> list[dict]:
        """The source's rows and megapixels by size: {"up_to": 10**6 px, "rows", "megapixels"}, without empty ones."""
        found = [[0.0, 0.0] for _ in BUCKETS]
        total = sum(unit.num_rows for unit in self.units)
        for unit in self.units:
            weight = num_rows * unit.num_rows / total / len(unit.sizes)
            for size in unit.sizes:
                megapixels = _megapixels(*size, None)
                bucket = found[next(n for n, bound in enumerate(BUCKETS) if megapixels <= bound)]
                bucket[0] += weight
                bucket[1] += weight * megapixels
        return [
            {"up_to": None if math.isinf(bound) else bound, "rows": round(rows), "megapixels": round(megapixels, 3)}
            for bound, (rows, megapixels) in zip(BUCKETS, found, strict=True)
            if rows
        ]


def _megapixels(height: int, width: int, short_side_px: int | None) -> float:
    factor = 1.0 if short_side_px is None else short_side_px / min(height, width)
    return height * width * factor * factor / 1e6


def sample_headers(source: Source, limits: Limits) -> HeaderSample:
    """Looks into 8 to 64 units, as many as a gigabyte of reading allows, spread evenly over the source.

    Raises:
        SourceError: a file cannot be read, or no sampled picture has a header within the limits.
        StorageError: the storage cannot be reached.
    """
    units = take_evenly(source.units, _count_units(source))
    with ThreadPoolExecutor(_THREADS) as pool:
        seen = [found for found in pool.map(lambda unit: _look_into(unit, limits), units) if found.sizes]
    if not seen:
        raise SourceError(
            f"{source.uri}: no picture of the {len(units)} unit(s) that were looked into has a header that we read"
        )
    how = "headers of pictures" if source.kind != "parquet" else "columns width and height, or headers without these"
    return HeaderSample(tuple(seen), how)


def _count_units(source: Source) -> int:
    """Fewer where a page of Parquet has to be read for the headers in it: many writers make pages of 1024 pictures."""
    if source.kind != "parquet" or _has_sizes(source.carried_schema):
        return _MAX_UNITS
    mean_bytes = sum(unit.num_bytes for unit in source.units) / len(source.units)
    return max(_MIN_UNITS, min(_MAX_UNITS, int(_MOST_BYTES / max(1.0, mean_bytes))))


def _has_sizes(schema: pa.Schema) -> bool:
    return all(name in schema.names and pa.types.is_integer(schema.field(name).type) for name in _SIZE_COLUMNS)


def _look_into(unit: Unit, limits: Limits) -> UnitSizes:
    if unit.kind == "parquet":
        return _look_into_parquet(unit, limits)
    if unit.kind == "tar":
        return _look_into_tar(unit, limits)
    places = take_evenly(unit.files, _PER_UNIT)
    sizes = [size for name in places if (size := _size_of_file(unit, name, limits))]
    return UnitSizes(unit.num_bytes, len(unit.files), tuple(sizes))


def _look_into_parquet(unit: Unit, limits: Limits) -> UnitSizes:
    try:
        with locations.open_file(unit.source_uri, cache_type="none") as file:
            # Buffered and not ahead: of a chunk of pictures only the first pages are read.
            parquet = pq.ParquetFile(file, buffer_size=2**18, pre_buffer=False)
            num_rows = sum(parquet.metadata.row_group(group).num_rows for group in range(*unit.row_groups))
            sizes = tuple(_parquet_sizes(parquet, unit, limits))
    except FileNotFoundError as error:
        raise SourceError(f"{unit.source_uri}: was there when the source was listed and is gone now") from error
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{unit.source_uri}: row group {unit.row_groups[0]} cannot be read: {error}") from error
    return UnitSizes(unit.num_bytes, num_rows, sizes)


def _parquet_sizes(parquet: pq.ParquetFile, unit: Unit, limits: Limits) -> Iterator[tuple[int, int]]:
    group = unit.row_groups[0]
    if _has_sizes(parquet.schema_arrow):
        table = parquet.read_row_group(group, columns=list(_SIZE_COLUMNS)).slice(0, _PER_ROW_GROUP)
        found = zip(*(table[name].to_pylist() for name in _SIZE_COLUMNS), strict=True)
        yield from ((height, width) for height, width in found if height and width)
        return
    batch = next(parquet.iter_batches(_PER_UNIT, [group], columns=[unit.image_column]), None)
    for value in batch.column(0).to_pylist() if batch else ():
        data = (value or {}).get("bytes") if isinstance(value, dict) else value
        if data and (size := _size(data, limits)):
            yield size


def _look_into_tar(unit: Unit, limits: Limits) -> UnitSizes:
    samples = read_samples(unit.source_uri, limits.max_bytes, max_samples=_PER_UNIT)
    images = [sample.image for sample in samples if isinstance(sample.image, bytes)]
    sizes = tuple(size for image in images if (size := _size(image, limits)))
    num_rows = unit.num_bytes * len(images) / sum(map(len, images)) if images else 0.0
    return UnitSizes(unit.num_bytes, num_rows, sizes)


def _size_of_file(unit: Unit, name: str, limits: Limits) -> tuple[int, int] | None:
    uri = place_of(unit.source_uri, name) if unit.kind == "list" else locations.join(unit.source_uri, name)
    try:
        with locations.open_file(uri, cache_type="none") as file:
            head = file.read(_HEAD_BYTES)
        if size := _size(head, limits):
            return size
        # Some formats keep their header at the end.
        return _size(locations.read_bytes(uri), limits) if len(head) == _HEAD_BYTES else None
    except FileNotFoundError:
        return None


def _size(data: bytes, limits: Limits) -> tuple[int, int] | None:
    try:
        header = read_header(data, limits)
    except RowError:
        return None
    return header.height, header.width


def count_rows(units: Sequence[Unit], sample: HeaderSample) -> int:
    """Rows of some units; where nothing says it, what their bytes suggest."""
    return round(
        sum(unit.num_bytes / sample.bytes_per_row if unit.num_rows is None else unit.num_rows for unit in units)
    )
