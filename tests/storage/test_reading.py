"""Units of plain files read into memory."""

from pathlib import Path

import pytest

from stylejobs.errors import DecodeError, SourceError
from stylejobs.storage import locations
from stylejobs.storage.sources import plan_source
from tests.storage.units_read import read_one, reread


class TestFiles:
    def test_rows_are_the_files_in_order_with_their_labels(self, tmp_path: Path) -> None:
        for name, data in {"b/2.png": b"two", "a/1.jpg": b"one", "top.gif": b""}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
        source = plan_source(str(tmp_path), 10**6, labels="folder")
        rows = reread(source)
        assert rows.keys == rows.paths == ["a/1.jpg", "b/2.png", "top.gif"]
        assert rows.images == [b"one", b"two", b""]
        assert rows.carried.to_pylist() == [{"label": "a"}, {"label": "b"}, {"label": None}]
        assert rows.positions == [(None, None)] * 3
        assert [Path(place).read_bytes() for place in rows.sources] == rows.images
        assert read_one(tmp_path).carried.num_columns == 0

    def test_a_file_above_the_limit_is_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "at.jpg").write_bytes(b"x" * 100)
        (tmp_path / "over.jpg").write_bytes(b"x" * 101)
        read: list[str] = []
        read_bytes = locations.read_bytes
        monkeypatch.setattr(locations, "read_bytes", lambda place: read.append(Path(place).name) or read_bytes(place))
        image, refused = read_one(tmp_path, max_bytes=100).images
        assert image == b"x" * 100 and read == ["at.jpg"]
        assert isinstance(refused, DecodeError) and refused.reason == "bomb" and "101 bytes" in refused.message

    def test_a_file_that_is_gone(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"x")
        source = plan_source(str(tmp_path), 1)
        (tmp_path / "a.jpg").unlink()
        with pytest.raises(SourceError, match="was there when the job was planned and is gone now"):
            reread(source)

    def test_the_file_that_is_gone_is_named(self, tmp_path: Path) -> None:
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / name).write_bytes(b"x")
        source = plan_source(str(tmp_path), 10)
        (tmp_path / "b.jpg").unlink()
        with pytest.raises(SourceError, match=r"b\.jpg: was there"):
            reread(source)
