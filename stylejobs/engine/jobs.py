"""A unit job from its opened books to its result."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from datetime import time as dt_time

from stylejobs.config.sections import Limits as LimitsSection
from stylejobs.engine.command import failure
from stylejobs.engine.metrics import record, record_tracking, running
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.results import JobResult
from stylejobs.engine.unit_job import UnitJob
from stylejobs.records.codec import Limits
from stylejobs.storage.markers import Marker
from stylejobs.tracking.tracker import NullTracker, Tracker


def limits_of(section: LimitsSection) -> Limits:
    """The codec's limits from their config section."""
    return Limits(int(section.max_mb * 2**20), section.max_megapixels, section.max_aspect, section.min_side_px)


def next_deadline(text: str | None, now: float) -> float | None:
    """A `deadline` of the config as seconds since the epoch [s]: the next such time of day, or the moment it names.

    >>> next_deadline("2030-01-01T07:00:00+00:00", 0.0)
    1893481200.0
    """
    if text is None:
        return None
    if "T" in text:
        return datetime.fromisoformat(text).timestamp()
    here = datetime.fromtimestamp(now)
    moment = datetime.combine(here, dt_time.fromisoformat(text))
    # Through the wall clock, so that a night with a change of summer time ends when people expect it.
    return (moment if moment > here else moment + timedelta(days=1)).timestamp()


def carry_out(
    job: UnitJob, tracker: Callable[[], Tracker] = NullTracker, check: Callable[[], None] | None = None
) -> JobResult:
    """Does what is left of a job and publishes it; whatever happens, the result says how far it got.

    Args:
        tracker: gives where metrics go; asked after each unit, so it may be long in coming. What it raises ends the
            job.
        check: comes first; what it raises ends the job before anything is done.
    """
    started = time.monotonic()
    first = job.count("rows_in")

    def on_unit(marker: Marker, progress: JobProgress) -> None:
        told = tracker()
        told.log_metrics(
            {
                "rows_ok": job.count("rows_ok"),
                "rows_bad": job.count("rows_bad"),
                "images_per_second": progress.rate,
                "megabytes_out": job.count("bytes_out") / 2**20,
            },
            step=len(job.markers),
        )
        record("images_per_second", progress.rate, verb=job.counted_as)
        record_tracking(job.counted_as, told)

    try:
        with running(job.counted_as):
            if check:
                check()
            job.run(on_unit)
            proof = job.publish()
        result = JobResult(job.verb, proof=proof, details={"manifest_sha256": proof["manifest_sha256"]})
    except (Exception, KeyboardInterrupt) as error:
        result = failure(job.verb, error)
    finally:
        job.release()
    return _counted(job, result, time.monotonic() - started, job.count("rows_in") - first)


def _counted(job: UnitJob, result: JobResult, seconds: float, num_new: int) -> JobResult:
    """The result with what the job knows of its rows and units; `num_new` rows were done in `seconds`."""
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
            "total": len(job.work),
            "done": len(job.markers) - job.skipped,
            "skipped": job.skipped,
            "failed": len(job.failures),
        },
        images_per_second=round(num_new / max(1e-9, seconds), 2) if num_new > 0 else None,
        seconds=round(seconds, 3),
        stage_seconds=job.stage_seconds,
        details={**result.details, **({"balance": job.balance} if job.balance else {})},
    )
