"""The verb `benchmark`: a small job through the whole path of an image, and a receipt of what it took.

The job is one of stylize, with its readers, actors, encoders and markers, in a folder of its own that is deleted
afterwards. Only canary, page and MLflow are left out: they cost a large job nothing, and a small one everything.
"""

import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa

from stylejobs.config.schema import BenchmarkConfig, StylizeConfig
from stylejobs.core.scenes import make_scene
from stylejobs.engine.cost_receipt import make_receipt, print_receipt
from stylejobs.engine.jobs import carry_out
from stylejobs.engine.models import BUILTIN, PinnedModel
from stylejobs.engine.results import JobResult
from stylejobs.engine.samples import spread_over_files
from stylejobs.engine.session import num_nodes, ray_session
from stylejobs.engine.stream import Workers
from stylejobs.engine.stylize import plan_stylize
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import SourceError, UsageError
from stylejobs.records.codec import encode_image
from stylejobs.records.schema import IMAGE_TYPE
from stylejobs.storage import locations
from stylejobs.storage.shards import encode_shard
from stylejobs.storage.sources import plan_source
from stylejobs.storage.units import read_plan_of
from stylejobs.tracking.tracker import NullTracker

UNITS_PER_WORKER = 4
PICTURES_PER_UNIT = 32
_SHARED = {
    "image_column", "size", "format", "quality", "precision", "micro_batch", "unit_mb", "cluster", "prices"
}  # fmt: skip
"""Keys that mean here what they mean in stylize."""

_STYLE_SEED = 2**32
_PICTURE_QUALITY = 92
_THREADS = 16


@contextmanager
def benchmark_place(config: BenchmarkConfig) -> Iterator[str]:
    """A folder to work in, on a running Ray; afterwards it is gone, with all that is in it.

    Raises:
        SourceError: `dest` holds a dataset.
        UsageError: no `dest`, on a cluster of several nodes.
    """
    if config.dest is not None and read_plan_of(config.dest) is not None:
        raise SourceError(f"dest={config.dest} holds a dataset, whose result the receipt would replace; choose another")
    with ray_session(config.cluster.num_cpus, config.cluster.object_store_mb):
        if config.dest is None:
            if (nodes := num_nodes()) > 1:
                raise UsageError(
                    f"dest=: {nodes} nodes share no temporary folder; give a place that all of them reach, such as "
                    "s3://BUCKET/benchmark"
                )
            with tempfile.TemporaryDirectory(prefix="stylejobs-benchmark-") as folder:
                yield folder
            return
        folder = locations.join(locations.absolute(config.dest), f"benchmark-{uuid.uuid4().hex[:12]}")
        try:
            yield folder
        finally:
            locations.delete_folder(folder)


def plan_benchmark(config: BenchmarkConfig, place: str) -> tuple[UnitJob, PinnedModel]:
    """Some units of the source, or of pictures that are made for it, as a job of stylize in `place`."""
    cluster = config.cluster
    workers = Workers(cluster.actors, cluster.actor_cpus, cluster.actor_gpus)
    num_units = config.units or UNITS_PER_WORKER * workers.count(10**6)
    source_uri = config.source
    if source_uri is None:
        source_uri = locations.join(place, "pictures")
        _write_pictures(source_uri, num_units, config.side_px)
    styles = config.styles
    if styles is None and config.model.startswith(BUILTIN):
        styles = (locations.join(place, "style.png"),)
        locations.write_atomic(styles[0], encode_image(make_scene(256, 256, _STYLE_SEED).numpy(), "png", 100))
    stylize = StylizeConfig(
        source=source_uri,
        dest=locations.join(place, "stylized"),
        model=config.model,
        styles=styles,
        max_bad=1.0,  # bad rows are counted in the receipt
        **{name: getattr(config, name) for name in _SHARED},
    )
    source = plan_source(source_uri, config.unit_mb * 2**20, config.image_column)
    some = replace(source, units=spread_over_files(source.units, num_units))
    job, model = plan_stylize(stylize, some)
    job.verb = job.counted_as = "benchmark"
    return job, model


def _write_pictures(folder: str, num_shards: int, side_px: int) -> None:
    """Shards of one unit each: the same pictures, half of them lying, half standing, with other keys."""
    sizes = [(side_px, side_px * 4 // 3), (side_px * 4 // 3, side_px)]

    def make(seed: int) -> dict:
        pixels_HWC = make_scene(*sizes[seed % 2], seed).numpy()
        return {"bytes": encode_image(pixels_HWC, "jpeg", _PICTURE_QUALITY), "path": f"{seed:02d}.jpg"}

    def write(shard: int) -> None:
        keys = pa.array([f"{shard:06d}-{picture:02d}" for picture in range(PICTURES_PER_UNIT)])
        data = encode_shard(pa.table({"image": images, "key": keys}), row_group_bytes=2**40)
        locations.write_atomic(locations.join(folder, f"{shard:06d}.parquet"), data)

    images = pa.array([make(seed) for seed in range(PICTURES_PER_UNIT)], IMAGE_TYPE)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(write, range(num_shards)))


class _Timeline(NullTracker):
    """When units were whole, and how many images there were then."""

    def __init__(self) -> None:
        self.moments: list[tuple[float, float]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Notes the moment [s] and the images so far."""
        self.moments.append((time.monotonic(), metrics["rows_ok"]))


def benchmark(config: BenchmarkConfig, job: UnitJob, model: PinnedModel) -> JobResult:
    """Runs the job and hands out its receipt: in the result's `details`, and as a table on stderr."""
    timeline, started = _Timeline(), time.monotonic()
    result = carry_out(job, lambda: timeline)
    job.release(at_once=True)
    dest = config.dest and locations.absolute(config.dest)
    # What was written is about to be deleted: no proof of it, and nothing to go on from.
    result = result.with_(dest=dest, record_uri=dest, proof=None, details={}, model=model.described())
    if result.exit_code:
        return result
    moments = [(moment - started, images) for moment, images in timeline.moments]
    receipt = make_receipt(config, job, moments)
    print_receipt(receipt)
    return result.with_(details={"receipt": receipt}, images_per_second=receipt["images_per_second"]["value"])
