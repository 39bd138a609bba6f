"""What a planned job will take: pictures by size, bytes, hours, money and when it will be done."""

import math
import os
from datetime import datetime, timedelta

import torch

from stylejobs.config.schema import BenchmarkConfig, StylizeConfig
from stylejobs.engine.header_sample import HeaderSample, count_rows, sample_headers
from stylejobs.engine.pace import TYPICAL_BYTES, Pace, given_pace, measured_pace, probe_pace
from stylejobs.engine.session import ray_session
from stylejobs.engine.stylizer import StylizeSettings
from stylejobs.engine.unit_job import UnitJob


def make_forecast(config: StylizeConfig, job: UnitJob, now: datetime) -> dict:
    """A plan's numbers as plain values.

    Memory and time are those of the units: 64 of them are looked into, however many there are.

    Args:
        now: with a time zone; the job is thought to begin then, and start-up (seconds) is left out.

    Returns:
        `rows` (of the source; `rows_known` says whether they are counted or estimated), `bytes_in`, `sampled`,
        `megapixels` and `buckets` of them; of what is left to do `images_left`, `bytes_out`, `rate` (images/s of one
        worker: value, low, high, how), `workers`, `hours`, `gpu_hours`, `cpu_hours`, `money` (None where a price is
        missing) and `finish` (each expected, low, high).
    """
    sample = sample_headers(job.source, job.settings.limits)
    pace = _find_pace(config, job, sample)
    units = job.source.units
    num_rows = count_rows(units, sample)
    images_left = _copies(config) * count_rows([item.unit for item in job.pending.values()], sample)
    workers = _count_workers(config, job)
    hours = [images_left / (rate * workers * 3600) for rate in (pace.rate.value, pace.rate.high, pace.rate.low)]
    buckets = sample.buckets(num_rows)
    return {
        "rows": num_rows,
        "rows_known": job.source.num_rows is not None,
        "bytes_in": sum(unit.num_bytes for unit in units),
        "sampled": {"images": sample.num_images, "units": len(sample.units), "how": sample.how},
        "megapixels": round(sum(bucket["megapixels"] for bucket in buckets), 3),
        "buckets": buckets,
        "images_left": images_left,
        "bytes_out": _bytes_out(job.settings, sample, pace, images_left),
        "rate": {
            "value": rounded(pace.rate.value),
            "low": rounded(pace.rate.low),
            "high": rounded(pace.rate.high),
            "how": pace.how,
        },
        "workers": workers,
        "hours": expected_low_high(hours),
        **cost_of(config, hours, workers),
        "finish": _finish(hours, now),
    }


def _copies(config: StylizeConfig) -> int:
    """Stylized images that an item makes of each row: with variants=each an item is one style."""
    return 1 if config.variants == "each" else config.variants


def _find_pace(config: StylizeConfig, job: UnitJob, sample: HeaderSample) -> Pace:
    if config.rate is not None:
        return given_pace(config.rate)
    measured = measured_pace(job.markers.values(), _copies(config), job.settings.codec_threads)
    return measured or probe_pace(job.source.units, job.settings, sample)


def _bytes_out(settings: StylizeSettings, sample: HeaderSample, pace: Pace, num_images: int) -> dict:
    if pace.bytes_per_image is not None:
        return {"value": round(num_images * pace.bytes_per_image), "how": "from the pictures that the rate comes from"}
    weighted_U, rows_U = sample.megapixels(settings.short_side_px)
    mean = (weighted_U.sum() / rows_U.sum()).item()
    typical = TYPICAL_BYTES[settings.format]
    how = f"{typical / 1e6:g} bytes a pixel, typical of {settings.format}, not measured"
    return {"value": round(num_images * mean * typical), "how": how}


def _count_workers(config: StylizeConfig, job: UnitJob) -> int:
    """As the job will count them; a cluster is only asked where the config leaves it to the cluster."""
    num_items, wanted = max(1, len(job.pending)), job.workers
    if wanted.actors is None and "RAY_ADDRESS" in os.environ:
        with ray_session():
            return wanted.count(num_items)
    if wanted.actors is not None:
        return wanted.count(num_items)
    cpus = config.cluster.num_cpus or len(os.sched_getaffinity(0))
    fits = torch.cuda.device_count() / wanted.gpus if wanted.gpus else cpus / max(wanted.cpus, 1e-9)
    return max(1, min(int(fits), num_items))


def cost_of(config: StylizeConfig | BenchmarkConfig, hours: list[float], workers: int) -> dict:
    """`gpu_hours`, `cpu_hours` and `money` of so many workers; `money` is None where a price is missing.

    Args:
        hours: that they take: expected, low, high.
    """
    gpus, cpus = config.cluster.actor_gpus * workers, config.cluster.actor_cpus * workers
    prices = [(gpus, config.prices.gpu_hour), (cpus, config.prices.cpu_hour)]
    is_known = all(price is not None for count, price in prices if count)
    hourly = sum(count * (price or 0.0) for count, price in prices)
    return {
        "gpu_hours": expected_low_high([gpus * time for time in hours]),
        "cpu_hours": expected_low_high([cpus * time for time in hours]),
        "money": expected_low_high([hourly * time for time in hours]) if is_known else None,
    }


def _finish(hours: list[float], now: datetime) -> dict:
    moments = [(now + timedelta(hours=time)).isoformat(timespec="minutes") for time in hours]
    return dict(zip(("expected", "low", "high"), moments, strict=True))


def expected_low_high(values: list[float]) -> dict:
    """Three values by name, to four digits."""
    return dict(zip(("expected", "low", "high"), map(rounded, values), strict=True))


def rounded(value: float) -> float:
    """To four digits.

    >>> rounded(123456.7), rounded(0.000123456)
    (123500.0, 0.0001235)
    """
    return float(f"{value:.4g}") if math.isfinite(value) else value
