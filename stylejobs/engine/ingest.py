"""Images anywhere -> image shards: every picture checked, upright and 8-bit RGB; every other row a dead letter."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stylejobs.config.schema import IngestConfig
from stylejobs.engine.budget import Budget
from stylejobs.engine.jobs import carry_out, limits_of
from stylejobs.engine.results import JobResult
from stylejobs.engine.session import ray_session
from stylejobs.engine.stream import Workers
from stylejobs.engine.unit_job import UnitJob
from stylejobs.engine.writer import Converted, Stopwatch, UnitWorker, WriteSettings, schema_to_text
from stylejobs.errors import RowError
from stylejobs.records.codec import Limits, decode_image, encode_image, is_plain_rgb8, read_header
from stylejobs.records.resize import limit_long_side
from stylejobs.records.schema import IMAGE_FIELDS, carried_columns, carrying_schema
from stylejobs.storage import locations
from stylejobs.storage.reading import UnitRows
from stylejobs.storage.sources import plan_source

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class IngestSettings:
    """See the keys of the `ingest` config."""

    write: WriteSettings
    limits: Limits
    max_side_px: int | None
    codec_threads: int = 2


@dataclass(frozen=True)
class _Picture:
    data: bytes
    width: int
    height: int


class Ingester(UnitWorker):
    """Checks and normalises pictures.

    Bytes are kept as they are when they already are 8-bit RGB, upright and small enough, in JPEG, PNG or WebP. All
    else is decoded by the rule of `stylejobs.records.codec` and encoded again: JPEGs as JPEG (quality 95), the rest
    losslessly as PNG. Every picture is decoded in full, so that a torn one is found here and not at night.
    """

    def __init__(self, settings: IngestSettings):
        super().__init__(settings.write)
        self._s = settings
        self._pool = ThreadPoolExecutor(settings.codec_threads, thread_name_prefix="codec")

    def convert(self, rows: UnitRows, stopwatch: Stopwatch, part: dict | None = None) -> Converted:
        results = list(self._pool.map(lambda image: self._check(image, stopwatch), rows.images))
        errors = {row: result for row, result in enumerate(results) if isinstance(result, RowError)}
        good = {row: result for row, result in enumerate(results) if isinstance(result, _Picture)}
        return Converted(_table(rows, good), errors)

    def _check(self, image: bytes | RowError, stopwatch: Stopwatch) -> _Picture | RowError:
        if isinstance(image, RowError):
            return image
        try:
            with stopwatch.stage("decode"):
                header = read_header(image, self._s.limits)
                pixels_HWC = decode_image(image, self._s.limits)
            fits = self._s.max_side_px is None or max(header.width, header.height) <= self._s.max_side_px
            if fits and is_plain_rgb8(header) and header.format in ("jpeg", "png", "webp"):
                return _Picture(image, header.width, header.height)
            with stopwatch.stage("encode"):
                picture = self._normalised(pixels_HWC, header.format)
            # Shrunk, a long thin picture may be too thin for any reader of ours.
            read_header(picture.data, self._s.limits)
            return picture
        except RowError as error:
            return error

    def _normalised(self, pixels_HWC: np.ndarray, source_format: str) -> _Picture:
        if self._s.max_side_px is not None:
            pixels_HWC = limit_long_side(pixels_HWC, self._s.max_side_px)
        data = encode_image(pixels_HWC, "jpeg" if source_format == "jpeg" else "png", _JPEG_QUALITY)
        return _Picture(data, width=pixels_HWC.shape[1], height=pixels_HWC.shape[0])


def _table(rows: UnitRows, good: dict[int, _Picture]) -> pa.Table:
    schema = carrying_schema(IMAGE_FIELDS, rows.carried.schema)
    records = [
        {
            "image": {"bytes": picture.data, "path": rows.paths[row]},
            "key": rows.keys[row],
            "width": picture.width,
            "height": picture.height,
            "sha256": hashlib.sha256(picture.data).hexdigest(),
        }
        for row, picture in good.items()
    ]
    ours = pa.Table.from_pylist(records, schema=pa.schema(IMAGE_FIELDS))
    carried = rows.carried.take(pa.array(list(good), pa.int64()))
    names = carried_columns(rows.carried.schema, IMAGE_FIELDS)
    return pa.table([*ours.columns, *(carried[name] for name in names)], schema=schema)


def plan_ingest(config: IngestConfig) -> UnitJob:
    """Plans the source and takes `dest`: a source or dest that cannot be used ends the command here."""
    source = plan_source(config.source, config.shard_mb * 2**20, config.image_column, config.labels, config.labels_csv)
    limits = limits_of(config.limits)
    dest = locations.absolute(config.dest)
    write = WriteSettings(dest, schema_to_text(source.carried_schema), limits.max_bytes, config.row_group_mb * 2**20)
    decisive = {"shard_mb", "row_group_mb", "max_side", "labels", "labels_csv", "image_column", "limits"}
    job = UnitJob(
        verb="ingest",
        dest=dest,
        source=source,
        identity={
            "verb": "ingest",
            "source": locations.absolute(config.source),
            "parameters": config.model_dump(mode="json", include=decisive),
        },
        worker=Ingester,
        settings=IngestSettings(write, limits, config.max_side, codec_threads=max(1, round(config.cluster.actor_cpus))),
        budget=Budget(config.max_bad, config.max_bad_of.given()),
        workers=Workers(config.cluster.actors, config.cluster.actor_cpus),
    )
    job.open({"source": source.summary()})
    return job


def ingest(config: IngestConfig, job: UnitJob) -> JobResult:
    """Runs the job; what an earlier run finished is not read again."""
    with ray_session(config.cluster.num_cpus, config.cluster.object_store_mb):
        return carry_out(job)
