"""The driver of a very large job, in a process of its own: `plan`, `mark` (say that units are done) or `start` it.

    python -m tests.bench.scale_driver start SOURCE DEST NUM_LEFT

Prints one JSON line with what it took. Nothing is stylized: the worker only answers. The source is made of real Parquet
files whose footers promise many rows and whose images are null, so that it costs nothing to write.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import stylejobs.engine.stylize  # noqa: F401 (what a stylizing driver has in memory counts)
from stylejobs.engine.budget import Budget
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.session import ray_session
from stylejobs.engine.stream import Worker, Workers, WorkItem
from stylejobs.engine.unit_job import UnitJob
from stylejobs.storage.markers import Marker, Markers, write_marker
from stylejobs.storage.sources import plan_source
from tests.bench.process import peak_rss_mb

GROUPS_A_FILE, ROWS_A_GROUP = 100, 2500


class FirstAnswerError(Exception):
    """Ends the job as soon as a worker has answered."""


def marker_of(item: WorkItem) -> Marker:
    """What a worker would say of an item."""
    return Marker(
        fingerprint=item.fingerprint,
        index=item.index,
        file=f"data/part-{item.index:05d}-{item.fingerprint[:12]}.parquet",
        file_sha256="0" * 64,
        dead_letter=None,
        rows_in=item.unit.num_rows,
        rows_ok=item.unit.num_rows,
        rows_bad=0,
        bytes_in=2**26,
        bytes_out=2**26,
        seconds={"read": 0.1, "decode": 1.0, "generate": 5.0, "encode": 1.0, "write": 0.1},
    )


class Answering(Worker):
    """Answers that an item is done, and does nothing."""

    def __init__(self, settings: None):
        pass

    def do(self, item: WorkItem) -> dict:
        return {"marker": vars(marker_of(item))}


def write_source(folder: Path, num_files: int) -> int:
    """Parquet files of 100 row groups of 2,500 rows each; returns how many rows their footers promise."""
    num_rows = GROUPS_A_FILE * ROWS_A_GROUP
    table = pa.table({"image": pa.nulls(num_rows, pa.binary()), "label": pa.repeat(7, num_rows)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=ROWS_A_GROUP)
    data = sink.getvalue()
    folder.mkdir(parents=True)
    for number in range(num_files):
        (folder / f"shard-{number:05d}.parquet").write_bytes(data)
    return num_files * pq.read_metadata(pa.BufferReader(data)).num_rows


def build(source: str, dest: str) -> UnitJob:
    """Every row group a unit."""
    return UnitJob(
        verb="stylize",
        dest=dest,
        source=plan_source(source, unit_bytes=1),
        identity={"verb": "stylize", "benchmark": "scale"},
        worker=Answering,
        settings=None,
        budget=Budget(0.005, {}),
        workers=Workers(actors=2),
    )


def opened(source: str, dest: str) -> UnitJob:
    """Planned, its markers read."""
    job = build(source, dest)
    job.open({"source": job.source.summary()})
    return job


def plan(source: str, dest: str, num_left: int) -> dict:
    """From the listing to the opened books."""
    job = opened(source, dest)
    job.release()
    return {"units": len(job.work), "rows": job.source.num_rows}


def mark(source: str, dest: str, num_left: int) -> dict:
    """Markers, compacted, for all units but `num_left` that lie all over the plan."""
    job = build(source, dest)
    items = list(job.work.values())
    left = {number * len(items) // num_left for number in range(num_left)}
    done = [marker_of(item) for number, item in enumerate(items) if number not in left]
    # Written and compacted a thousand at a time, as the job that made them would have done.
    for start in range(0, len(done), 1000):
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda marker: write_marker(dest, marker), done[start : start + 1000]))
        Markers(dest).compact()
    return {"markers": len(done), "files": len(os.listdir(os.path.join(dest, "_stylejobs", "units")))}


def start(source: str, dest: str, num_left: int) -> dict:
    """The job, or the same command again where units are done: to the first answer of a worker."""
    from stylejobs.tracking.mlflow_tracker import MlflowTracker

    job = opened(source, dest)
    moments = {"planned": time.time()}

    def on_unit(marker: Marker, progress: JobProgress) -> None:
        raise FirstAnswerError

    with MlflowTracker.start("scale", "start", {}):
        moments["tracker"] = time.time()
        with ray_session():
            moments["ray"] = time.time()
            try:
                job.run(on_unit)
            except FirstAnswerError:
                moments["first answer"] = time.time()
            finally:
                job.release()
    return {"left": len(job.pending), "moments": moments}


def _seconds_since_start() -> float:
    """Of this process: what a person waits."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - _started_ticks() / os.sysconf("SC_CLK_TCK")


def _started_ticks() -> int:
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])


def _main(verb: str, source: str, dest: str, num_left: str) -> Iterator[str]:
    started = time.time() - _seconds_since_start()
    imported = time.time() - started
    answer = {"plan": plan, "mark": mark, "start": start}[verb](source, dest, int(num_left))
    moments = answer.pop("moments", {})
    yield json.dumps(
        {
            **answer,
            "seconds": {name: round(moment - started, 2) for name, moment in moments.items()}
            | {"imports": round(imported, 2), "all": round(time.time() - started, 2)},
            "peak_mb": round(peak_rss_mb()),
        }
    )


if __name__ == "__main__":
    for text in _main(*sys.argv[1:]):
        print(text, flush=True)
