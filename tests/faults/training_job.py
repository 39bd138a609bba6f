"""A training as a process of its own: two workers, a CycleGAN of a few channels, a checkpoint every ten steps."""

import io
import re
import time
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from PIL import Image

from stylejobs.storage.checkpoints import list_checkpoints
from tests.faults.processes import Job, descendants, named

STEPS, BATCH, WORKERS, EVERY = 60, 1, 2, 10
NUM_IMAGES = STEPS * BATCH * WORKERS
TINY = (
    "method=cyclegan", f"steps={STEPS}", f"batch={BATCH}", f"workers={WORKERS}", "size_px=64", "generator.width=8",
    "generator.blocks=2", "critic.width=8", "critic.layers=2", "recipe.pool=4", "ema=0.9", "log_every=5",
    "sample_every=30", f"checkpoint.every={EVERY}", "cluster.object_store_mb=100", "worker_cpus=0.5",
)  # fmt: skip


class TrainJob(Job):
    """A running `pipelines.train`."""

    def __init__(self, folder: Path, name: str, line: tuple[str, ...], environment: dict[str, str]):
        super().__init__(folder, name, list(line), environment, "train")
        self.folder, self.name = folder, name

    def wait_for(self, pattern: str, timeout: float = 240) -> str:
        """Until a line on stderr matches; gives the whole match."""
        deadline = time.monotonic() + timeout
        while True:
            if found := re.search(pattern, self.text()):
                return found[0]
            assert self.process.poll() is None, f"the training ended before {pattern!r}: {self.text()}"
            assert time.monotonic() < deadline, f"no {pattern!r} in {timeout} s: {self.text()}"
            time.sleep(0.1)

    def wait_for_checkpoint(self, step: int) -> str:
        return self.wait_for(rf"checkpoint: step {step} .*")

    def workers(self) -> list[int]:
        """Processes of Ray Train's workers."""
        return named(descendants(self.process.pid), "ray::RayTrainWorker")

    @property
    def run_uri(self) -> str:
        """Of its run in the usual storage."""
        (folder,) = (self.folder / ".stylejobs" / "runs").glob(f"{self.name}-*")
        return str(folder)


def write_pictures(folder: Path, photos: dict[str, np.ndarray]) -> None:
    """photos/ of 12 pictures and paintings/ of 6."""
    for place, names, count in (("photos", ("coffee", "rocket"), 12), ("paintings", ("flower", "chelsea"), 6)):
        (folder / place).mkdir()
        for number in range(count):
            pixels = photos[names[number % 2]][7 * number : 7 * number + 90, 11 * number : 11 * number + 110]
            sink = io.BytesIO()
            Image.fromarray(pixels).save(sink, "JPEG")
            (folder / place / f"{number:02d}.jpg").write_bytes(sink.getvalue())


def assert_as_if_undisturbed(job: TrainJob, result: dict, undisturbed: dict, store: str) -> None:
    """As many images, the same weights to the bit, one run, one version with the alias, all steps in MLflow."""
    assert result["details"]["images_seen"] == undisturbed["details"]["images_seen"] == NUM_IMAGES, job.text()
    assert result["model"]["sha256"] == undisturbed["model"]["sha256"], job.text()
    client = MlflowClient(store)
    run = client.get_run(result["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    steps = {metric.step for metric in client.get_metric_history(run.info.run_id, "loss/cycle")}
    assert steps == set(range(5, STEPS + 1, 5))
    version = client.get_model_version_by_alias(job.name, "candidate")
    assert str(version.version) == result["model"]["version"] and version.run_id == run.info.run_id


def newest_step(run_uri: str) -> int:
    return max((checkpoint.step for checkpoint in list_checkpoints(run_uri)), default=0)
