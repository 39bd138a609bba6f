"""Trainings whose worker hangs, whose storage goes away or is full, whose newest checkpoint is damaged."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from stylejobs.storage.checkpoints import list_checkpoints
from tests.faults.training_job import EVERY, TrainJob, assert_as_if_undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_worker_that_hangs_is_ended_and_the_training_goes_on(
    train: Callable[..., TrainJob], undisturbed_training: dict, tracking_store: str
) -> None:
    job = train("hanging", "hang_seconds=40")
    job.wait_for_checkpoint(EVERY)
    stopped = job.workers()[-1]
    os.kill(stopped, signal.SIGSTOP)
    try:
        job.wait_for(r"going on from step \d+ .*")
        code, result = job.finish(600)
    finally:
        if Path(f"/proc/{stopped}").exists():
            os.kill(stopped, signal.SIGKILL)
    assert code == 0, job.text()
    assert_as_if_undisturbed(job, result, undisturbed_training, tracking_store)


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, dict[str, str]]]:
    """(a server that speaks S3, the environment that leads to it), with a bucket `runs`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(tmp_path / "s3.log", "w") as log:
        line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(line, stdout=log, stderr=log)
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline, (tmp_path / "s3.log").read_text()
            time.sleep(0.2)
    client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
                          aws_access_key_id="testing", aws_secret_access_key="testing")  # fmt: skip
    client.create_bucket(Bucket="runs")
    yield server, environment
    server.kill()
    server.wait()


def test_a_storage_that_goes_away_is_tried_again_then_stops_the_training(
    train: Callable[..., TrainJob], s3_server: tuple[subprocess.Popen, dict[str, str]]
) -> None:
    server, environment = s3_server
    # One try alone takes a minute, since the client of S3 asks again, too.
    job = train("away", "storage=s3://runs/here", "checkpoint.retry_seconds=120", environment=environment)
    place = job.wait_for_checkpoint(EVERY).rpartition(": ")[2]
    assert place.startswith("s3://runs/here/away-")
    server.kill()
    code, result = job.finish(600)
    assert code == 6, job.text()
    assert "trying again in" in job.text() and "last good checkpoint: s3://runs/here/away-" in result["message"]
    assert "Traceback" not in job.text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few checkpoints; `ballast` leaves too little of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root can make a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Writes until the disk is full, whatever else is written there meanwhile."""
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))


def test_a_disk_that_is_full_then_a_checkpoint_that_is_damaged(
    train: Callable[..., TrainJob], small_disk: Path, undisturbed_training: dict, tracking_store: str
) -> None:
    where = f"storage={small_disk}/runs"
    job = train("full", where, "checkpoint.retry_seconds=2")
    job.wait_for_checkpoint(2 * EVERY)
    fill(small_disk / "ballast")
    code, result = job.finish(300)
    assert code == 6 and "No space left" in result["message"], job.text()
    assert "last good checkpoint: " in result["message"] and "resume=full-" in result["resume_command"]

    (small_disk / "ballast").unlink()
    (run,) = (small_disk / "runs").iterdir()
    newest, before, *_ = list_checkpoints(str(run))
    damaged = Path(newest.uri) / "worker-00001.safetensors"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    again = train("full", where, result["resume_command"].split()[-1])
    again.wait_for(r"damaged checkpoint, going back to the one before it: .*worker-00001 is not what was written")
    again.wait_for(rf"going on from step {before.step} ")
    code, result = again.finish(600)
    assert code == 0, again.text()
    assert_as_if_undisturbed(again, result, undisturbed_training, tracking_store)
