"""Checkpoints: whole or not there, damaged ones noticed, old ones pruned; nested states there and back."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.errors import StorageError
from stylejobs.storage.checkpoints import (
    SHARED,
    Checkpoint,
    DamagedCheckpointError,
    Part,
    best_checkpoint,
    checkpoint_uri,
    complete,
    flatten,
    list_checkpoints,
    prune,
    unflatten,
    worker_part,
    write_part,
)

START = "3fa2c1"


def part(seed: int = 0) -> Part:
    rng = torch.Generator().manual_seed(seed)
    tensors = {"networks/g/weight": torch.randn(3, 2, generator=rng), "rng/cpu": torch.get_rng_state()}
    return Part(tensors, {"standing/seconds": 0.1 + seed, "cursors": [{"a/b": 1}], "best": None})


def write(run: Path, step: int, workers: int = 2, score: float | None = None, start: str = START) -> Checkpoint:
    uri = checkpoint_uri(str(run), step, start)
    for number, name in enumerate([SHARED, *map(worker_part, range(workers))]):
        write_part(uri, name, part(step + number))
    return complete(Checkpoint(step, 8 * step, workers, score, uri=uri), timeout_seconds=1)


def steps(run: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(str(run))]


def test_what_was_written_comes_back_bit_for_bit(tmp_path: Path) -> None:
    written = write(tmp_path, 5, score=0.25)
    (found,) = list_checkpoints(str(tmp_path))
    assert found == written and (found.step, found.images_seen, found.num_workers, found.score) == (5, 40, 2, 0.25)
    for number, name in enumerate([SHARED, worker_part(0), worker_part(1)]):
        wanted, read = part(5 + number), found.read_part(name)
        assert read.plain == wanted.plain
        assert all(torch.equal(read.tensors[key], wanted.tensors[key]) for key in wanted.tensors)


def test_a_folder_is_no_checkpoint_before_its_last_file(tmp_path: Path) -> None:
    write(tmp_path, 5)
    uri = checkpoint_uri(str(tmp_path), 10, START)
    write_part(uri, SHARED, part())
    write_part(uri, worker_part(0), part())
    assert steps(tmp_path) == [5]
    with pytest.raises(StorageError, match=r"worker-00001 was not written within 0\.1 s: its worker is gone or stuck"):
        complete(Checkpoint(10, 80, 2, uri=uri), timeout_seconds=0.1)
    assert steps(tmp_path) == [5]
    (Path(uri) / "checkpoint.json").write_text("{torn")
    assert steps(tmp_path) == [5]


@pytest.mark.parametrize("damage", ["one byte", "cut short", "gone", "other plain values", "no JSON"])
@pytest.mark.parametrize("name", [SHARED, worker_part(1)])
def test_damage_is_noticed(tmp_path: Path, name: str, damage: str) -> None:
    checkpoint = write(tmp_path, 5)
    tensors, plain = (Path(checkpoint.uri) / f"{name}.{ending}" for ending in ("safetensors", "json"))
    data = bytearray(tensors.read_bytes())
    if damage == "one byte":
        data[-3] ^= 1
        tensors.write_bytes(data)
    elif damage == "cut short":
        tensors.write_bytes(data[:-8])
    elif damage == "gone":
        tensors.unlink()
    elif damage == "other plain values":
        plain.write_text(json.dumps({**json.loads(plain.read_text()), "best": 1}))
    else:
        plain.write_text("{")
    with pytest.raises(DamagedCheckpointError, match=name):
        checkpoint.read_part(name)
    other = worker_part(0)
    assert checkpoint.read_part(other).plain


def test_parts_of_another_start_are_not_taken(tmp_path: Path) -> None:
    """The first start was killed when its second worker had written; the next writes the same step."""
    write_part(checkpoint_uri(str(tmp_path), 5, "dead00"), worker_part(1), part(99))
    uri = checkpoint_uri(str(tmp_path), 5, START)
    write_part(uri, SHARED, part())
    write_part(uri, worker_part(0), part())
    with pytest.raises(StorageError, match="worker-00001 was not written"):
        complete(Checkpoint(5, 40, 2, uri=uri), timeout_seconds=0.05)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step, score in ((1, None), (2, 0.9), (3, 0.3), (4, None), (5, 0.9), (6, 0.1), (7, None)):
        write(tmp_path, step, score=score)
    torn_old, torn_new = (checkpoint_uri(str(tmp_path), step, "dead00") for step in (3, 8))
    for uri in (torn_old, torn_new):
        write_part(uri, worker_part(0), part())
    stranger = tmp_path / "checkpoints" / "notes.txt"
    stranger.write_text("mine")
    prune(str(tmp_path), keep_last=2)
    assert steps(tmp_path) == [7, 6, 5]
    assert best_checkpoint(str(tmp_path)).step == 5
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert Path(torn_new).name in left and Path(torn_old).name not in left and "notes.txt" in left
    assert len(left) == 5


def test_a_run_without_checkpoints(tmp_path: Path) -> None:
    assert list_checkpoints(str(tmp_path)) == [] and best_checkpoint(str(tmp_path)) is None
    prune(str(tmp_path), keep_last=1)


names = st.text("abc._0", min_size=1, max_size=4)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.lists(st.integers(), max_size=2),
    st.integers(0, 9).map(lambda n: torch.full((2,), float(n))),
)  # fmt: skip
states = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(names, states, max_size=4))
@settings(max_examples=60, deadline=None)
def test_nested_states_are_taken_apart_and_put_together(state: dict) -> None:
    tensors, plain = flatten(state)
    again = unflatten(tensors, json.loads(json.dumps(plain)))
    torch.testing.assert_close(again, state, rtol=0, atol=0) if tensors else None
    assert flatten(again)[1] == plain
