"""Twenty steps are ten, SIGKILL and ten more: bit for bit, for every method, with pools, averages and repairs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stylejobs.engine.checkpointing import restore_newest
from stylejobs.engine.group import Group
from stylejobs.storage.checkpoints import SHARED, Checkpoint, list_checkpoints, worker_part
from tests.core.recipes import RECIPES
from tests.engine.small_training import EVERY, STEPS, start

ROOT = Path(__file__).parents[2]
every_recipe = pytest.mark.parametrize("name", RECIPES)


def run(folder: Path, manner: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "tests.engine.small_training", str(folder), manner]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(of trainings that were left alone, of trainings that were killed and went on)."""
    straight, killed = (tmp_path_factory.mktemp(name) for name in ("straight", "killed"))
    alone, victim = run(straight, "quickly"), run(killed, "slowly")
    assert victim.stdout is not None
    for line in victim.stdout:
        if line.startswith("past the first checkpoint"):
            break
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    alone.communicate(timeout=300)
    for name in RECIPES:
        assert newest(killed, name).step == EVERY, "killed too late to prove anything"
    again = run(killed, "quickly")
    again.communicate(timeout=300)
    assert (alone.returncode, again.returncode) == (0, 0)
    return straight, killed


def newest(folder: Path, name: str) -> Checkpoint:
    return list_checkpoints(str(folder / name.replace(" ", "-")))[0]


def contents(folder: Path, name: str) -> tuple[dict, dict]:
    """(tensors, plain values) of the last checkpoint, without the time that it took."""
    checkpoint = newest(folder, name)
    assert checkpoint.step == STEPS
    tensors, plain = {}, {}
    for part in (SHARED, worker_part(0)):
        read = checkpoint.read_part(part)
        tensors |= {f"{part}/{key}": value for key, value in read.tensors.items()}
        plain |= {f"{part}/{key}": value for key, value in read.plain.items()}
    (standing,) = plain["shared/standing"]
    del standing["seconds"]
    return tensors, plain


@every_recipe
def test_killed_and_gone_on_is_as_if_nothing_had_happened(folders: tuple[Path, Path], name: str) -> None:
    straight, killed = folders
    (tensors, plain), (tensors_again, plain_again) = contents(straight, name), contents(killed, name)
    assert plain == plain_again
    assert tensors.keys() == tensors_again.keys()
    for key, tensor in tensors.items():
        assert torch.equal(tensor, tensors_again[key]), key
    kinds = {key.split("/")[1] for key in tensors}
    assert {"networks", "average", "optimizers", "rng"} <= kinds
    if "cyclegan" in name:
        assert len(tensors["worker-00000/memory/x_pool/images_NCHW"]) >= 3
        assert plain["shared/repairer/augment"] > 0


def test_a_damaged_checkpoint_is_passed_over_and_told_of(folders: tuple[Path, Path]) -> None:
    run_folder = folders[0] / "fast"
    last, before = list_checkpoints(str(run_folder))[:2]
    assert (last.step, before.step) == (STEPS, EVERY)
    damaged = Path(last.uri) / "shared.safetensors"
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    told: list[str] = []
    try:
        restored = restore_newest(str(run_folder), Group(), told.append)
    finally:
        damaged.write_bytes(kept)
    assert restored is not None and restored.checkpoint.step == EVERY
    (text,) = told
    assert "going back to the one before" in text and last.uri in text


@pytest.mark.parametrize("changes", [{"decode_threads": 4}, {"prefetch": 7}, {"decode_threads": 3, "prefetch": 2}])
def test_decoding_threads_and_prefetch_change_nothing(tmp_path: Path, changes: dict) -> None:
    weights = []
    for folder, told in (("a", {}), ("b", changes)):
        training, batches = start("cyclegan", tmp_path / folder, steps=6, **told)
        training.run(batches)
        weights.append(training._method.generator.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
