"""Units of Parquet: rows, keys and references are right, and damage is an error, never other pixels."""

import io
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
from stylejobs.storage.shards import encode_shard
from stylejobs.storage.sources import plan_source
from tests.storage.units_read import noise, read_all, read_one, reread

BYTES_AND_PATH = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


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
