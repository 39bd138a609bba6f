"""`submit` against a real Ray head that wants a token: sent, followed, found again, stopped, refused."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cluster.conftest import Sent
from tests.cluster.ray_nodes import Cluster, ray_cluster_of
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


def test_a_job_is_sent_followed_and_found_again(
    send: Callable[..., Sent], head: Cluster, line: list[str], tmp_path: Path
) -> None:
    sent = send(head, *line).ended()
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

    again = send(head, *line).ended()
    assert again.exit_code == 0 and again.result["details"]["submission"]["id"] == job_id
    assert "ended with 0 before" in again.stderr
    another = send(head, *line, "again=true").ended()
    assert another.exit_code == 0 and another.result["details"]["submission"]["id"] == job_id[:-1] + "2"
    assert another.result["units"]["skipped"] == another.result["units"]["total"]


def test_without_the_token_it_is_refused(send: Callable[..., Sent], head: Cluster, line: list[str]) -> None:
    refused = send(head, *line, RAY_AUTH_MODE="disabled").ended()
    assert refused.exit_code == 6 and "refuses us" in refused.stderr, refused.stderr
    wrong = send(head, *line, RAY_AUTH_TOKEN="f" * 32).ended()
    assert wrong.exit_code == 6 and "refuses us" in wrong.stderr, wrong.stderr


@pytest.mark.cluster
def test_the_exit_code_is_that_of_the_verb(
    send: Callable[..., Sent], head: Cluster, line: list[str], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stranger.txt").write_text("not ours")
    refused = send(head, *line, f"results={tmp_path}/results").ended()
    assert refused.exit_code == 2 and "stranger.txt" in refused.stderr, refused.stderr
    assert refused.result["verb"] == "stylize" and refused.result["details"]["submission"]["id"].endswith("-a1")
    # It failed, so that the same command is the next attempt.
    (tmp_path / "out" / "stranger.txt").unlink()
    better = send(head, *line, f"results={tmp_path}/results").ended()
    assert better.exit_code == 0 and better.result["details"]["submission"]["id"].endswith("-a2"), better.stderr


@pytest.mark.cluster
def test_sigterm_leaves_the_job_or_stops_it(
    send: Callable[..., Sent], head: Cluster, tmp_path: Path, photos: dict[str, np.ndarray]
) -> None:
    save_slow_model(tmp_path / "slow", seed=0)
    write_source(tmp_path / "in.parquet", photos["coffee"])
    line = ["stylize", "source=in.parquet", "dest=out", "model=slow", "unit_mb=0.001", "cluster.actors=1"]
    line += ["gallery=0", "canary=0", "variants=6"]
    markers = tmp_path / "out/_stylejobs/units"

    def num_done() -> int:
        return len(list(markers.glob("*.json")))

    first = send(head, *line)
    first.wait_until(lambda: num_done() >= 2)
    first.process.terminate()
    left = first.ended()
    assert left.exit_code == 3 and "goes on" in left.stderr, left.stderr
    done, deadline = num_done(), time.monotonic() + 240
    while num_done() < done + 2:  # without us
        assert time.monotonic() < deadline
        time.sleep(0.2)

    second = send(head, *line, "stop_on_cancel=true")
    second.wait_for("following it")
    second.process.terminate()
    stopped = second.ended()
    assert stopped.exit_code == 3, stopped.stderr
    assert stopped.result["verb"] == "stylize" and stopped.result["resume_command"].startswith(
        "python -m pipelines.submit"
    )
    assert not (tmp_path / "out/_SUCCESS").exists()

    third = send(head, *line).ended(600)
    assert third.exit_code == 0 and third.result["details"]["submission"]["id"].endswith("-a2"), third.stderr
    assert third.result["units"]["skipped"] > 0


@pytest.mark.cluster
def test_a_head_that_is_killed_and_comes_back_has_forgotten_the_job_and_storage_has_not(
    send: Callable[..., Sent], line: list[str]
) -> None:
    line = [*line, "patience_seconds=5"]
    with ray_cluster_of() as head:
        done = send(head, *line).ended()
        assert done.exit_code == 0, done.stderr
        head.kill()
        away = send(head, *line).ended()
        assert away.exit_code == 6 and "nothing answers" in away.stderr, away.stderr
        head.start()
        again = send(head, *line).ended()
        assert again.exit_code == 0 and "ended with 0 before" in again.stderr, again.stderr
        running = send(head, *line, "seed=5", "dest=other")
        running.wait_for("sent to")
        head.kill()
        lost = running.ended()
        assert lost.exit_code == 6 and lost.result["resume_command"] is None, lost.stderr
        head.start()
        resumed = send(head, *line, "seed=5", "dest=other").ended()
        assert resumed.exit_code == 0 and resumed.result["rows"]["ok"] == NUM_PHOTOS, resumed.stderr
