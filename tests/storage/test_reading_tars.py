"""Units of tars: samples by name, hostile members, and damage that is named."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stylejobs.errors import SourceError
from stylejobs.storage.reading import UnitRows
from stylejobs.storage.sources import plan_source
from tests.storage.units_read import noise, read_all, read_one, reread


def pack(path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo], mode: str = "w") -> bytes:
    """Writes a tar and returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path.read_bytes()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


class TestTar:
    def test_members_of_one_name_are_one_sample(self, tmp_path: Path) -> None:
        members = [
            ("a/1.jpg", b"photo"), ("a/1.txt", "ein Süßes".encode()), ("a/1.cls", b"3"), ("a/1.json", b"{}"),
            ("a/1.depth.bin", b"\0\1"), ("b/1.PNG", b"other"), ("top.seg.map", b"m"), ("top.webp", b"t"),
            ("top.txt", b"\xff"),
        ]  # fmt: skip
        pack(tmp_path / "train-0.tar", members)
        rows = read_one(tmp_path)
        assert rows.keys == ["train-0/a/1", "train-0/b/1", "train-0/top"]
        assert rows.images == [b"photo", b"other", b"t"]
        assert rows.paths == ["a/1.jpg", "b/1.PNG", "top.webp"]
        assert rows.positions == [(None, 0), (None, 1), (None, 2)]
        assert rows.carried.to_pylist() == [
            {"txt": "ein Süßes", "cls": "3", "json": "{}", "members": [("depth.bin", b"\0\1")]},
            {"txt": None, "cls": None, "json": None, "members": []},
            {"txt": "\ufffd", "cls": None, "json": None, "members": [("seg.map", b"m")]},
        ]

    def test_the_first_image_of_a_sample_is_its_picture_and_others_are_carried(self, tmp_path: Path) -> None:
        pack(tmp_path / "t.tar", [("1.jpg", b"photo"), ("1.png", b"mask"), ("1.seg.png", b"segments")])
        rows = read_one(tmp_path)
        assert rows.images == [b"photo"]
        assert rows.carried["members"].to_pylist() == [[("png", b"mask"), ("seg.png", b"segments")]]

    def test_the_picture_is_the_member_whose_whole_ending_is_an_images(self, tmp_path: Path) -> None:
        pack(tmp_path / "t.tar", [("1.depth.png", b"depth"), ("1.jpg", b"photo")])
        assert read_one(tmp_path).images == [b"photo"]

    def test_a_sample_without_an_image_is_the_error_of_its_row(self, tmp_path: Path) -> None:
        pack(tmp_path / "t.tar", [("1.txt", b"only text"), ("2.jpg", b"photo"), ("README", b"read me")])
        rows = read_one(tmp_path)
        assert rows.keys == ["t/1", "t/2", "t/README"]
        assert [getattr(image, "reason", image) for image in rows.images] == ["not_an_image", b"photo", "not_an_image"]
        assert rows.carried["txt"].to_pylist() == ["only text", None, None]

    def test_a_member_above_the_limit_is_the_error_of_its_row(self, tmp_path: Path) -> None:
        pack(tmp_path / "t.tar", [("1.jpg", b"x" * 101), ("1.txt", b"text"), ("2.jpg", b"x" * 100)])
        rows = read_one(tmp_path, max_bytes=100)
        assert rows.images[0].reason == "bomb" and rows.images[1] == b"x" * 100
        assert rows.paths == ["1.jpg", "2.jpg"] and rows.carried["txt"].to_pylist() == ["text", None]

    def test_names_that_lead_elsewhere_stay_text(self, tmp_path: Path) -> None:
        names = ["../../evil.jpg", "/etc/evil2.jpg", "a/../../../evil3.jpg"]
        pack(tmp_path / "in" / "t.tar", [(name, b"x") for name in names])
        before = sorted(tmp_path.rglob("*"))
        rows = read_one(tmp_path / "in")
        assert rows.paths == names and rows.images == [b"x"] * 3
        assert len(set(rows.keys)) == 3
        assert sorted(tmp_path.rglob("*")) == before and not Path("/etc/evil2.jpg").exists()

    def test_links_devices_and_folders_are_no_members(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret.jpg"
        secret.write_bytes(b"secret")
        (tmp_path / "in").mkdir()
        members = [
            special("1.jpg", tarfile.SYMTYPE, str(secret)),
            special("2.jpg", tarfile.LNKTYPE, "5.jpg"),
            special("3.jpg", tarfile.CHRTYPE),
            special("4.jpg", tarfile.FIFOTYPE),
            special("folder.jpg", tarfile.DIRTYPE),
            ("5.jpg", b"good"),
        ]
        pack(tmp_path / "in" / "t.tar", members)
        rows = read_one(tmp_path / "in")
        assert (rows.keys, rows.images) == (["t/5"], [b"good"])

    @pytest.mark.parametrize(
        ("name", "mode"), [("t.tar", "w"), ("t.tar.gz", "w:gz"), ("t.tgz", "w:gz"), ("t.tar", "w:gz")]
    )
    def test_plain_and_compressed_tars(self, tmp_path: Path, name: str, mode: str) -> None:
        images = noise(2000, 700)
        pack(tmp_path / name, [("1.jpg", images[0]), ("2.jpg", images[1])], mode)
        rows = read_one(tmp_path)
        assert rows.images == images
        assert rows.keys[0].endswith("/1") and rows.keys[1] == rows.keys[0].removesuffix("1") + "2"

    def test_a_tar_without_members_has_no_rows(self, tmp_path: Path) -> None:
        pack(tmp_path / "t.tar", [])
        rows = read_one(tmp_path)
        assert len(rows) == len(rows.carried) == 0

    @pytest.mark.parametrize("names", [("x.target/a.tar", "x.target/b.tar"), ("a.tar", "a.tgz"), ("a.tar", "a.tar.gz")])
    def test_keys_of_several_tars_are_unique(self, tmp_path: Path, names: tuple[str, str]) -> None:
        for name in names:
            pack(tmp_path / name, [("1.jpg", b"x")], "w:gz" if name.endswith("gz") else "w")
        first, second = read_all(tmp_path)
        assert first.keys != second.keys

    def test_a_sample_whose_name_has_two_dots_says_why_it_has_no_picture(self, tmp_path: Path) -> None:
        pack(tmp_path / "t.tar", [("1.v2.jpg", b"photo"), ("1.txt", b"text")])
        (image,) = read_one(tmp_path).images
        assert image.reason == "not_an_image" and "'v2.jpg', 'txt'" in image.message

    def test_a_tar_that_is_gone(self, tmp_path: Path) -> None:
        pack(tmp_path / "t.tar", [("1.jpg", b"x")])
        source = plan_source(str(tmp_path), 1)
        (tmp_path / "t.tar").unlink()
        with pytest.raises(SourceError, match=r"t\.tar: was there when the job was planned and is gone now"):
            reread(source)


# Three members of two data blocks each: header at 0, 1536, 3072; the end marker at 4608.
HEADER, IN_DATA = 1536, 1536 + 512 + 600


def _cut(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at]


def _flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


class TestDamagedTar:
    def read_damaged(self, folder: Path, damage: Callable[[bytes], bytes], name: str = "t.tar") -> UnitRows:
        mode = "w:gz" if name.endswith("gz") else "w"
        data = pack(folder / name, [(f"{n}.jpg", image) for n, image in enumerate(noise(700, 700, 700))], mode)
        source = plan_source(str(folder), 1)
        assert len(reread(source)) == 3
        (folder / name).write_bytes(damage(data))
        return reread(source)

    @pytest.mark.parametrize("damage", [_cut(0), _cut(100), _cut(600), _cut(HEADER + 512), _cut(IN_DATA), _flip(100)])
    def test_a_torn_tar_is_named(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        with pytest.raises(SourceError, match=r"t\.tar: not a whole tar file"):
            self.read_damaged(tmp_path, damage)

    @pytest.mark.parametrize("cut", [0, 5, 200, 1000, 1500])
    def test_a_torn_compressed_tar_is_named(self, tmp_path: Path, cut: int) -> None:
        with pytest.raises(SourceError, match=r"t\.tar\.gz: not a whole tar file"):
            self.read_damaged(tmp_path, _cut(cut), "t.tar.gz")

    @pytest.mark.parametrize("damage", [_cut(HEADER), _cut(HEADER + 100), _flip(HEADER + 100), _cut(3 * HEADER)])
    def test_a_tar_that_ends_without_its_end_marker_is_not_whole(
        self, tmp_path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        with pytest.raises(SourceError, match=r"t\.tar: not a whole tar file"):
            self.read_damaged(tmp_path, damage)

    @pytest.mark.parametrize("pack_as", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bz2", "xz"])
    def test_any_bit_of_a_compressed_tar(self, tmp_path: Path, pack_as: Callable[[bytes], bytes]) -> None:
        whole = pack_as(pack(tmp_path / "t.tar", [(f"{n}.jpg", image) for n, image in enumerate(noise(700, 700))]))
        (tmp_path / "t.tar").write_bytes(whole)
        source = plan_source(str(tmp_path), 1)
        before = reread(source).images
        assert before == noise(700, 700)
        for at in range(0, len(whole), 41):
            (tmp_path / "t.tar").write_bytes(_flip(at)(whole))
            try:
                assert reread(source).images == before  # gzip's header has bytes that decide nothing
            except SourceError as error:
                assert "t.tar: not a whole tar file" in str(error)

    @pytest.mark.parametrize("damage", [_flip(900), _cut(-6)], ids=["one bit", "without its checksum"])
    def test_a_compressed_tar_is_checked_by_its_checksum(
        self, tmp_path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        with pytest.raises(SourceError, match=r"t\.tar\.gz: not a whole tar file"):
            self.read_damaged(tmp_path, damage, "t.tar.gz")
