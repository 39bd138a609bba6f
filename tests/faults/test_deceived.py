"""Two commands at once, full disks, sources, aliases and files that change under a running job, clocks that jump."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stylejobs.engine.registering import register_folder
from stylejobs.tracking.client import open_client
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from stylejobs.tracking.registry import resolve_version
from tests.faults.conftest import NUM_UNITS, ROWS, assert_whole, contents, save_slow_model, write_source
from tests.faults.processes import Job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]


def test_two_commands_on_one_dest(start: Callable[..., Job], undisturbed: dict[str, bytes]) -> None:
    """Started at the same moment, so that the one that comes second meets the other at work."""
    jobs = [start("out"), start("out")]
    ended = {job.finish()[0]: job for job in jobs}
    assert set(ended) == {0, 6}, "\n".join(job.text() for job in jobs)
    assert "is being written by another job" in ended[6].finish()[1]["message"]
    assert_whole(ended[0].dest, undisturbed)


@pytest.fixture
def own_source(tmp_path: Path, photos: dict[str, np.ndarray]) -> Path:
    """A source like `shards` that the test may change."""
    write_source(tmp_path / "in.parquet", photos["coffee"])
    return tmp_path / "in.parquet"


def test_a_row_group_that_is_damaged(start: Callable[..., Job], own_source: Path) -> None:
    data = bytearray(own_source.read_bytes())
    chunk = pq.read_metadata(own_source).row_group(7).column(0)
    start_of_chunk = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start_of_chunk + chunk.total_compressed_size // 2] ^= 255
    own_source.write_bytes(data)
    job = start("out", "max_bad=0.1", source=own_source)
    code, result = job.finish()
    assert code == 0, job.text()
    assert result["rows"] == {"in": ROWS, "ok": ROWS - 2, "bad": 2, "by_reason": {"decode": 2}, "written": ROWS - 2}
    letters = pq.read_table(job.dest / "dead_letter").to_pylist()
    assert [(letter["row_group"], letter["row"], letter["stage"]) for letter in letters] == [
        (7, 14, "read"),
        (7, 15, "read"),
    ]


def test_a_source_that_is_replaced_while_the_job_runs(
    start: Callable[..., Job], own_source: Path, photos: dict[str, np.ndarray], tmp_path: Path
) -> None:
    job = start("out", source=own_source)
    job.wait_for_units(3)
    write_source(tmp_path / "other.parquet", photos["rocket"])
    os.replace(tmp_path / "other.parquet", own_source)
    code, result = job.finish()
    assert code == 2 and "was replaced while the job ran" in result["message"], job.text()
    assert not (job.dest / "_SUCCESS").exists()
    again, fresh = start("out", source=own_source), start("fresh", source=own_source)
    assert again.finish()[0] == 0 and fresh.finish()[0] == 0, again.text() + fresh.text()
    assert_whole(job.dest, contents(fresh.dest))


def test_an_alias_that_moves_while_the_job_runs(
    start: Callable[..., Job], slow_model: str, tracking_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)
    save_slow_model(tmp_path / "next", seed=1)
    run = MlflowTracker.start("faults", "two models", {})
    for folder in (slow_model, str(tmp_path / "next")):
        register_folder(folder, "moving", run.run_id, {})
    run.finish("FINISHED")
    client = open_client(tracking_store)
    client.set_registered_model_alias("moving", "champion", "1")
    job = start("out", model="models:/moving@champion")
    job.wait_for_units(3)
    client.set_registered_model_alias("moving", "champion", "2")
    job.wait_for_units(6)
    job.kill()
    again = start("out", model="models:/moving@champion")
    code, result = again.finish()
    assert code == 0 and result["model"]["version"] == "1", again.text()
    assert result["units"]["skipped"] >= 6
    quiet = start("quiet", model="models:/moving/1")
    assert quiet.finish()[0] == 0, quiet.text()
    assert_whole(again.dest, contents(quiet.dest))
    assert resolve_version("models:/moving@champion").version == "2"


@pytest.fixture
def small_disk(tmp_path: Path, slow_model: str) -> Iterator[Path]:
    """A file system with room for the model and all files; `ballast` leaves too little of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    model_bytes = sum(path.stat().st_size for path in Path(slow_model).rglob("*") if path.is_file())
    size = model_bytes + 8 * 2**20
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root can make a small file system")
    (folder / "ballast").write_bytes(bytes(size - model_bytes - 700_000))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(
    start: Callable[..., Job], small_disk: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "out").symlink_to(small_disk / "out")
    (small_disk / "out").mkdir()
    job = start("out")
    code, result = job.finish()
    assert code == 6 and "No space left" in result["message"] and result["resume_command"], job.text()
    assert not (job.dest / "_SUCCESS").exists()
    (small_disk / "ballast").unlink()
    again = start("out")
    assert again.finish()[0] == 0, again.text()
    assert_whole(job.dest, undisturbed)


def test_a_file_that_is_truncated_and_one_that_is_deleted(
    start: Callable[..., Job], undisturbed: dict[str, bytes], command: Callable
) -> None:
    job = start("out")
    assert job.finish()[0] == 0, job.text()
    first, second, *_ = sorted((job.dest / "data").iterdir())
    first.write_bytes(first.read_bytes()[:-100])
    second.unlink()
    found = command("verify", "dest=out", "mend=true", "cluster.object_store_mb=100")
    assert found.exit_code == 4 and first.name in found.stderr and second.name in found.stderr, found.stderr
    again = start("out")
    code, result = again.finish()
    assert code == 0 and result["units"]["done"] == 2 and result["units"]["skipped"] == NUM_UNITS - 2, again.text()
    assert_whole(job.dest, undisturbed)
    assert command("verify", "dest=out", "cluster.object_store_mb=100").exit_code == 0


def test_a_clock_that_jumps(
    verb: Callable, shards: Path, slow_model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The driver's wall clock is an hour off, now one way, now the other, at every look."""
    line = [f"source={shards}", f"model={slow_model}", "unit_mb=0.001", "gallery=0"]
    assert verb("stylize", *line, "dest=steady").exit_code == 0
    real, looks = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (3600 if next(looks) % 2 else -3600))
    assert verb("stylize", *line, "dest=jumping").exit_code == 0
    monkeypatch.undo()
    assert contents(tmp_path / "jumping") == contents(tmp_path / "steady")
    shutil.rmtree(tmp_path / "steady")
