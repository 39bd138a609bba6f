"""Runs in a real SQLite store, from this process and from another one."""

import hashlib
import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from stylejobs.errors import UsageError
from stylejobs.tracking import mlflow_tracker
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from stylejobs.tracking.tracker import Delivery

ROOT = Path(__file__).parents[2]


class FlakyClient:
    """The client seam: the first `num_failures` calls of each method fail as a dead server does."""

    def __init__(self, client, num_failures):
        self._client = client
        self._num_failures = num_failures
        self.num_calls = {}

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.num_calls[name] = self.num_calls.get(name, 0) + 1
            if self.num_calls[name] <= self._num_failures:
                raise ConnectionError("API request to http://ann:hunter2@host failed: connection refused")
            return getattr(self._client, name)(*args, **kwargs)

        return call


def _history(client, run_id, name):
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))


def _artifacts(client, run_id, folder=None):
    return [item.path for item in client.list_artifacts(run_id, folder)]


def test_a_run_holds_everything_that_was_logged(store, client, tmp_path):
    report = tmp_path / "report.html"
    report.write_text("<p>")
    tracker = MlflowTracker.start("demo", "first", {"git": "abc", "data": "s3://ann:hunter2@bucket/x"})
    tracker.log_params({f"p{i}": i for i in range(150)})
    for step in range(2500):
        tracker.log_metrics({"loss": 1 / (step + 1), "rate": step}, step)
    tracker.log_metrics({"odd": math.nan}, 0)
    tracker.log_image(np.full((4, 5, 3), 200, np.uint8), "samples/a", 7)
    tracker.log_file(str(report), "pages")
    report.unlink()
    tracker.log_text("hello", "notes/a.txt")
    tracker.set_tags({"stage": 1})
    tracker.set_tags({"stage": 2})
    delivery = tracker.finish()

    run = client.get_run(tracker.run_id)
    assert delivery.complete and delivery.num_delivered == 150 + 5001 + 3 + 2
    assert run.info.status == "FINISHED" and run.info.run_name == "first"
    assert run.data.params == {f"p{i}": str(i) for i in range(150)}
    assert run.data.tags["git"] == "abc" and run.data.tags["stage"] == "2"
    assert run.data.tags["data"] == "s3://***@bucket/x"
    assert _history(client, tracker.run_id, "loss") == [(step, 1 / (step + 1)) for step in range(2500)]
    assert math.isnan(run.data.metrics["odd"])
    assert _artifacts(client, tracker.run_id, "pages") == ["pages/report.html"]
    assert _artifacts(client, tracker.run_id, "notes") == ["notes/a.txt"]
    assert any("+step+7+" in path for path in _artifacts(client, tracker.run_id, "images"))
    assert Path(store.removeprefix("sqlite:///")).parent / "artifacts" in Path(run.info.artifact_uri).parents
    assert tracker.finish("FAILED") == delivery and client.get_run(tracker.run_id).info.status == "FINISHED"
    assert tracker.url is None


def test_a_worker_process_in_another_directory_logs_to_the_run(store, client, tmp_path):
    tracker = MlflowTracker.start("demo", "driver")
    code = f"""
        from stylejobs.tracking.mlflow_tracker import MlflowTracker
        tracker = MlflowTracker.attach({tracker.uri!r}, {tracker.run_id!r})
        for step in range(40):
            tracker.log_metrics({{"worker": step * 2.0}}, step)
        tracker.log_text("from afar", "worker.txt")
        assert tracker.finish().complete
    """
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert _history(client, tracker.run_id, "worker") == [(step, step * 2.0) for step in range(40)]
    assert _artifacts(client, tracker.run_id) == ["worker.txt"]
    assert client.get_run(tracker.run_id).info.status == "RUNNING", "a worker must not end the driver's run"
    assert list(tmp_path.iterdir()) == []
    tracker.finish("KILLED")
    assert client.get_run(tracker.run_id).info.status == "KILLED"


def test_nothing_is_missing_after_an_outage(store, client, quick, tmp_path, caplog):
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"w")
    run = MlflowTracker.start("demo", "outage")
    flaky = FlakyClient(client, num_failures=5)
    tracker = MlflowTracker(flaky, run.run_id, uri="http://ann:hunter2@host:5000", experiment_id="7")
    tracker.log_params({"lr": 0.1})
    for step in range(300):
        tracker.log_metrics({"loss": float(step)}, step)
    tracker.log_text("hi", "a.txt")
    tracker.log_file(str(weights))
    flaky.num_calls["set_terminated"] = 4
    delivery = tracker.finish()

    assert delivery.complete and delivery.num_delivered == 303
    assert _history(client, run.run_id, "loss") == [(step, float(step)) for step in range(300)]
    assert sorted(_artifacts(client, run.run_id)) == ["a.txt", "weights.bin"]
    assert client.get_run(run.run_id).data.params == {"lr": "0.1"}
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert tracker.url == f"http://host:5000/#/experiments/7/runs/{run.run_id}"
    assert "hunter2" not in caplog.text and "does not take" in caplog.text


def test_what_a_process_could_not_deliver_another_one_does_and_nothing_is_there_twice(store, client, quick):
    run = MlflowTracker.start("demo", "killed")
    dead = MlflowTracker(FlakyClient(client, 10**9), run.run_id, uri="http://host")
    alive = MlflowTracker.attach(store, run.run_id)
    for step in range(20):
        dead.log_metrics({"loss": float(step), "rate": float("nan")}, step)
    left = json.loads(json.dumps(dead.undelivered_metrics()))
    assert len(left) == 40 and left[0][:2] == ["loss", 0.0] and left[-1][3] == 19
    for _ in range(2):
        alive.log_again(left)
    delivery = alive.finish()
    assert delivery.complete and alive.undelivered_metrics() == []
    assert _history(client, run.run_id, "loss") == [(step, float(step)) for step in range(20)]
    assert len(_history(client, run.run_id, "rate")) == 20


def test_a_server_that_stays_dead_costs_bounded_time_and_no_exception(client, quick, tmp_path):
    (tmp_path / "a").write_text("a")
    tracker = MlflowTracker(FlakyClient(client, 10**9), "0" * 32, uri="http://host", flush_seconds=0.2)
    tracker.log_metrics({"loss": 1.0}, 0)
    tracker.log_file(str(tmp_path / "a"))
    tracker.log_file(str(tmp_path / "missing"))
    delivery = tracker.finish()
    assert (delivery.num_delivered, delivery.num_lost) == (0, 3)
    assert delivery.first_error and "hunter2" not in delivery.first_error


@pytest.mark.parametrize("hangs", [True, False])
def test_a_server_that_goes_at_the_very_end_costs_bounded_time(monkeypatch, quick, hangs):
    release = threading.Event()

    class Away:
        def set_terminated(self, run_id, status):
            release.wait(30 if hangs else 0)
            raise ConnectionError("connection refused")

    monkeypatch.setattr(mlflow_tracker, "END_SECONDS", 0.2)
    tracker = MlflowTracker(Away(), "0" * 32, uri="http://host", flush_seconds=0.1)
    started = time.monotonic()
    delivery = tracker.finish("FAILED")
    assert time.monotonic() - started < 1.5
    release.set()
    assert not delivery.complete and delivery.num_lost == 0
    assert delivery.first_error.startswith("the run could not be marked FAILED: http://host did not take 1 status")


def test_datasets_are_inputs_of_the_run(store, client):
    from mlflow.data import get_source

    sha256 = hashlib.sha256(b"rows").hexdigest()
    tracker = MlflowTracker.start("demo", "inputs")
    profile = {"rows": 7, "share": 0.5, "labels": None, "from": "http://ann:hunter2@host/x"}
    tracker.log_dataset("content", "s3://ann:hunter2@bucket/photos", sha256, "training", profile)
    tracker.log_dataset("content", "s3://ann:hunter2@bucket/photos", sha256, "training", profile)
    tracker.log_dataset("style", "styles/[a]:b.parquet", "0123", "style")
    assert tracker.finish() == Delivery(num_delivered=3)

    found = {item.dataset.name: item for item in client.get_run(tracker.run_id).inputs.dataset_inputs}
    assert set(found) == {"content", "style"}
    content = found["content"].dataset
    assert sha256.startswith(content.digest) and len(content.digest) == 36
    assert json.loads(content.profile) == {**profile, "digest": sha256, "from": "http://***@host/x"}
    assert [(tag.key, tag.value) for tag in found["content"].tags] == [("mlflow.data.context", "training")]
    assert get_source(content).uri == "s3://***@bucket/photos"
    assert get_source(found["style"].dataset).uri == "styles/[a]:b.parquet"


def test_what_the_server_refuses_is_lost_alone(store, client):
    tracker = MlflowTracker.start("demo", "refused")
    tracker.log_metrics({"good": 1.0, "bad?name!": 2.0, "also good": 3.0}, 0)
    tracker.log_metrics({"text": "seven", "good": 4.0}, 1)
    tracker.log_params({"steps": 1})
    tracker.log_params({"steps": 2, "width": 3})
    tracker.log_file("/does/not/exist")
    delivery = tracker.finish()
    run = client.get_run(tracker.run_id)
    assert run.data.metrics == {"good": 4.0, "also good": 3.0}
    assert run.data.params == {"steps": "1", "width": "3"}
    assert delivery.num_lost == 4 and not delivery.complete and run.info.status == "FINISHED"


def test_a_run_goes_on_after_a_restart(store, client):
    first = MlflowTracker.start("demo", "resumable", {"try": 1})
    first.log_metrics({"loss": 2.0}, 0)
    first.finish("FAILED")
    again = MlflowTracker.start("demo", "ignored", {"try": 2}, run_id=first.run_id)
    assert client.get_run(first.run_id).info.status == "RUNNING"
    again.log_metrics({"loss": 1.0}, 1)
    again.finish()
    run = client.get_run(first.run_id)
    assert _history(client, first.run_id, "loss") == [(0, 2.0), (1, 1.0)]
    assert (run.info.run_name, run.info.status, run.data.tags["try"]) == ("resumable", "FINISHED", "2")


def test_steps_that_are_logged_again_are_kept_twice_and_the_later_counts(store, client):
    driver = MlflowTracker.start("demo", "crashed")
    for first_step, value in ((0, 1.0), (2, 2.0)):
        worker = MlflowTracker.attach(driver.uri, driver.run_id)
        for step in range(first_step, 4):
            worker.log_metrics({"loss": value}, step)
        assert worker.finish().complete
    driver.finish()
    points = [(0, 1.0), (1, 1.0), (2, 1.0), (2, 2.0), (3, 1.0), (3, 2.0)]
    assert _history(client, driver.run_id, "loss") == points
    assert client.get_run(driver.run_id).data.metrics["loss"] == 2.0


def test_a_run_to_go_on_with_must_exist(store):
    with pytest.raises(UsageError, match="has no such run"):
        MlflowTracker.start("demo", "x", run_id="0123")


def test_two_runs_at_once_and_no_global_state(store, client):
    import mlflow

    before = mlflow.get_tracking_uri()
    with MlflowTracker.start("demo", "a") as one, MlflowTracker.start("other", "b") as two:
        one.log_metrics({"x": 1.0}, 0)
        two.log_metrics({"x": 2.0}, 0)
        assert mlflow.active_run() is None
    assert client.get_run(one.run_id).data.metrics == {"x": 1.0}
    assert client.get_run(two.run_id).data.metrics == {"x": 2.0}
    assert mlflow.get_tracking_uri() == before
