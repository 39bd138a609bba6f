"""A unit job from its opened books to its result."""

import time

from stylejobs.config.sections import Limits as LimitsSection
from stylejobs.engine.command import failure
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.results import JobResult
from stylejobs.engine.unit_job import UnitJob
from stylejobs.records.codec import Limits
from stylejobs.storage.units import Marker
from stylejobs.tracking.tracker import Tracker


def limits_of(section: LimitsSection) -> Limits:
    """The codec's limits from their config section."""
    return Limits(int(section.max_mb * 2**20), section.max_megapixels, section.max_aspect, section.min_side_px)


def carry_out(job: UnitJob, tracker: Tracker) -> JobResult:
    """Does what is left of a job and publishes it; whatever happens, the result says how far it got."""
    started = time.monotonic()
    first = job.count("rows_in")

    def on_unit(marker: Marker, progress: JobProgress) -> None:
        tracker.log_metrics(
            {
                "rows_ok": job.count("rows_ok"),
                "rows_bad": job.count("rows_bad"),
                "images_per_second": progress.rate,
                "megabytes_out": job.count("bytes_out") / 2**20,
            },
            step=len(job.markers),
        )

    try:
        job.run(on_unit)
        proof = job.publish()
        result = JobResult(job.verb, proof=proof, details={"manifest_sha256": proof["manifest_sha256"]})
    except (Exception, KeyboardInterrupt) as error:
        result = failure(job.verb, error)
    seconds = max(1e-9, time.monotonic() - started)
    num_new = job.count("rows_in") - first
    return result.with_(
        dest=job.dest,
        record_uri=job.dest,
        rows={
            "in": job.count("rows_in"),
            "ok": job.count("rows_ok"),
            "bad": job.count("rows_bad"),
            "by_reason": job.by_reason,
        },
        units={
            "total": len(job.source.units),
            "done": len(job.markers) - job.skipped,
            "skipped": job.skipped,
            "failed": len(job.failures),
        },
        images_per_second=round(num_new / seconds, 2) if num_new else None,
        seconds=round(seconds, 3),
        stage_seconds=job.stage_seconds,
    )
