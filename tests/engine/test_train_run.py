"""The record of a run: found again by id or as the latest, and held against the command that wants to go on."""

import time
from pathlib import Path
from typing import Any

import pytest

from stylejobs.config.schema import TrainConfig
from stylejobs.engine.train_run import RunRecord, begin, go_on
from stylejobs.errors import DriftError, UsageError

DATA = {"content": "aa", "style": "bb"}


def config(place: Path, **changes: Any) -> TrainConfig:
    told = {"method": "cyclegan", "content": "photos", "style": "paintings", "name": "m", "storage": str(place)}
    return TrainConfig(**{**told, "steps": 10, "workers": 2, "batch": 3, **changes})


def written(place: Path, **changes: Any) -> RunRecord:
    told = config(place, **changes)
    record = begin(told, DATA, told.steps * told.workers * told.batch).with_mlflow("run1")
    record.write()
    return record


@pytest.mark.parametrize("how", ["id", "folder", "latest"])
def test_a_run_is_found_again(tmp_path: Path, how: str) -> None:
    written(tmp_path, name="other")
    written(tmp_path, name="m-2")
    written(tmp_path)
    time.sleep(0.01)
    last = written(tmp_path)
    asked = {"id": last.run_id, "folder": last.folder, "latest": "latest"}[how]
    found = go_on(config(tmp_path, resume=asked), DATA)
    assert (found.run_id, found.mlflow_run_id, found.num_images) == (last.run_id, "run1", 60)
    assert found.digest == last.digest


@pytest.mark.parametrize("asked", ["latest", "0123456789ab", "../m-1", "m-x/y"])
def test_a_run_that_is_not_there_is_a_usage_error(tmp_path: Path, asked: str) -> None:
    written(tmp_path, name="other")
    with pytest.raises(UsageError, match=r"resume=.*name=m .*storage="):
        go_on(config(tmp_path, resume=asked), DATA)


def test_a_record_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "m-1").mkdir()
    (tmp_path / "m-1" / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="is not the record of a run"):
        go_on(config(tmp_path, resume="1"), DATA)


def test_what_changed_is_listed_and_refused(tmp_path: Path) -> None:
    written(tmp_path)
    changes = {"seed": 7, "loss": {"cycle": 5.0}, "resume": "latest", "experiment": "other", "data": {"prefetch": 9}}
    with pytest.raises(DriftError) as caught:
        go_on(config(tmp_path, **changes), {**DATA, "style": "cc"})
    lines = str(caught.value).splitlines()
    assert lines[1:4] == ["  loss.cycle: was none, is 5.0", "  seed: was 0, is 7", "  style.digest: was bb, is cc"]
    assert lines[4].endswith("allow=loss.cycle,seed,style.digest if that is meant")


def test_what_is_allowed_may_differ(tmp_path: Path) -> None:
    before = written(tmp_path)
    found = go_on(config(tmp_path, resume="latest", seed=7, allow="seed"), DATA)
    assert found.values["seed"] == 7 and found.digest != before.digest
    with pytest.raises(DriftError, match="batch: was 3, is 4"):
        go_on(config(tmp_path, resume="latest", seed=7, batch=4, allow="seed"), DATA)


def test_the_length_of_a_training_is_a_number_of_images(tmp_path: Path) -> None:
    written(tmp_path)
    fewer = go_on(config(tmp_path, resume="latest", workers=1, allow="workers"), DATA)
    assert fewer.num_images == 60
    longer = go_on(config(tmp_path, resume="latest", steps=20, allow="steps"), DATA)
    assert longer.num_images == 120
