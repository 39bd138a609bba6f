"""Sources, models and undisturbed runs, for jobs and trainings that are killed, crowded and deceived."""

import io
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
from tests.faults.processes import Job
from tests.faults.training_job import TINY, TrainJob, write_pictures

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


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, photos)
    return folder


@pytest.fixture
def train(tmp_path: Path, pictures: Path, tracking_store: str) -> Iterator[Callable[..., TrainJob]]:
    """train(name, *more, environment=...): the training of these pictures."""
    jobs: list[TrainJob] = []

    def begin(name: str, *more: str, environment: dict[str, str] | None = None) -> TrainJob:
        line = (*TINY, f"name={name}", f"content={pictures}/photos", f"style={pictures}/paintings", *more)
        jobs.append(TrainJob(tmp_path, name, line, {"MLFLOW_TRACKING_URI": tracking_store, **(environment or {})}))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.end()


@pytest.fixture(scope="session")
def undisturbed_training(tmp_path_factory: pytest.TempPathFactory, pictures: Path, tracking_store: str) -> dict:
    """The result of the training that is left alone."""
    line = (*TINY, "name=alone", f"content={pictures}/photos", f"style={pictures}/paintings")
    job = TrainJob(tmp_path_factory.mktemp("alone"), "alone", line, {"MLFLOW_TRACKING_URI": tracking_store})
    try:
        code, result = job.finish(600)
        assert code == 0, job.text()
        return result
    finally:
        job.end()
