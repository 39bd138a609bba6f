"""What a person sees of a stylized dataset: the report page and the dataset card."""

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from stylejobs import __version__
from stylejobs.config.schema import StylizeConfig
from stylejobs.engine.results import JobResult
from stylejobs.engine.samples import narrow, take_evenly
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import RowError
from stylejobs.records.codec import Limits, decode_image, encode_image
from stylejobs.records.resize import limit_long_side
from stylejobs.records.schema import STYLIZED_FIELDS, carrying_schema
from stylejobs.report.card import Card, render_readme
from stylejobs.report.page import (
    FailureExample,
    FailureRow,
    GalleryItem,
    ModelLine,
    Report,
    RowCounts,
    UnitCounts,
    render_report,
)
from stylejobs.storage import locations
from stylejobs.storage.markers import Marker
from stylejobs.storage.reading import read_unit
from stylejobs.storage.shards import read_shard
from stylejobs.storage.sinks import read_part
from stylejobs.storage.sources import Unit
from stylejobs.tracking.tracker import Tracker

_STAGES = ("read", "decode", "generate", "encode", "write")
_MAX_UNITS_SHOWN = 8
_EXAMPLES_PER_REASON = 3
_SHOWN_SIDE_PX = 768
_SHOWN_QUALITY = 88


def write_report(config: StylizeConfig, job: UnitJob, result: JobResult, tracker: Tracker) -> JobResult:
    """Writes DEST/report/index.html and DEST/README.md, logs both to the run, and names the page in the result."""
    report = _report(config, job, result)
    page, card = render_report(report), render_readme(_card(job, report, config.sink))
    place = locations.join(job.dest, "report", "index.html")
    locations.write_atomic(place, page.encode())
    locations.write_atomic(locations.join(job.dest, "README.md"), card.encode())
    with tempfile.TemporaryDirectory(prefix="stylejobs-report-") as folder:
        path = os.path.join(folder, "index.html")
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
        tracker.log_file(path, "report")
    message = "\n".join(filter(None, [result.message, _summary(result), f"report: {place}"]))
    return result.with_(report=place, message=message)


def _summary(result: JobResult) -> str:
    rows, units = result.rows, result.units
    rate = f", {result.images_per_second:.1f} images/s" if result.images_per_second else ""
    return (
        f"{rows['ok']:,} of {rows['in']:,} images stylized, {rows['bad']:,} bad{rate}; units: {units['done']:,} done, "
        f"{units['skipped']:,} were done before, {units['failed']:,} failed, of {units['total']:,}"
    )


def _report(config: StylizeConfig, job: UnitJob, result: JobResult) -> Report:
    rows, units, model = result.rows, result.units, result.model
    parameters = {**job.identity["parameters"], "max_bad": config.max_bad}
    parameters.pop("limits")
    return Report(
        verb="stylize",
        exit_code=result.exit_code,
        code_version=__version__,
        started_at=(datetime.now(UTC) - timedelta(seconds=result.seconds)).strftime("%Y-%m-%d %H:%M UTC"),
        seconds=result.seconds,
        source_uri=job.source.uri,
        dest_uri=job.dest,
        rows=RowCounts(rows["in"], rows["written"], rows["bad"]),
        units=UnitCounts(units["total"], units["done"], units["skipped"], units["failed"]),
        images_per_second=result.images_per_second,
        model=ModelLine(model["name"], model["version"], model["sha256"]),
        styles=tuple(job.settings.drawing.styles),
        parameters=tuple((name, str(value)) for name, value in parameters.items()),
        stage_seconds=tuple((name, result.stage_seconds[name]) for name in _STAGES if name in result.stage_seconds),
        failures=_failures(job),
        gallery=tuple(_gallery(job, config.gallery)),
        gallery_note="sink=null keeps none." if config.sink == "null" else "",
    )


def _card(job: UnitJob, report: Report, sink: str) -> Card:
    schema = carrying_schema(STYLIZED_FIELDS, job.source.carried_schema)
    return Card(
        title=os.path.basename(job.dest),
        source_uri=report.source_uri,
        dest_uri=report.dest_uri,
        rows=report.rows,
        columns=tuple((field.name, str(field.type)) for field in schema),
        code_version=report.code_version,
        made_at=report.started_at,
        model=report.model,
        styles=report.styles,
        parameters=report.parameters,
        sink=sink,
    )


def _failures(job: UnitJob) -> tuple[FailureRow, ...]:
    examples: dict[str, list[FailureExample]] = defaultdict(list)
    missing = set(job.by_reason)
    for marker in job.markers.values():
        if not missing:
            break
        if not missing & marker.by_reason.keys():
            continue
        table = read_shard(locations.join(job.dest, marker.dead_letter), columns=["key", "reason", "message"])
        for letter in table.to_pylist():
            if len(examples[letter["reason"]]) < _EXAMPLES_PER_REASON:
                examples[letter["reason"]].append(FailureExample(letter["key"], letter["message"]))
        missing = {reason for reason in missing if len(examples[reason]) < _EXAMPLES_PER_REASON}
    return tuple(FailureRow(reason, count, tuple(examples[reason])) for reason, count in job.by_reason.items())


def _gallery(job: UnitJob, num_items: int) -> Iterator[GalleryItem]:
    """Pictures from units all over the job, source beside result; of Parquet only their first row groups are read.

    A job that goes on reads a hundredth of its units for it, so that resuming costs what is left to do.
    """
    written = sorted((marker for marker in job.markers.values() if marker.file), key=lambda marker: marker.index)
    most = min(_MAX_UNITS_SHOWN, max(1, len(written) // 100)) if job.skipped else _MAX_UNITS_SHOWN
    num_units = min(most, len(written), num_items)
    for number in range(num_units):
        marker = written[number * len(written) // num_units]
        share = num_items * (number + 1) // num_units - num_items * number // num_units
        yield from _unit_gallery(job, marker, share)


def _unit_gallery(job: UnitJob, marker: Marker, num_items: int) -> Iterator[GalleryItem]:
    part = read_part(job.dest, marker.file, max_row_groups=1)
    unit = job.work[marker.fingerprint].unit
    numbers = [number for number, row in enumerate(part.rows) if row["is_synthetic"]]
    if unit.kind != "parquet":
        numbers = list(take_evenly(numbers, num_items))
    sources = _source_images(job, unit, {part.rows[number]["key"] for number in numbers})
    numbers = take_evenly([number for number in numbers if part.rows[number]["key"] in sources], num_items)
    limits = replace(job.settings.limits, min_side_px=1)
    for number in numbers:
        row = part.rows[number]
        source = _shown(sources.get(row["key"]), limits)
        result = _shown(part.picture(number), limits)
        if source and result:
            yield GalleryItem(
                source_bytes=source,
                source_mime="image/jpeg",
                result_bytes=result,
                result_mime="image/jpeg",
                key=row["key"],
                style=row["style"],
                strength=row["strength"],
                width=row["width"],
                height=row["height"],
            )


def _source_images(job: UnitJob, unit: Unit, keys: set[str]) -> dict[str, bytes | RowError]:
    """Encoded source images of some rows of a unit, reading as little of it as its kind allows."""
    if unit.kind in ("files", "list"):
        names = [name for name in unit.files if name in keys]
        unit = replace(unit, files=tuple(names), labels={})
    elif unit.kind == "parquet":
        unit = narrow(unit, 1)
    rows = read_unit(unit, pa.schema([]), job.settings.limits.max_bytes)
    return {key: image for key, image in zip(rows.keys, rows.images, strict=True) if key in keys}


def _shown(data: bytes | RowError | None, limits: Limits) -> bytes | None:
    """A picture as the page holds it: a JPEG of moderate size."""
    if not isinstance(data, bytes):
        return None
    pixels_HWC = limit_long_side(decode_image(data, limits), _SHOWN_SIDE_PX)
    return encode_image(pixels_HWC, "jpeg", _SHOWN_QUALITY)
