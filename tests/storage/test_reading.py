"""Units read into memory: rows, keys and references are right, and damage is an error, never other pixels."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.errors import DecodeError, RowError, SourceError, StorageError
from stylejobs.storage import locations
from stylejobs.storage.reading import UnitRows, read_unit
from stylejobs.storage.shards import encode_shard
from stylejobs.storage.sources import Source, plan_source

BYTES_AND_PATH = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def read_all(place: Path | str, unit_bytes: float = 10**9, max_bytes: int = 10**9) -> list[UnitRows]:
    source = plan_source(str(place), unit_bytes)
    return [read_unit(unit, source.carried_schema, max_bytes) for unit in source.units]


def read_one(place: Path | str, **options: int) -> UnitRows:
    (rows,) = read_all(place, **options)
    return rows


def reread(source: Source, number: int = 0) -> UnitRows:
    """Reads what was planned before; the file may have changed since."""
    return read_unit(source.units[number], source.carried_schema, 10**9)


def noise(*sizes: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.bytes(size) for size in sizes]


class TestParquet:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 400))
    def test_positions_refer_to_the_bytes_and_made_up_keys_are_unique(
        self, num_rows: list[int], group_rows: int, unit_bytes: int
    ) -> None:
        with TemporaryDirectory() as folder:
            for number, rows in enumerate(num_rows):
                path = Path(folder) / f"{'sub/' * number}{number % 2}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.table({"image": noise(*[9] * rows)}), path, row_group_size=group_rows)
            units = read_all(folder, unit_bytes)
            for rows in units:
                file = pq.ParquetFile(rows.sources[0])
                images = file.read()["image"].to_pylist()
                starts = np.cumsum([0, *(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))])
                for image, (group, row) in zip(rows.images, rows.positions, strict=True):
                    assert image == images[row]
                    assert starts[group] <= row < starts[group + 1]
            keys = [key for rows in units for key in rows.keys]
            assert len(set(keys)) == len(keys) == sum(num_rows)

    def test_keys_are_the_columns_own_and_made_up_where_null(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": noise(5, 5, 5), "key": ["cat", None, ""]}), tmp_path / "a.parquet")
        assert read_one(tmp_path).keys == ["cat", "a.parquet/1", ""]

    def test_numbers_as_keys_become_text(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": noise(5, 5), "key": [7, None]}), tmp_path / "a.parquet")
        assert read_one(tmp_path).keys == ["7", "a.parquet/1"]

    def test_made_up_keys_of_files_that_differ_in_the_ending_differ(self, tmp_path: Path) -> None:
        for name in ("a.parquet", "a.pq"):
            pq.write_table(pa.table({"image": noise(5)}), tmp_path / name)
        first, second = read_all(tmp_path)
        assert first.keys != second.keys

    @pytest.mark.parametrize(
        "kind",
        [
            pa.binary(),
            pa.large_binary(),
            pa.binary_view(),
            BYTES_AND_PATH,
            pa.struct([("path", pa.string()), ("bytes", pa.large_binary())]),
            pa.struct([("bytes", pa.binary())]),
        ],
        ids=str,
    )
    def test_every_kind_of_image_column(self, tmp_path: Path, kind: pa.DataType) -> None:
        images = noise(10, 3000, 1)
        is_struct = pa.types.is_struct(kind)
        paths = [f"{n}.jpg" if is_struct and kind.get_field_index("path") >= 0 and n != 1 else None for n in range(3)]
        values = [{"bytes": i, "path": p} for i, p in zip(images, paths, strict=True)] if is_struct else images
        pq.write_table(pa.table({"photo": pa.array(values, kind)}), tmp_path / "a.parquet", row_group_size=2)
        rows = read_one(tmp_path)
        assert rows.images == images
        assert rows.paths == [path or key for path, key in zip(paths, rows.keys, strict=True)]
        assert rows.carried.num_columns == 0 and len(rows) == 3

    @pytest.mark.parametrize("missing", [None, {"bytes": None, "path": "x.jpg"}])
    def test_a_missing_image_is_the_error_of_its_row(self, tmp_path: Path, missing: dict | None) -> None:
        values = [{"bytes": b"one", "path": None}, missing, {"bytes": b"", "path": None}]
        pq.write_table(pa.table({"image": pa.array(values, BYTES_AND_PATH)}), tmp_path / "a.parquet")
        first, second, third = read_one(tmp_path).images
        assert (first, third) == (b"one", b"")
        assert isinstance(second, DecodeError) and second.reason == "not_an_image"

    def test_a_missing_binary_is_the_error_of_its_row(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": [None, b"x"]}), tmp_path / "a.parquet")
        missing, image = read_one(tmp_path).images
        assert isinstance(missing, DecodeError) and image == b"x"

    def test_columns_are_carried_in_one_order_and_missing_ones_are_null(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [1], "image": [b"1"], "b": [["x"]], "n": pa.nulls(1)}), tmp_path / "1.parquet")
        pq.write_table(pa.table({"n": [2.5], "b": [["y", None]], "image": [b"2"]}), tmp_path / "2.parquet")
        first, second = read_all(tmp_path)
        assert first.carried.schema == second.carried.schema == plan_source(str(tmp_path), 1).carried_schema
        assert first.carried.to_pylist() == [{"a": 1, "b": ["x"], "n": None}]
        assert second.carried.to_pylist() == [{"a": None, "b": ["y", None], "n": 2.5}]

    def test_a_required_column_may_be_missing_in_another_file(self, tmp_path: Path) -> None:
        schema = pa.schema([("image", pa.binary()), pa.field("a", pa.int64(), nullable=False)])
        pq.write_table(pa.table({"image": [b"1"], "a": [1]}, schema=schema), tmp_path / "1.parquet")
        pq.write_table(pa.table({"image": [b"2"]}), tmp_path / "2.parquet")
        _, second = read_all(tmp_path)
        assert pq.read_table(io.BytesIO(encode_shard(second.carried, 10**6))).to_pylist() == [{"a": None}]

    @pytest.mark.parametrize("kind", [pa.uuid(), pa.json_(), pa.dictionary(pa.int8(), pa.string())], ids=str)
    @pytest.mark.parametrize("store_schema", [True, False])
    def test_columns_of_uncommon_kinds_are_those_of_the_plan(
        self, tmp_path: Path, kind: pa.DataType, store_schema: bool
    ) -> None:
        values = pa.array([b"0123456789abcdef" if kind == pa.uuid() else "1"] * 2, kind)
        table = pa.table({"image": [b"1", b"2"], "x": values})
        pq.write_table(table, tmp_path / "a.parquet", store_schema=store_schema)
        assert len(read_one(tmp_path).carried["x"]) == 2

    def test_an_image_column_is_not_carried_for_a_column_of_that_name_in_another_file(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": [b"1"], "photo": [b"p"]}), tmp_path / "1.parquet")
        pq.write_table(pa.table({"photo": [b"2"]}), tmp_path / "2.parquet")
        _, second = read_all(tmp_path)
        assert second.images == [b"2"] and second.carried.to_pylist() == [{"photo": None}]


class TestDamagedParquet:
    @pytest.fixture
    def shard(self, tmp_path: Path) -> Path:
        images = [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(noise(*[300] * 6))]
        table = pa.table({"image": pa.array(images, BYTES_AND_PATH), "label": [f"label {n}" for n in range(6)]})
        (tmp_path / "a.parquet").write_bytes(encode_shard(table, table.nbytes / 3))
        return tmp_path / "a.parquet"

    @pytest.mark.parametrize("column", ["image.bytes", "image.path", "label"])
    def test_one_flipped_bit_is_found_and_other_row_groups_still_read(self, shard: Path, column: str) -> None:
        source = plan_source(str(shard), 1)
        before = [reread(source, number) for number in range(3)]
        data = bytearray(shard.read_bytes())
        group = pq.read_metadata(shard).row_group(1)
        chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        data[start + chunk.total_compressed_size - 5] ^= 4
        shard.write_bytes(data)
        for spoilt in reread(source, 1).images:
            assert (spoilt.stage, spoilt.reason) == ("read", "decode")
            assert "a.parquet: row groups (1, 2) cannot be read" in spoilt.message
        whole = reread(plan_source(str(shard), 10**9))
        assert whole.keys == [f"a.parquet/{row}" for row in range(6)]
        assert [isinstance(image, RowError) for image in whole.images] == [False] * 2 + [True] * 2 + [False] * 2
        assert whole.images[:2] + whole.images[4:] == before[0].images + before[2].images
        assert whole.carried["label"].to_pylist() == ["label 0", "label 1", None, None, "label 4", "label 5"]
        for number in (0, 2):
            assert reread(source, number).images == before[number].images
            assert reread(source, number).carried == before[number].carried

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_no_flipped_bit_changes_what_is_read(self, data: st.DataObject) -> None:
        table = pa.table({"image": noise(200, 200), "label": ["a" * 50, "b" * 50]})
        whole = bytearray(encode_shard(table, 1))
        pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "a.parquet"
            path.write_bytes(whole)
            source = plan_source(folder, 10**6)
            whole[data.draw(st.integers(0, pages - 1))] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(whole)
            rows = reread(source)
        assert len(rows) == 2
        for row in range(2):
            if not isinstance(rows.images[row], RowError):
                assert rows.images[row] == table["image"][row].as_py()
                assert rows.carried["label"][row].as_py() == table["label"][row].as_py()

    def test_a_file_that_is_gone(self, shard: Path) -> None:
        source = plan_source(str(shard), 10**9)
        shard.unlink()
        with pytest.raises(SourceError, match=r"a\.parquet: was there when the job was planned and is gone now"):
            reread(source)

    @pytest.mark.parametrize("rest", [b"", b"something else", b"PAR1" * 20])
    def test_a_file_that_is_not_parquet_any_more(self, shard: Path, rest: bytes) -> None:
        source = plan_source(str(shard), 10**9)
        shard.write_bytes(rest)
        with pytest.raises(SourceError, match=r"a\.parquet: row groups \(0, 3\) cannot be read"):
            reread(source)

    def test_a_file_with_fewer_row_groups_than_planned(self, shard: Path) -> None:
        source = plan_source(str(shard), 1)
        pq.write_table(pq.read_table(shard), shard)
        with pytest.raises(SourceError, match=r"row groups \(2, 3\) cannot be read"):
            reread(source, 2)

    @pytest.mark.parametrize(
        "columns",
        [
            {"label": ["no image"]},
            {"image": ["text"], "label": ["x"]},
            {"image": [b"1"], "label": [[1, 2]]},
        ],
        ids=["image gone", "image is text", "label of another type"],
    )
    def test_a_file_whose_columns_have_changed(self, shard: Path, columns: dict) -> None:
        source = plan_source(str(shard), 10**9)
        pq.write_table(pa.table({name: values * 3 for name, values in columns.items()}), shard, row_group_size=1)
        with pytest.raises(SourceError, match=r"a\.parquet"):
            reread(source)

    def test_storage_that_refuses_in_the_middle_is_an_error_of_the_storage(
        self, shard: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Refusing(io.FileIO):
            def read(self, size: int = -1) -> bytes:
                raise PermissionError(13, "Forbidden")

        source = plan_source(str(shard), 10**9)
        monkeypatch.setattr(LocalFileSystem, "open", lambda self, path, *args, **options: Refusing(path))
        with pytest.raises(StorageError, match="Forbidden"):
            reread(source)

    def test_a_number_where_text_was_planned_is_not_taken_for_it(self, shard: Path) -> None:
        source = plan_source(str(shard), 10**9)
        pq.write_table(pa.table({"image": [b"1"] * 3, "label": [1, 2, 3]}), shard, row_group_size=1)
        with pytest.raises(SourceError, match=r"label \(was string, is int64\)"):
            reread(source)

    def test_a_key_column_that_is_gone(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": [b"1"], "key": ["cat"]}), tmp_path / "a.parquet")
        source = plan_source(str(tmp_path), 10**9)
        pq.write_table(pa.table({"image": [b"1"]}), tmp_path / "a.parquet")
        with pytest.raises(SourceError, match=r"key \(gone\)"):
            reread(source)

    def test_a_file_that_goes_away_in_the_middle(self, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Going(io.FileIO):
            def read(self, size: int = -1) -> bytes:
                raise FileNotFoundError(2, "No such key")

        source = plan_source(str(shard), 10**9)
        monkeypatch.setattr(LocalFileSystem, "open", lambda self, path, *args, **options: Going(path))
        with pytest.raises(SourceError, match=r"a\.parquet: was there when the job was planned and is gone now"):
            reread(source)


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
