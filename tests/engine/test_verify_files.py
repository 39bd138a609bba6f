"""verify without Ray: damage of files, books and sources that is done for real is found and named, nothing else is."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.engine.findings import Findings
from stylejobs.engine.replay import open_dataset
from stylejobs.errors import DriftError, GateError, SourceError
from tests.engine.small_dataset import (
    NUM_DEAD,
    NUM_ROWS,
    change_marker,
    kinds,
    look,
    make,
    picture,
    prove,
    shards,
    text,
    write_source,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A dataset of each sink, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    source = write_source(folder / "in")
    known: dict[str, Path] = {}

    def call(sink: str = "parquet") -> Path:
        if sink not in known:
            known[sink] = make(source, folder / sink, sink=sink)
        return known[sink]

    return call


@pytest.fixture
def dest(made: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(made(), tmp_path / "out"))


@pytest.mark.parametrize("sink", ["parquet", "webdataset", "files"])
def test_a_sound_dataset_is_proven(made: Callable[[str], Path], sink: str) -> None:
    problems, rows = look(made(sink))
    assert text(problems) == ""
    assert rows == {"in": NUM_ROWS, "ok": NUM_ROWS - NUM_DEAD, "bad": NUM_DEAD}


class TestFiles:
    def test_a_byte_of_a_picture_is_flipped(self, dest: Path) -> None:
        shard = shards(dest)[0]
        row = pq.read_table(shard).to_pylist()[2]
        data = bytearray(shard.read_bytes())
        data[data.index(row["image"]["bytes"]) + 60] ^= 1
        shard.write_bytes(data)
        problems, rows = look(dest)
        assert kinds(problems) >= {"file_sha256", "out_sha256"}
        assert kinds(problems) <= {"file_sha256", "out_sha256", "image"}
        assert {p.place for p in problems} == {f"data/{shard.name}"} and "row 2, key=again variant=0" in text(problems)
        assert rows["ok"] >= NUM_ROWS - NUM_DEAD - 2

    def test_a_shard_is_cut_short(self, dest: Path) -> None:
        shard = shards(dest)[1]
        shard.write_bytes(shard.read_bytes()[:-100])
        problems, rows = look(dest)
        assert kinds(problems) == {"file_sha256", "unreadable", "row_missing"}
        assert "key=k2 variant=0" in text(problems) and "key=k3 variant=1" in text(problems)
        assert rows["ok"] == NUM_ROWS - NUM_DEAD - 2

    def test_a_shard_is_deleted(self, dest: Path) -> None:
        shard = shards(dest)[1]
        shard.unlink()
        problems, _ = look(dest)
        assert kinds(problems) == {"file_missing", "row_missing"} and shard.name in text(problems)
        assert len({p.fingerprint for p in problems}) == 1

    def test_a_marker_is_deleted(self, dest: Path) -> None:
        shard = shards(dest)[0]
        (place,) = (dest / "_stylejobs" / "units").glob(f"*{shard.stem.rpartition('-')[2]}*")
        place.unlink()
        problems, _ = look(dest)
        assert kinds(problems) == {"not_done", "stray_file", "manifest"}
        assert "a.parquet (0, 1)" in text(problems) and shard.name in text(problems)

    def test_a_strange_file_lies_there(self, dest: Path) -> None:
        shutil.copy(shards(dest)[0], dest / "data" / "part-00007-0123456789ab.parquet")
        problems, _ = look(dest)
        assert kinds(problems) == {"stray_file"} and "part-00007-0123456789ab" in text(problems)

    def test_the_proof_is_gone_or_of_others(self, dest: Path) -> None:
        (dest / "_SUCCESS").write_text('{"manifest_sha256": "00"}')
        assert kinds(look(dest)[0]) == {"manifest"}
        (dest / "_SUCCESS").unlink()
        assert kinds(look(dest)[0]) == {"no_success"}

    def test_a_marker_lies(self, dest: Path) -> None:
        change_marker(dest, shards(dest)[0].name, rows_in=3)
        assert "rows_in 3, there are 2" in text(look(dest)[0])
        change_marker(dest, shards(dest)[0].name, rows_in=2, file="data/../../elsewhere.parquet")
        prove(dest)
        problems, _ = look(dest)
        assert kinds(problems) == {"marker", "row_missing", "stray_file"}

    def test_a_marker_that_is_no_marker_is_named_as_the_fault(self, dest: Path) -> None:
        next((dest / "_stylejobs" / "units").glob("*.json")).write_text('{"fingerprint": "x')
        with pytest.raises(GateError, match="a marker cannot be read"):
            look(dest)

    @given(where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
    @settings(max_examples=60, deadline=None)
    def test_any_byte_that_changes_is_found(self, made: Callable, where: float, mask: int) -> None:
        shard = shards(made())[0]
        whole = shard.read_bytes()
        data = bytearray(whole)
        data[int(where * len(data))] ^= mask
        try:
            shard.write_bytes(data)
            problems, _ = look(made())
        finally:
            shard.write_bytes(whole)
        assert "file_sha256" in kinds(problems) and shard.name in text(problems)


class TestSource:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_source(tmp_path / "in")

    def test_a_file_is_changed(self, source: Path, tmp_path: Path) -> None:
        dest = make(source, tmp_path / "out")
        pq.write_table(pq.read_table(source / "a.parquet").slice(0, 3), source / "a.parquet", row_group_size=2)
        problems, rows = look(dest)
        assert Counter(p.kind for p in problems) == {"changed": 2, "stray_marker": 2, "manifest": 1}
        assert "a.parquet (0, 1): has changed since" in text(problems) and "b.parquet" not in text(problems)
        assert rows["in"] == NUM_ROWS // 2

    def test_a_file_comes_and_another_goes(self, source: Path, tmp_path: Path) -> None:
        dest = make(source, tmp_path / "out")
        shutil.copy(source / "a.parquet", source / "c.parquet")
        (source / "b.parquet").unlink()
        problems, _ = look(dest)
        assert Counter(p.kind for p in problems) == {"not_done": 2, "stray_marker": 2, "manifest": 1}
        assert "c.parquet (0, 1): is not done" in text(problems)

    def test_bytes_change_behind_the_same_size_and_time(self, source: Path, tmp_path: Path) -> None:
        """As bits of a disk do: nothing but the digests can see it."""
        folder = tmp_path / "files"
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.png").write_bytes(picture(number))
        dest = make(folder, tmp_path / "out")
        place = folder / "1.png"
        before = place.stat()
        data = bytearray(place.read_bytes())
        data[500] ^= 1
        place.write_bytes(data)
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
        problems, _ = look(dest)
        assert kinds(problems) == {"source_sha256"} and "key=1.png" in text(problems)

    def test_a_unit_that_can_no_longer_be_read_is_not_mended_by_doing_it_again(
        self, source: Path, tmp_path: Path
    ) -> None:
        dest = make(source, tmp_path / "out")
        place = source / "a.parquet"
        before = place.stat()
        data = bytearray(place.read_bytes())
        data[data.index(picture(0)) + 20] ^= 1
        place.write_bytes(data)
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
        problems, _ = look(dest)
        assert kinds(problems) <= {"source", "source_sha256"} and problems

    def test_the_whole_source_is_gone(self, source: Path, tmp_path: Path) -> None:
        dest = make(source, tmp_path / "out")
        shutil.rmtree(source)
        with pytest.raises(SourceError, match="nothing is there"):
            look(dest)


class TestRefused:
    def test_what_stylize_did_not_make(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        with pytest.raises(SourceError, match="there is no plan of one"):
            open_dataset(str(tmp_path / "x"))

    def test_what_keeps_no_pictures(self, tmp_path: Path) -> None:
        dest = make(write_source(tmp_path / "in"), tmp_path / "out", sink="null")
        with pytest.raises(SourceError, match="sink=null"):
            open_dataset(str(dest))

    def test_a_plan_that_is_another_job_by_now(self, dest: Path) -> None:
        place = dest / "_stylejobs" / "plan.json"
        plan = json.loads(place.read_text())
        plan["identity"]["parameters"]["seed"] = 9
        place.write_text(json.dumps(plan))
        with pytest.raises(DriftError, match=r"parameters\.seed"):
            open_dataset(str(dest))


def test_of_many_problems_of_one_kind_twenty_are_kept() -> None:
    findings = Findings("data/x", "ab")
    for number in range(1000):
        findings.add("image", f"row {number}")
    findings.add("columns", "other")
    problems = findings.problems()
    assert Counter(p.kind for p in problems) == {"image": 21, "columns": 1}
    assert problems[-1].text == "and 980 more"
