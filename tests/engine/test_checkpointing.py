"""Checkpoints that a thread writes: copies of their moment, storages that fail for a while or for good."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from stylejobs.engine.checkpointing import CheckpointSettings, Keeper, restore_newest
from stylejobs.engine.group import Group
from stylejobs.errors import StorageError
from stylejobs.storage.checkpoints import list_checkpoints

ROOT = Path(__file__).parents[2]


def keeper(run: Path, told: list[str], retry_seconds: float = 30.0) -> Keeper:
    return Keeper(
        CheckpointSettings(str(run), every=10, keep=2, retry_seconds=retry_seconds), Group(), "ab12", told.append
    )


def test_a_checkpoint_is_a_copy_of_its_moment(tmp_path: Path) -> None:
    weights, told = torch.zeros(1000, 1000), []
    keep = keeper(tmp_path, told)
    for step in (10, 20, 30):
        weights.fill_(step)
        keep.keep(step, 2 * step, None, {"weights": weights}, {"pool": weights[:1]})
        weights.fill_(-1)
    keep.finish()
    restored = restore_newest(str(tmp_path), Group(), told.append)
    assert restored is not None and restored.checkpoint.step == 30 and keep.last_good == restored.checkpoint.uri
    assert torch.equal(restored.shared["weights"], torch.full((1000, 1000), 30.0))
    assert torch.equal(restored.own[0]["pool"], torch.full((1, 1000), 30.0))
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [30, 20]
    assert [text.split(" (")[0] for text in told] == [f"checkpoint: step {step}" for step in (10, 20, 30)]


def test_a_storage_that_fails_for_a_while_is_tried_again(tmp_path: Path) -> None:
    told: list[str] = []
    in_the_way = tmp_path / "checkpoints"
    in_the_way.write_text("a file where the folder has to be")
    keep = keeper(tmp_path, told)
    started = time.monotonic()
    keep.keep(10, 20, None, {"a": torch.ones(1)}, {})
    assert time.monotonic() - started < 0.5  # the training does not wait
    timer = threading.Timer(0.3, in_the_way.unlink)
    timer.start()
    keep.finish()
    timer.join()
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [10]
    assert "checkpoint of step 10: cannot write" in told[0] and "trying again in" in told[0]


def test_a_storage_that_stays_away_ends_the_training_and_names_the_last_good_one(tmp_path: Path) -> None:
    told: list[str] = []
    keep = keeper(tmp_path, told, retry_seconds=0.6)
    keep.keep(10, 20, None, {"a": torch.ones(1)}, {})
    keep.finish()
    good = keep.last_good
    (tmp_path / "checkpoints").rename(tmp_path / "moved")
    (tmp_path / "checkpoints").write_text("a file where the folder has to be")
    keep.keep(20, 40, None, {"a": torch.ones(1)}, {})
    with pytest.raises(StorageError, match=f"cannot write .*last good checkpoint: {good}"):
        keep.finish()
    with pytest.raises(StorageError):
        keep.keep(30, 60, None, {"a": torch.ones(1)}, {})


def test_old_checkpoints_that_cannot_be_deleted_stay_and_the_new_one_counts(tmp_path: Path) -> None:
    told: list[str] = []
    keep = keeper(tmp_path, told)
    keep.keep(10, 20, None, {"a": torch.ones(1)}, {})
    keep.finish()
    marker = str(next(Path(keep.last_good).glob("checkpoint.json")))
    if subprocess.run(["mount", "--bind", marker, marker], capture_output=True).returncode != 0:
        pytest.skip("only root can make a file that cannot be deleted")
    try:
        for step in (20, 30):
            keep.keep(step, 2 * step, None, {"a": torch.ones(1)}, {})
        keep.finish()
    finally:
        subprocess.run(["umount", marker], check=True)
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [30, 20, 10]
    assert keep.last_good.endswith("step-00000030-ab12")
    assert told[-1].startswith("older checkpoints stay for now: cannot delete")
    keep.keep(40, 80, None, {"a": torch.ones(1)}, {})
    keep.finish()
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [40, 30]


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from tests.engine.small_training import start
torch.set_num_threads(1)
training, batches = start("cyclegan", Path(sys.argv[1]), steps=4)
training.take_step(next(batches))
batch = next(batches)
large = {name: t.repeat(64, 1, 4, 4) if t.ndim == 4 else t.repeat(64) for name, t in batch.tensors.items()}
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, used + 64 * 2**20))
try:
    training.run(iter([type(batch)(large, batch.keys, batch.cursors)]))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_memory_that_runs_out_names_the_settings_to_lower(tmp_path: Path) -> None:
    """A real limit of the process's address space, and a batch that does not fit below it."""
    line = [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "TrainingError step 2: out of memory" in done.stdout, done.stdout + done.stderr
    assert "lower batch (now 2), size_px (now 32) or generator.width, or set precision=bf16" in done.stdout
