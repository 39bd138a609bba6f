"""`submit` against a real Ray head that wants a token: sent, followed, found again, stopped, refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cluster.ray_nodes import Cluster, ray_cluster_of
from tests.conftest import Outcome
from tests.faults.conftest import save_slow_model, write_source

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_PHOTOS = 12


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    with ray_cluster_of() as head:
        yield head


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for number in range(NUM_PHOTOS):
        Image.fromarray(photos["coffee"][number : number + 90, : 100 + number]).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def line(source: Path, style_image: Path) -> list[str]:
    return [
        "stylize", f"source={source}", "dest=out", "model=builtin:moments", f"styles={style_image}",
        "cluster.actors=1", "canary=0",
    ]  # fmt: skip


@pytest.fixture
def begin(head: Cluster, tmp_path: Path, tracking_store: str) -> Iterator[Callable[..., subprocess.Popen]]:
    """begin(*arguments): the command as a process that may use the cluster; **environment changes that."""
    started: list[subprocess.Popen] = []

    def call(*arguments: str, **environment: str) -> subprocess.Popen:
        line = [sys.executable, "-m", "pipelines.submit", arguments[0], f"address={head.url}", *arguments[1:]]
        env = {**os.environ, **head.environment, "MLFLOW_TRACKING_URI": tracking_store, **environment}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(line, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, env=env))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.wait()


def finish(process: subprocess.Popen, timeout: float = 300) -> Outcome:
    out, err = process.communicate(timeout=timeout)
    return Outcome(process.returncode, out, err)


def test_a_job_is_sent_followed_and_found_again(
    begin: Callable[..., subprocess.Popen], line: list[str], tmp_path: Path
) -> None:
    sent = finish(begin(*line))
    assert sent.exit_code == 0, sent.stderr
    assert sent.result["verb"] == "stylize" and sent.result["rows"]["ok"] == NUM_PHOTOS
    assert (tmp_path / "out" / "_SUCCESS").exists()
    job_id = sent.result["details"]["submission"]["id"]
    assert job_id.startswith("sty-stylize-") and job_id.endswith("-a1")
    assert "sent to" in sent.stderr and "12/12" in sent.stderr.replace(" ", ""), (
        sent.stderr
    )  # its progress is seen here
    kept = json.loads((tmp_path / f"out/_stylejobs/submitted/{job_id}.json").read_text())
    assert kept["exit_code"] == 0 and kept["rows"] == sent.result["rows"]

    again = finish(begin(*line))
    assert again.exit_code == 0 and again.result["details"]["submission"]["id"] == job_id
    assert "ended with 0 before" in again.stderr
    another = finish(begin(*line, "again=true"))
    assert another.exit_code == 0 and another.result["details"]["submission"]["id"] == job_id[:-1] + "2"
    assert another.result["units"]["skipped"] == another.result["units"]["total"]


def test_without_the_token_it_is_refused(begin: Callable[..., subprocess.Popen], line: list[str]) -> None:
    refused = finish(begin(*line, RAY_AUTH_MODE="disabled"))
    assert refused.exit_code == 6 and "refuses us" in refused.stderr, refused.stderr
    wrong = finish(begin(*line, RAY_AUTH_TOKEN="f" * 32))
    assert wrong.exit_code == 6 and "refuses us" in wrong.stderr, wrong.stderr


@pytest.mark.cluster
def test_the_exit_code_is_that_of_the_verb(
    begin: Callable[..., subprocess.Popen], line: list[str], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stranger.txt").write_text("not ours")
    refused = finish(begin(*line, f"results={tmp_path}/results"))
    assert refused.exit_code == 2 and "stranger.txt" in refused.stderr, refused.stderr
    assert refused.result["verb"] == "stylize" and refused.result["details"]["submission"]["id"].endswith("-a1")
    # It failed, so that the same command is the next attempt.
    (tmp_path / "out" / "stranger.txt").unlink()
    better = finish(begin(*line, f"results={tmp_path}/results"))
    assert better.exit_code == 0 and better.result["details"]["submission"]["id"].endswith("-a2"), better.stderr


@pytest.mark.cluster
def test_sigterm_leaves_the_job_or_stops_it(
    begin: Callable[..., subprocess.Popen], tmp_path: Path, photos: dict[str, np.ndarray]
) -> None:
    save_slow_model(tmp_path / "slow", seed=0)
    write_source(tmp_path / "in.parquet", photos["coffee"])
    line = ["stylize", "source=in.parquet", "dest=out", "model=slow", "unit_mb=0.001", "cluster.actors=1"]
    line += ["gallery=0", "canary=0", "variants=6"]
    markers = tmp_path / "out/_stylejobs/units"

    def wait_for_units(count: int) -> None:
        deadline = time.monotonic() + 240
        while len(list(markers.glob("*.json"))) < count:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    first = begin(*line)
    wait_for_units(2)
    first.send_signal(signal.SIGTERM)
    left = finish(first)
    assert left.exit_code == 3 and "goes on" in left.stderr, left.stderr
    done = len(list(markers.glob("*.json")))
    wait_for_units(done + 2)  # without us

    second = begin(*line, "stop_on_cancel=true")
    while "following it" not in second.stderr.readline():
        assert second.poll() is None
    second.send_signal(signal.SIGTERM)
    stopped = finish(second)
    assert stopped.exit_code == 3, stopped.stderr
    assert stopped.result["verb"] == "stylize" and stopped.result["resume_command"].startswith(
        "python -m pipelines.submit"
    )
    assert not (tmp_path / "out/_SUCCESS").exists()

    third = finish(begin(*line), 600)
    assert third.exit_code == 0 and third.result["details"]["submission"]["id"].endswith("-a2"), third.stderr
    assert third.result["units"]["skipped"] > 0


@pytest.mark.cluster
def test_a_head_that_is_killed_and_comes_back_has_forgotten_the_job_and_storage_has_not(
    line: list[str], tmp_path: Path, tracking_store: str
) -> None:
    with ray_cluster_of() as head:
        environment = {**os.environ, **head.environment, "MLFLOW_TRACKING_URI": tracking_store}
        command = [sys.executable, "-m", "pipelines.submit", line[0], f"address={head.url}", "patience_seconds=5"]

        def start(*more: str) -> subprocess.Popen:
            return subprocess.Popen(
                [*command, *line[1:], *more], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=environment,
            )  # fmt: skip

        done = finish(start())
        assert done.exit_code == 0, done.stderr
        head.kill()
        away = finish(start())
        assert away.exit_code == 6 and "nothing answers" in away.stderr, away.stderr
        head.start()
        again = finish(start())
        assert again.exit_code == 0 and "ended with 0 before" in again.stderr, again.stderr
        running = start("seed=5", "dest=other")
        while "sent to" not in running.stderr.readline():
            assert running.poll() is None
        head.kill()
        lost = finish(running)
        assert lost.exit_code == 6 and lost.result["resume_command"] is None, lost.stderr
        head.start()
        resumed = finish(start("seed=5", "dest=other"))
        assert resumed.exit_code == 0 and resumed.result["rows"]["ok"] == NUM_PHOTOS, resumed.stderr
