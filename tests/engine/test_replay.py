"""Rows made again without Ray: the same bytes on this machine, and a picture that is another one is found."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylejobs.config.schema import ReplayConfig
from stylejobs.engine.replay import open_dataset, replay
from stylejobs.engine.replayer import Replayed, Replayer
from stylejobs.errors import SourceError, UsageError
from stylejobs.storage.markers import Markers
from stylejobs.storage.sinks import read_part
from tests.engine.small_dataset import make, picture, replaced, rewrite, shards, write_source


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A dataset of some keys, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    source = write_source(folder / "in")
    known: dict[str, Path] = {}

    def call(**keys: object) -> Path:
        name = json.dumps(keys)
        if name not in known:
            known[name] = make(source, folder / str(len(known)), **keys)
        return known[name]

    return call


@pytest.fixture
def dest(made: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(made(), tmp_path / "out"))


def all_again(dest: Path) -> list[Replayed]:
    """Every row of a dataset, unit by unit."""
    _, job, _ = open_dataset(str(dest))
    worker, replayed = Replayer(job.settings), []
    for name, marker in Markers(str(dest)).read().items():
        count = len(read_part(str(dest), marker.file).rows)
        for number in range(count):  # alone, so not in the batch in which it was made
            item = replace(job.work[name], part={"file": marker.file, "rows": [number]})
            replayed += [Replayed(**row) for row in json.loads(json.dumps(worker.do(item)["replayed"]))]
    return replayed


@pytest.mark.parametrize("keys", [{}, {"sink": "webdataset"}, {"sink": "files", "format": "jpeg", "strength": 0.5}])
def test_rows_come_out_as_they_were(made: Callable[..., Path], keys: dict) -> None:
    replayed = all_again(made(**keys))
    assert len(replayed) == 12 and not any(row.fault for row in replayed)
    assert sum(row.is_identical for row in replayed) == 12


@pytest.mark.parametrize(("deviation", "is_fault"), [(1, False), (8, True)])
def test_a_picture_of_other_pixels_is_judged_by_psnr(dest: Path, deviation: int, is_fault: bool) -> None:
    row = pq.read_table(shards(dest)[1]).to_pylist()[0]
    pixels_HWC = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).astype(int)
    noise_HWC = np.random.default_rng(0).choice([-deviation, deviation], pixels_HWC.shape)
    changed = np.where((pixels_HWC + noise_HWC) % 256 == pixels_HWC + noise_HWC, noise_HWC, -noise_HWC) + pixels_HWC
    sink = io.BytesIO()
    Image.fromarray(changed.astype(np.uint8)).save(sink, "PNG")
    new = {"bytes": sink.getvalue(), "path": "x"}
    rewrite(
        dest,
        1,
        lambda table: replaced("out_sha256", hashlib.sha256(new["bytes"]).hexdigest())(replaced("image", new)(table)),
    )
    (other,) = [row for row in all_again(dest) if not row.is_identical]
    assert other.psnr_db == pytest.approx(20 * np.log10(255 / deviation), abs=0.01)
    assert (other.fault is not None) == is_fault


def test_a_value_that_only_the_pixels_tell_is_compared(dest: Path) -> None:
    rewrite(dest, 1, replaced("blur_score", 0.25))
    (fault,) = [row.fault for row in all_again(dest) if row.fault]
    assert "blur_score" in fault


def test_a_row_of_another_source_cannot_be_made_again(dest: Path) -> None:
    rewrite(dest, 1, replaced("source_sha256", "0" * 64))
    (fault,) = [row.fault for row in all_again(dest) if row.fault]
    assert "not in the source any more" in fault


class TestReplay:
    @pytest.mark.parametrize("sink", ["parquet", "webdataset", "files"])
    def test_a_row_is_found_by_its_key_and_written(self, made: Callable[..., Path], tmp_path: Path, sink: str) -> None:
        dest, out = made(sink=sink), tmp_path / "again.png"
        result = replay(ReplayConfig(dest=str(dest), key="k3", variant=1, out=str(out)))
        assert result.exit_code == 0 and result.details["identical"] and result.details["psnr_db"] is None
        assert result.details["lineage"]["key"] == "k3" and result.details["lineage"]["variant"] == 1
        assert "made again: the same bytes" in result.message and "style" in result.message
        stored = pq.read_table(made() / "data").filter(
            (pa.compute.field("key") == "k3") & (pa.compute.field("variant") == 1)
        )
        assert out.read_bytes() == stored["image"][0].as_py()["bytes"]

    def test_a_dead_letter_says_why_it_died(self, made: Callable[..., Path], tmp_path: Path) -> None:
        out = tmp_path / "again.png"
        result = replay(ReplayConfig(dest=str(made()), key="row-5", out=str(out)))
        assert result.exit_code == 0 and result.rows["by_reason"] == {"not_an_image": 1}
        assert result.details["dead"]["reason"] == "not_an_image" and result.details["dies_again"]
        assert "it is as bad" in result.message and not out.exists() and result.details["out"] is None

    def test_a_picture_that_was_replaced_does_not_agree(self, dest: Path) -> None:
        rewrite(dest, 1, replaced("image", {"bytes": picture(50), "path": "x"}))
        result = replay(ReplayConfig(dest=str(dest), key="k2"))
        assert result.exit_code == 4 and "PSNR" in result.message
        assert result.details["psnr_db"] < 20 and result.rows["ok"] == 0

    def test_a_key_that_is_not_there(self, dest: Path) -> None:
        with pytest.raises(SourceError, match="has no row of this key"):
            replay(ReplayConfig(dest=str(dest), key="nobody"))
        with pytest.raises(SourceError, match="variant=7"):
            replay(ReplayConfig(dest=str(dest), key="k2", variant=7))
        next((dest / "_stylejobs" / "units").glob("*.json")).unlink()
        with pytest.raises(SourceError, match="1 units that may hold it are not done"):
            replay(ReplayConfig(dest=str(dest), key="nobody"))

    def test_names_of_files_lead_to_their_unit(self, tmp_path: Path) -> None:
        folder = tmp_path / "files"
        (folder / "cat").mkdir(parents=True)
        for number in range(4):
            (folder / "cat" / f"{number}.png").write_bytes(picture(number))
        dest = make(folder, tmp_path / "out", unit_mb=1)
        (folder / "cat" / "0.png").touch()
        (folder / "cat" / "0.png").write_bytes((folder / "cat" / "1.png").read_bytes())
        with pytest.raises(SourceError, match="not done yet"):  # the unit is another one by now
            replay(ReplayConfig(dest=str(dest), key="cat/3.png"))
        again = make(folder, tmp_path / "again", unit_mb=1)
        assert replay(ReplayConfig(dest=str(again), key="cat/3.png")).details["identical"]

    def test_what_is_replayed_does_not_go_into_the_dataset(self, dest: Path) -> None:
        with pytest.raises(UsageError, match="no part of the dataset"):
            replay(ReplayConfig(dest=str(dest), key="k2", out=str(dest / "data" / "x.png")))
