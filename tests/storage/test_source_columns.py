"""Parquet sources whose files have other columns, or damaged footers: unified, or refused by name."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylejobs.errors import SourceError
from stylejobs.records.schema import declared_features, with_image_feature
from stylejobs.storage.sources import plan_source
from tests.storage.units_read import write_parquet


def test_columns_of_files_are_unified(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", label=["x", "y"], empty=pa.nulls(2), key=["1", "2"])
    pq.write_table(pa.table({"empty": [1.5], "photo": [b"x"], "box": [[1, 2]]}), tmp_path / "b.parquet")
    source = plan_source(str(tmp_path), 1)
    kinds = [("label", pa.string()), ("empty", pa.float64()), ("box", pa.list_(pa.int64()))]
    assert source.carried_schema == pa.schema(kinds)
    assert [(u.image_column, u.key_column) for u in source.units] == [("image", "key"), ("photo", None)]


def test_declared_features_are_carried(tmp_path: Path) -> None:
    schema = with_image_feature(pa.schema([("image", pa.binary()), ("label", pa.int64())]))
    pq.write_table(pa.table({"image": [b"x"], "label": [1]}, schema=schema), tmp_path / "a.parquet")
    source = plan_source(str(tmp_path), 1)
    assert declared_features(source.carried_schema) == {"image": {"_type": "Image"}}


@pytest.mark.parametrize("other", [["1", "2"], pa.array([1, 2], pa.int32()), [[1], [2]]])
def test_clashing_columns_are_refused(tmp_path: Path, other: object) -> None:
    write_parquet(tmp_path / "a.parquet", label=[1, 2])
    write_parquet(tmp_path / "b.parquet", label=other)
    with pytest.raises(SourceError, match=r"do not have the same columns: .*label"):
        plan_source(str(tmp_path), 1)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    arrays = [pa.array([b"x"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(arrays, names=["image", "a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="duplicate field names"):
        plan_source(str(tmp_path), 1)


def test_the_file_without_an_image_column_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"b\.parquet: has no column of encoded images"):
        plan_source(str(tmp_path), 1)


@pytest.mark.parametrize("keep", [0, 3, 11, -1, -9])
def test_a_torn_parquet_file_is_named(tmp_path: Path, keep: int) -> None:
    write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:keep])
    with pytest.raises(SourceError, match=r"b\.parquet: not a whole Parquet file"):
        plan_source(str(tmp_path), 1)


def test_a_parquet_file_with_a_damaged_footer_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    length = int.from_bytes(data[-8:-4], "little")
    data[-8 - length : -8] = b"\xff" * length
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.parquet: not a whole Parquet file"):
        plan_source(str(tmp_path), 1)


def test_a_column_name_that_is_not_utf8_is_an_error_of_the_source(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", cafe=[1, 2])
    data = (tmp_path / "a.parquet").read_bytes().replace(b"cafe", b"caf\xe9")
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.parquet"):
        plan_source(str(tmp_path), 1)
