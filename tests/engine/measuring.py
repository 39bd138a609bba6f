"""Work of every kind, done so that Prometheus can be asked what it read of it."""

import contextlib
import os
import re
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray
from PIL import Image

from stylejobs.config.schema import StylizeConfig
from stylejobs.engine.jobs import carry_out
from stylejobs.engine.memory import attempt
from stylejobs.engine.metrics import PREFIX, SPECS, record
from stylejobs.engine.results import JobResult
from stylejobs.engine.stream import Worker, Workers, WorkItem, stream
from stylejobs.engine.stylize import plan_stylize
from stylejobs.engine.train_loop import TrackedWatch
from stylejobs.errors import StorageError
from stylejobs.storage import locations
from stylejobs.storage.descriptors import Unit
from tests.storage.flaky_s3 import BODY, busy_at_first

LONGEST_SECONDS = 60.0
"""For what Ray exports every ten seconds, on a machine that is busy."""


def scrape(port: int) -> tuple[dict[str, str], dict[tuple, float]]:
    """What a node exports of ours: types by family, and values by name and tags."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    ours = {"le", "WorkerId", *(tag for spec in SPECS for tag in spec.tags)}
    values = {}
    for name, inside, value in re.findall(rf"^ray_{PREFIX}(\w+)\{{(.*)\}} (\S+)$", text, re.MULTILINE):
        tags = re.findall(r'(\w+)="([^"]*)"', inside)
        values[name, *sorted(tag for tag in tags if tag[0] in ours)] = float(value)
    return dict(re.findall(rf"^# TYPE ray_{PREFIX}(\w+) (\w+)$", text, re.MULTILINE)), values


@dataclass
class Measured:
    """Work of every kind that was done, by this process (`driver`) and one of Ray's (`worker`), and what is exported.

    Attributes:
        repairs: of the training, as its watch was told.
    """

    driver: str = ""
    worker: str = ""
    result: JobResult | None = None
    repairs: int = 0
    types: dict[str, str] = field(default_factory=dict)
    values: dict[tuple, float] = field(default_factory=dict)

    def of_driver(self, name: str, **tags: str) -> float | None:
        return self.values.get((name, *sorted({**tags, "WorkerId": self.driver}.items())))

    def of_worker(self, name: str, **tags: str) -> float | None:
        return self.values.get((name, *sorted({**tags, "WorkerId": self.worker}.items())))


class Noting(TrackedWatch):
    """Counts repairs for itself; looks at no pictures, of which this training has none."""

    repairs = 0

    def event(self, step: int, text: str, metrics: dict) -> None:
        self.repairs += text.startswith("repair:")
        super().event(step, text, metrics)

    def sample(self, step: int, make_rows: object) -> None:
        """Nothing."""


class Away:
    """A tracking server that cannot be reached."""

    def log_batch(self, *arguments: object, **named: object) -> None:
        raise ConnectionError("away")


def stylize(folder: Path, photos: dict[str, np.ndarray]) -> JobResult:
    """A job of seven rows, two of them bad, under a verb that no other test has."""
    (folder / "photos").mkdir()
    for number, name in enumerate(photos):
        Image.fromarray(photos[name][:48, :64]).save(folder / "photos" / f"{number}.png")
    (folder / "photos" / "torn.png").write_bytes((folder / "photos" / "0.png").read_bytes()[:900])
    (folder / "photos" / "text.jpg").write_bytes(b"no picture")
    Image.fromarray(photos["flower"][100:164, 200:264]).save(folder / "style.png")
    places = {"source": str(folder / "photos"), "dest": str(folder / "out"), "styles": [str(folder / "style.png")]}
    job, _ = plan_stylize(StylizeConfig(**places, model="builtin:moments", unit_mb=0.01, max_bad=0.5))
    job.counted_as, job.workers = "measured", Workers(1)
    return carry_out(job)


def meet_trouble(folder: Path) -> str:
    """A worker dies; what replaces it meets a busy S3, a storage that cannot be written, and no memory. Says who."""

    class Troubled(Worker):
        keeps_state = True

        def __init__(self, endpoint: str):
            os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")

        def do(self, item: WorkItem) -> dict:
            been_here = Path(folder, "been here")
            if not been_here.exists():
                been_here.touch()
                os.kill(os.getpid(), 9)
            assert locations.read_bytes("s3://bucket/object") == BODY
            with contextlib.suppress(StorageError):
                locations.write_atomic(f"{been_here}/below a file", b"x")
            for _ in range(3):
                attempt(no_memory)
            return {"worker": ray.get_runtime_context().get_worker_id()}

    def no_memory() -> None:
        raise MemoryError

    item = WorkItem(Unit("files", str(folder), "photos", "", 0), 0, "f")
    with busy_at_first(2) as endpoint:
        (answer,) = stream([item], Troubled, endpoint, Workers(1))
    assert answer.failure is None, answer.failure
    return answer.value["worker"]


def read_exported(done: Measured) -> Measured:
    """Waits until Ray has exported what this process did last."""
    record("units_left", (now := time.monotonic()), verb="the last")
    while done.of_driver("units_left", verb="the last") != now:
        assert time.monotonic() < now + LONGEST_SECONDS, "nothing of this process was exported"
        time.sleep(0.2)
        done.types, done.values = scrape(ray.nodes()[0]["MetricsExportPort"])
    return done
