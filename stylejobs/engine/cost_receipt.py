"""The receipt of a benchmark: where the time went, what all workers do in a second, what a million images take."""

import sys
from dataclasses import dataclass
from importlib.metadata import version

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stylejobs.config.schema import BenchmarkConfig
from stylejobs.engine.forecast import cost_of, expected_low_high, rounded
from stylejobs.engine.header_sample import sample_headers
from stylejobs.engine.pace import Pace, measured_pace
from stylejobs.engine.session import available, num_nodes
from stylejobs.engine.unit_job import UnitJob

MADE = "made"
"""What a receipt calls the source of pictures that were made for it."""

_MILLION = 1e6


@dataclass(frozen=True)
class Rate:
    """Images a second of all workers together.

    Attributes:
        how: where `value` comes from, in words; `low` and `high` are as far from it as those of one worker.
    """

    value: float
    low: float
    high: float
    how: str


def make_receipt(config: BenchmarkConfig, job: UnitJob, moments: list[tuple[float, float]]) -> dict:
    """A receipt as plain values.

    Args:
        job: done, on the Ray that is connected.
        moments: for each unit, in the order in which they were whole, the seconds since the start [s] and the images
            so far.

    Returns:
        `cluster`, `pictures` (means; sizes as stylized), `first_unit_seconds` (from a running Ray, workers and model
        included), `images_per_second` (value, low, high, how), `one_worker` (value, low, high), `stages` (seconds of
        threads, milliseconds an image, share of all), `bound_by` and `per_million` (`hours`, `gpu_hours`, `cpu_hours`,
        `money`, which is None where a price is missing; each expected, low, high).
    """
    markers = list(job.markers.values())
    workers, threads = job.workers.count(len(job.work)), job.settings.codec_threads
    pace = measured_pace(markers, 1, threads)
    assert pace is not None, "a job without a stylized image has failed before"
    rate = _rate(moments, workers, pace)
    hours = [_MILLION / (images * 3600) for images in (rate.value, rate.high, rate.low)]
    num_images, resources = job.count("rows_ok"), available()
    weighted_U, rows_U = sample_headers(job.source, job.settings.limits).megapixels(job.settings.short_side_px)
    return {
        "cluster": {
            "nodes": num_nodes(),
            "cpus": resources.get("CPU", 0.0),
            "gpus": resources.get("GPU", 0.0),
            "workers": workers,
            "ray": version("ray"),
            "torch": torch.__version__,
        },
        "pictures": {
            "source": config.source or MADE,
            "units": len(markers),
            "images": num_images,
            "bad": job.count("rows_bad"),
            "megapixels": rounded((weighted_U.sum() / rows_U.sum()).item()),
            "bytes_in": round(job.count("bytes_in") / max(1, job.count("rows_in"))),
            "bytes_out": round(job.count("bytes_out") / num_images),
        },
        "first_unit_seconds": round(moments[0][0], 3),
        "images_per_second": {**_rounded(rate.value, rate.low, rate.high), "how": rate.how},
        "one_worker": _rounded(pace.rate.value, pace.rate.low, pace.rate.high),
        "stages": _stages(job.stage_seconds, num_images),
        "bound_by": bound_by(job.stage_seconds, threads),
        "per_million": {"hours": expected_low_high(hours), **cost_of(config, hours, workers)},
    }


def _rate(moments: list[tuple[float, float]], workers: int, pace: Pace) -> Rate:
    """By the clock from where every worker may have done a unit: before that, some were still starting."""
    value, how = workers * pace.rate.value, "that of one worker, times the workers: too few units to take the time"
    if len(moments) > workers:
        (first, before), (last, after) = moments[workers - 1], moments[-1]
        if last > first and after > before:
            value = (after - before) / (last - first)
            how = f"by the clock, over the last {len(moments) - workers:,} of {len(moments):,} units"
    scale = value / pace.rate.value
    return Rate(value, pace.rate.low * scale, pace.rate.high * scale, how)


def bound_by(seconds: dict[str, float], codec_threads: int) -> str:
    """What a worker spends most of its time on; the generator and the codec run side by side.

    Args:
        seconds: by stage, summed over threads [s].

    >>> bound_by({"read": 1.0, "decode": 3.0, "generate": 9.0, "encode": 4.0, "write": 1.0}, codec_threads=2)
    'generator'
    """
    parts = {
        "generator": seconds.get("generate", 0.0),
        "codec": (seconds.get("decode", 0.0) + seconds.get("encode", 0.0)) / codec_threads,
        "storage": seconds.get("read", 0.0) + seconds.get("write", 0.0),
    }
    return max(parts, key=lambda name: parts[name])


def _stages(seconds: dict[str, float], num_images: int) -> dict[str, dict[str, float]]:
    total = sum(seconds.values())
    return {
        stage: {
            "seconds": spent,
            "milliseconds_per_image": rounded(1e3 * spent / num_images),
            "share": round(spent / total, 4),
        }
        for stage, spent in sorted(seconds.items(), key=lambda item: -item[1])
    }


def _rounded(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def print_receipt(receipt: dict) -> None:
    """The receipt as people read it, on stderr."""
    sys.stdout.flush()
    Console(stderr=True).print(_table(receipt))


def _table(receipt: dict) -> Table:
    cluster, pictures, rate, one = (
        receipt[name] for name in ("cluster", "pictures", "images_per_second", "one_worker")
    )
    origin = "made for it" if pictures["source"] == MADE else f"of {escape(pictures['source'])}"
    costs = receipt["per_million"]
    table = Table(title="benchmark", show_header=False, title_justify="left")
    table.add_row(
        "cluster", f"{cluster['nodes']:,} node(s), {cluster['cpus']:g} CPUs, {cluster['gpus']:g} GPUs, "
        f"{cluster['workers']:,} workers"
    )  # fmt: skip
    table.add_row(
        "pictures",
        f"{pictures['images']:,} {origin}, {pictures['megapixels']:g} MP, "
        f"{pictures['bytes_in'] / 1e3:,.0f} kB -> {pictures['bytes_out'] / 1e3:,.0f} kB; {pictures['bad']:,} bad",
    )
    table.add_row("first unit", f"after {receipt['first_unit_seconds']:.1f} s")
    table.add_row("images/s", f"{rate['value']:g} ({rate['low']:g} to {rate['high']:g}), {rate['how']}")
    table.add_row("images/s a worker", f"{one['value']:g} ({one['low']:g} to {one['high']:g})")
    for stage, spent in receipt["stages"].items():
        table.add_row(f"  {stage}", f"{spent['share']:.0%}, {spent['milliseconds_per_image']:g} ms an image")
    table.add_row("bound by", receipt["bound_by"])
    for name, words in (("hours", "hours"), ("gpu_hours", "GPU-hours"), ("cpu_hours", "CPU-hours"), ("money", "money")):
        span = costs[name]
        told = f"{span['expected']:,.4g} ({span['low']:,.4g} to {span['high']:,.4g})" if span else None
        table.add_row(f"a million: {words}", told or "prices.gpu_hour and prices.cpu_hour say it")
    return table
