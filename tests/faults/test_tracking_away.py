"""A real MLflow server that is killed, hangs and comes back while a training logs to it."""

import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from infra.stack.processes import Server
from infra.stack.servers import mlflow_server
from stylejobs.tracking import mlflow_tracker
from stylejobs.tracking.client import open_client
from stylejobs.tracking.mlflow_tracker import MlflowTracker

pytestmark = pytest.mark.slow


def points(server: Server, run_id: str, name: str) -> list[tuple[int, float]]:
    """What the store itself holds, past all of MLflow."""
    with closing(sqlite3.connect(server.folder / "mlflow.db")) as connection:
        query = "select step, value from metrics where run_uuid = ? and key = ? order by step"
        return connection.execute(query, (run_id, name)).fetchall()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = mlflow_server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


class Loop:
    """A training that does nothing but log, every few milliseconds."""

    def __init__(self, tracker: MlflowTracker):
        self._tracker = tracker
        self.step = 0
        self.call_seconds: list[float] = []

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            began = time.perf_counter()
            self._tracker.log_metrics({"loss": 1 / (self.step + 1), "rate": 0.5 * self.step}, self.step)
            self.call_seconds.append(time.perf_counter() - began)
            self.step += 1
            time.sleep(0.003)

    def assert_never_held_up(self) -> None:
        assert np.percentile(self.call_seconds, 99) < 0.05
        assert np.mean(self.call_seconds) < 0.005


def test_a_server_that_is_killed_and_comes_back_misses_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.wait()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    driver = MlflowTracker.start("away", "killed and back")
    worker = MlflowTracker.attach(driver.uri, driver.run_id)
    loop = Loop(worker)
    loop.run(2)
    server.kill()
    loop.run(1)
    worker.log_params({"lr": 0.1})
    worker.set_tags({"stage": "away"})
    worker.log_dataset("content", "s3://ann:hunter2@bucket/photos", "0123", "training")
    worker.log_text("written while the server was away", "note.txt")
    worker.log_image(np.zeros((4, 4, 3), np.uint8), "samples", loop.step)
    loop.run(3)
    server.start()
    while not server.answers():
        loop.run(0.2)
    loop.run(1)
    delivery = worker.finish()

    assert delivery.complete and delivery.num_delivered == 2 * loop.step + 5
    assert driver.finish().complete
    assert points(server, driver.run_id, "loss") == [(step, 1 / (step + 1)) for step in range(loop.step)]
    assert points(server, driver.run_id, "rate") == [(step, 0.5 * step) for step in range(loop.step)]
    client = open_client(server.url)
    run = client.get_run(driver.run_id)
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1"} and run.data.tags["stage"] == "away"
    [found] = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.source) == ("content", '{"uri": "s3://***@bucket/photos"}')
    assert {"note.txt", "images"} <= {item.path for item in client.list_artifacts(driver.run_id)}
    loop.assert_never_held_up()


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL], ids=["hangs", "dies"])
def test_a_server_that_never_comes_back_does_not_hold_the_end(
    server: Server, end: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.wait()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setattr(mlflow_tracker, "END_SECONDS", 1.0)
    started = MlflowTracker.start("away", "for good")
    tracker = MlflowTracker(open_client(server.url), started.run_id, uri=server.url, flush_seconds=2.0)
    loop = Loop(tracker)
    if end == signal.SIGKILL:
        server.kill()
    else:
        server.signal(end)
    try:
        loop.run(2)
        tracker.log_params({"lr": 0.1})
        began = time.monotonic()
        delivery = tracker.finish()
        assert time.monotonic() - began < 2.0 + 1.0 + 1.5
    finally:
        if end == signal.SIGSTOP:
            server.signal(signal.SIGCONT)
    assert (delivery.num_delivered, delivery.num_lost) == (0, 2 * loop.step + 1)
    assert f"did not take {2 * loop.step} metrics, 1 params within 2 s of the end" in delivery.first_error
    loop.assert_never_held_up()
