"""Shared by all tests: a clean environment, one local Ray, real photographs, and the verbs as commands."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.s3_place import S3Place

ROOT = Path(__file__).parents[1]
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "AWS_EC2_METADATA_DISABLED": "true",
    "HF_HUB_OFFLINE": "1",
    # Tensors of tests are tiny: a second thread makes them slower, and takes the core that Ray's processes need.
    "OMP_NUM_THREADS": "1",
}


def pytest_configure() -> None:
    """Before any test module is imported: nothing of the user's cloud or cluster leaks in."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_", "RAY_", "STYLEJOBS_")) and name != "STYLEJOBS_DATA":
            del os.environ[name]
    os.environ.update(_QUIET)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """The one local Ray of the test session."""
    from stylejobs.engine.session import ray_session

    with ray_session(num_cpus=4, object_store_mb=256):
        yield


@pytest.fixture(scope="session")
def tracking_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The one MLflow store of the session: making a new SQLite store takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator["S3Place"]:
    """The one S3 server of the session."""
    from tests.s3_place import start

    place = start(tmp_path_factory.mktemp("s3"))
    try:
        yield place
    finally:
        place.server.end()


@pytest.fixture(scope="session")
def photos() -> dict[str, np.ndarray]:
    """Real photographs, uint8 [H, W, 3], out of scikit-image's and scikit-learn's wheels."""
    import skimage.data
    import sklearn.datasets

    names = ("astronaut", "coffee", "chelsea", "rocket")
    images = {name: np.asarray(getattr(skimage.data, name)()) for name in names}
    return images | {"flower": sklearn.datasets.load_sample_image("flower.jpg")}


@pytest.fixture
def photo_folder(tmp_path: Path, photos: dict[str, np.ndarray]) -> Path:
    """A folder of 20 JPEGs of several sizes in class folders."""
    folder = tmp_path / "photos"
    for number in range(20):
        name = list(photos)[number % len(photos)]
        height, width = 48 + 8 * (number % 3), 64 + 7 * (number % 4)
        crop = photos[name][number : number + height, 2 * number : 2 * number + width]
        path = folder / name / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(path, quality=90)
    return folder


@pytest.fixture
def style_image(tmp_path: Path, photos: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "flower.png"
    Image.fromarray(photos["flower"][100:228, 200:328]).save(path)
    return path


class Outcome:
    """What a command left: exit code, the JSON of its last stdout line, and the text for people."""

    def __init__(self, exit_code: int, stdout: str, stderr: str):
        self.exit_code, self.stdout, self.stderr = exit_code, stdout, stderr
        self.result = json.loads(stdout.strip().splitlines()[-1]) if stdout.strip().endswith("}") else {}


@pytest.fixture
def verb(
    ray_cluster: None,
    tracking_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Outcome]:
    """Runs a verb in this process, on the shared Ray, in a folder of its own: verb("ingest", "source=...")."""
    import importlib

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)

    def call(name: str, *arguments: str) -> Outcome:
        # one actor is enough for a few small pictures, and starts sooner than four
        if name in ("ingest", "stylize") and not any(text.startswith("cluster.actors=") for text in arguments):
            arguments = (*arguments, "cluster.actors=1")
        capsys.readouterr()
        exit_code = importlib.import_module(f"pipelines.{name}").main(arguments)
        captured = capsys.readouterr()
        return Outcome(exit_code, captured.out, captured.err)

    return call


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Outcome]:
    """Runs a verb as a command of its own: command("stylize", "--help")."""

    def call(name: str, *arguments: str, timeout: float = 240) -> Outcome:
        line = [sys.executable, "-m", f"pipelines.{name}", *arguments]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=timeout)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call
