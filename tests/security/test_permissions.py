"""Nothing is written wider than the umask allows, and what shadows our columns does not take their place."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from stylejobs.engine.code_package import pack_code
from stylejobs.records.schema import STYLIZED_FIELDS
from stylejobs.storage.packages import save_package
from stylejobs.storage.put import create
from stylejobs.storage.units import write_result
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from tests.engine.small_dataset import look, make, picture, write_source


@pytest.fixture
def closed() -> Iterator[None]:
    """As on a machine that is shared."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def wide(root: Path) -> dict[str, str]:
    """What others may look at, and how; links have no rights of their own."""
    found = [path for path in root.rglob("*") if not path.is_symlink()]
    return {str(path): oct(mode) for path in found if (mode := stat.S_IMODE(path.lstat().st_mode)) & 0o077}


@pytest.mark.parametrize("sink", ["parquet", "webdataset", "files"])
def test_a_dataset_is_as_private_as_the_umask_says(closed: None, tmp_path: Path, sink: str) -> None:
    (tmp_path / "work").mkdir()
    dest = make(write_source(tmp_path / "work" / "source"), tmp_path / "work" / "out", sink=sink)
    write_result(str(dest), {"exit_code": 0})
    assert create(str(dest / "_stylejobs" / "lease.json"), b"{}")
    assert len(list(dest.rglob("*"))) > 8 and wide(tmp_path / "work") == {}


def test_models_runs_and_what_is_sent_are_as_private(
    closed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    save_package(str(tmp_path / "model"), "moments", {}, {}, {"red": torch.zeros(6)}, {})
    tracker = MlflowTracker.start("demo", "run")
    tracker.log_text("text", "a.txt")
    tracker.log_file(str(tmp_path / "model" / "model.json"))
    assert tracker.finish().complete
    pack_code(tmp_path / "sent", "seed: 1\n")
    names = {path.name for path in tmp_path.rglob("*")}
    assert {"mlflow.db", "a.txt", "model.json", "job.yaml"} <= names and wide(tmp_path) == {}


def test_the_search_finds_what_is_wide(closed: None, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert wide(tmp_path) == {}
    (tmp_path / "a").chmod(0o604)
    assert list(wide(tmp_path).values()) == ["0o604"]


OURS = [field.name for field in STYLIZED_FIELDS if field.name not in ("image", "key", "width", "height")]


@pytest.mark.parametrize("lie", [lambda name: f"forged {name}", lambda name: 7])
def test_columns_of_the_source_do_not_pass_for_ours(tmp_path: Path, lie: Callable[[str], object]) -> None:
    """A source that calls its pictures real, or made by another model, is carried under another name."""
    (tmp_path / "in").mkdir()
    forged = {name: [lie(name)] for name in OURS} | {"source_style": [lie("source_style")], "is_synthetic": [False]}
    table = pa.table({"image": [picture(0)], "key": ["k"], "width": [1], "height": [1], **forged})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    dest = make(tmp_path / "in", tmp_path / "out", variants=1)
    (row,) = pq.read_table(dest / "data").to_pylist()
    assert row["is_synthetic"] is True and row["source_is_synthetic"] is False
    assert (row["width"], row["height"]) == (32, 24) and row["model_name"] == "moments"
    assert all(row[name] != lie(name) for name in OURS)
    assert row["source_style"] == lie("source_style") and row["source_source_style"] == lie("style")
    assert not look(dest)[0]
