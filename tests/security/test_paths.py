"""Names and links that lead elsewhere: nothing is written or deleted outside of dest, and no name is a way out."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylejobs.errors import ReadError, SourceError
from stylejobs.storage import locations
from stylejobs.storage.put import create
from stylejobs.storage.reading import read_unit
from stylejobs.storage.sources import plan_source
from stylejobs.storage.units import check_dest, write_result
from tests.engine.small_dataset import kinds, look, make, picture, shards, write_source
from tests.storage.test_reading_tars import pack

KEYS = [
    "../../../escaped.jpg", "/escaped.jpg", "C:\\escaped.jpg", "c:/escaped.jpg", "..\\..\\escaped", "a/../../escaped",
    "~/escaped.jpg", "nul\0byte.jpg", "a" * 5000, "/".join("b" * 300 for _ in range(50)), "con.jpg", ".", "..", "",
    "file:///escaped.jpg", "s3://escaped/../x", "-rf", "$(touch escaped)", "line\nbreak", "\u202egpj.exe",
]  # fmt: skip


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


class TestKeys:
    @pytest.fixture(params=["parquet", "tar"])
    def source(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """Rows whose keys lead elsewhere."""
        folder = tmp_path / "deep" / "er" / "in"
        folder.mkdir(parents=True)
        if request.param == "tar":
            # A sample's name ends at its first dot, and a hidden one is none.
            names = [f"{key.replace(chr(0), '')}/{number}.png" for number, key in enumerate(KEYS)]
            pack(folder / "t.tar", [(name, picture(number)) for number, name in enumerate(names)])
        else:
            table = pa.table({"image": [picture(number) for number in range(len(KEYS))], "key": KEYS})
            pq.write_table(table, folder / "a.parquet")
        return folder

    @pytest.mark.parametrize("sink", ["parquet", "webdataset", "files"])
    def test_nothing_is_written_outside_of_dest(self, source: Path, tmp_path: Path, sink: str) -> None:
        before = tree(tmp_path)
        dest = make(source, tmp_path / "deep" / "er" / "out", sink=sink)
        fresh = tree(tmp_path) - before - {"deep/er/style.png", "deep/er/out"}
        assert fresh and all(name.startswith("deep/er/out/") for name in fresh)
        assert not [path for path in dest.rglob("*") if path.is_symlink() or ".." in path.parts]
        problems, rows = look(dest)
        assert not problems and rows["ok"] == len(KEYS)


class TestLinksInSources:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A picture beside links: to a text and a folder outside, to itself as a folder, to nothing, to a device."""
        (tmp_path / "private").mkdir()
        (tmp_path / "private" / "id_key").write_text("PRIVATE-" * 100)
        (tmp_path / "private" / "deep.png").write_bytes(picture(7))
        folder = tmp_path / "in"
        folder.mkdir()
        (folder / "a.png").write_bytes(picture(0))
        links = {
            "text.png": "../private/id_key", "folder.png": "../private", "folder": "../private", "circle": ".",
            "nowhere.png": "absent", "itself.png": "itself.png", "device.png": "/dev/zero",
        }  # fmt: skip
        for name, target in links.items():
            (folder / name).symlink_to(target)
        os.mkfifo(folder / "pipe.png")
        return folder

    def test_folders_behind_links_are_not_entered_and_other_files_are_bad_rows(self, folder: Path) -> None:
        source = plan_source(str(folder), 1e9)
        (rows,) = [read_unit(unit, source.carried_schema, 10**6) for unit in source.units]
        found = dict(zip(rows.keys, rows.images, strict=True))
        links = ("folder.png", "nowhere.png", "itself.png", "device.png")
        assert found.keys() == {"a.png", "text.png", "pipe.png", *links}
        assert found["a.png"] == picture(0) and found["pipe.png"] == b""
        for name in links:
            assert isinstance(found[name], ReadError) and "a link that leads to no plain file" in found[name].message

    def test_what_is_no_picture_appears_nowhere(self, folder: Path, tmp_path: Path) -> None:
        dest = make(folder, tmp_path / "out", unit_mb=1)
        letters = pq.read_table(dest / "dead_letter")
        assert len(letters) == 6 and pq.read_table(dest / "data")["key"].to_pylist() == ["a.png"] * 2
        assert not [path for path in dest.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()]

    def test_a_link_to_a_picture_is_that_picture(self, folder: Path, tmp_path: Path) -> None:
        """As in the caches of Hugging Face and DVC, whose files are links out of the folder."""
        for path in folder.iterdir():
            if path.is_symlink() or path.is_fifo():
                path.unlink()
        (folder / "a.png").unlink()
        (folder / "b.png").symlink_to("../private/deep.png")
        os.utime(tmp_path / "private" / "deep.png", (1, 1))
        assert read_unit(plan_source(str(folder), 1e9).units[0], pa.schema([]), 10**6).images == [picture(7)]
        dest = make(folder, tmp_path / "out")
        assert pq.read_table(dest / "data")["key"].to_pylist() == ["b.png"] * 2
        (tmp_path / "private" / "deep.png").write_bytes(picture(8))
        problems, _ = look(dest)
        assert problems, "what the link leads to has changed"


class TestLinksInDest:
    def test_a_link_that_was_planted_where_we_write_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("untouched")
        (tmp_path / "out" / "_stylejobs").mkdir(parents=True)
        planted = tmp_path / "out" / "_stylejobs" / "result.json"
        planted.symlink_to(victim)
        write_result(str(tmp_path / "out"), {"exit_code": 0})
        assert victim.read_text() == "untouched" and not planted.is_symlink()

    @pytest.mark.parametrize("target", ["victim", "absent"])
    def test_a_lease_is_not_written_through_a_link(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "victim").write_text("untouched")
        (tmp_path / "lease.json").symlink_to(tmp_path / target)
        assert not create(str(tmp_path / "lease.json"), b"{}")
        assert (tmp_path / "victim").read_text() == "untouched" and not (tmp_path / "absent").exists()

    @pytest.mark.parametrize("name", ["data", "_stylejobs", "dead_letter"])
    def test_a_folder_of_links_is_no_empty_dest(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SourceError, match=f"is not empty and holds no job of ours, such as .*/{name};"):
            check_dest(str(tmp_path / "out"), {"verb": "stylize"})

    @pytest.mark.parametrize("planted", ["data/more", "data/x.parquet", "dead_letter/more", ".more.tmp", "data/.x.tmp"])
    def test_what_is_deleted_is_the_link(self, tmp_path: Path, planted: str) -> None:
        """Strays and torn files are deleted at the end of a job; what they link to is not theirs."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "part-00009-abcdefabcdef.parquet").write_bytes(b"x")
        (outside / ".torn.tmp").write_bytes(b"x")
        source, before = write_source(tmp_path / "source"), tree(outside)
        dest = make(source, tmp_path / "out")
        (dest / planted).parent.mkdir(exist_ok=True)
        (dest / planted).symlink_to(outside)
        make(source, tmp_path / "out")
        assert tree(outside) == before

    def test_files_below_a_linked_folder_are_not_listed(self, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "x").touch()
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
        assert list(locations.list_files(str(tmp_path / "in"))) == [str(tmp_path / "in" / "link")]
        assert locations.list_folders(str(tmp_path / "in")) == []


@pytest.mark.parametrize("file", ["../outside.parquet", "/etc/hostname", "data/../../outside.parquet"])
def test_a_marker_that_names_another_file_is_a_fault_and_is_not_read(tmp_path: Path, file: str) -> None:
    dest = make(write_source(tmp_path / "source"), tmp_path / "out")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "outside.parquet")
    for marker in (dest / "_stylejobs" / "units").glob("*.json"):
        marker.write_text(marker.read_text().replace(f"data/{shards(dest)[0].name}", file))
    problems, _ = look(dest)
    assert "marker" in kinds(problems)
