"""A stylize job as a process of its own, to be killed, crowded and deceived while it runs."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from stylejobs.core.networks import build_network
from stylejobs.storage.packages import save_package

NUM_UNITS, ROWS = 24, 48


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A package whose generator takes a good tenth of a second for a picture: long enough to be killed in."""
    folder = tmp_path_factory.mktemp("slow-model")
    save_slow_model(folder, seed=0)
    return str(folder)


def save_slow_model(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    options = {"width": 32, "blocks": 4}
    network = build_network("johnson", **options)
    save_package(str(folder), "johnson", options, network.state_dict(), {"style": torch.zeros(0)}, {})


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, np.ndarray]) -> Path:
    """24 row groups of 2 pictures, so that there are 24 units; for tests that leave it as it is."""
    path = tmp_path_factory.mktemp("shards") / "in.parquet"
    write_source(path, photos["coffee"])
    return path


def write_source(path: Path, photo: np.ndarray) -> None:
    images = []
    for number in range(ROWS):
        sink = io.BytesIO()
        Image.fromarray(photo[number : number + 200, number : number + 220]).save(sink, "JPEG")
        images.append(sink.getvalue())
    table = pa.table({"image": images, "key": [f"row-{number:02d}" for number in range(ROWS)]})
    pq.write_table(table, path, row_group_size=ROWS // NUM_UNITS, compression="none", write_page_checksum=True)


class Job:
    """A running command."""

    def __init__(self, folder: Path, dest: str, line: list[str], environment: dict[str, str]):
        self.dest = folder / dest
        self._out = open(folder / f"{dest}.out", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.stylize", *line, f"dest={dest}"],
            cwd=folder, stdout=self._out, stderr=self._out, start_new_session=True, env={**os.environ, **environment},
        )  # fmt: skip

    def units_done(self) -> int:
        return len(list((self.dest / "_stylejobs" / "units").glob("*.json")))

    def wait_for_units(self, count: int, timeout: float = 180) -> None:
        deadline = time.monotonic() + timeout
        while self.units_done() < count:
            assert self.process.poll() is None, f"the job ended before {count} units: {self.text()}"
            assert time.monotonic() < deadline, f"{self.units_done()} of {count} units in {timeout} s: {self.text()}"
            time.sleep(0.02)

    def finish(self, timeout: float = 240) -> tuple[int, dict]:
        """Exit code and result."""
        code = self.process.wait(timeout)
        last = self.text().strip().splitlines()[-1:]
        return code, json.loads(last[0]) if last and last[0].startswith("{") else {}

    def text(self) -> str:
        self._out.flush()
        return Path(self._out.name).read_text()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Whatever is left of it: the session that the command started is its own."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        self._out.close()


@pytest.fixture
def start(tmp_path: Path, shards: Path, slow_model: str, tracking_store: str) -> Iterator[Callable[..., Job]]:
    """start(dest, *more, source=..., model=..., environment=...): the job on `shards`, one unit a row group."""
    jobs: list[Job] = []

    def begin(
        dest: str,
        *more: str,
        source: Path = shards,
        model: str = slow_model,
        environment: dict[str, str] | None = None,
    ) -> Job:
        line = job_line(source, model, more)
        jobs.append(Job(tmp_path, dest, line, {"MLFLOW_TRACKING_URI": tracking_store, **(environment or {})}))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.end()


def job_line(source: Path, model: str, more: Sequence[str]) -> list[str]:
    actors = [] if any(text.startswith("cluster.actors") for text in more) else ["cluster.actors=1"]
    line = [f"source={source}", f"model={model}", "unit_mb=0.001", "cluster.object_store_mb=100", "gallery=0"]
    return [*line, *actors, *more]


@pytest.fixture(scope="session")
def undisturbed(
    shards: Path, slow_model: str, tracking_store: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What the job on `shards` writes when it is left alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = Job(folder, "out", job_line(shards, slow_model, ()), {"MLFLOW_TRACKING_URI": tracking_store})
    code, _ = job.finish()
    assert code == 0, job.text()
    job.end()
    return contents(job.dest)


def contents(dest: Path) -> dict[str, bytes]:
    """Bytes of all data files by name."""
    return {path.name: path.read_bytes() for path in (dest / "data").iterdir() if not path.name.startswith(".")}


def assert_whole(dest: Path, undisturbed: dict[str, bytes]) -> None:
    """Rows lost: 0. Rows twice: 0. The same bytes. Nothing torn left behind."""
    found = contents(dest)
    assert found == undisturbed and len(found) == NUM_UNITS
    keys = pq.read_table(dest / "data", columns=["key"])["key"].to_pylist()
    assert sorted(keys) == [f"row-{number:02d}" for number in range(ROWS)]
    assert not list(dest.rglob(".*")), "torn temporary files are left"
    assert (dest / "_SUCCESS").exists() and not (dest / "_stylejobs" / "lease.json").exists()


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they started; the children before their children."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def named(pids: list[int], beginning: str) -> list[int]:
    """Those whose command line begins so."""
    found = []
    for pid in pids:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if line.rpartition("/")[2].startswith(beginning) or line.startswith(beginning):
            found.append(pid)
    return found
