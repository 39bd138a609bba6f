"""Shards: what is encoded comes back, in row groups of the size asked for, the same bytes every time."""

import io
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.errors import SourceError
from stylejobs.records.schema import IMAGE_FIELDS, STYLIZED_FIELDS, WEBDATASET_FIELDS, carrying_schema
from stylejobs.storage.shards import encode_shard, read_shard

texts = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.integers(-(2**31), 2**31 - 1)
boxes = st.lists(st.lists(st.floats(allow_nan=False, width=32) | st.none(), max_size=3), max_size=3)
KINDS = {
    pa.int32(): numbers,
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): texts,
    pa.large_string(): texts,
    pa.binary(): st.binary(max_size=20),
    pa.null(): st.none(),
    pa.decimal128(9, 2): st.decimals(-1000, 1000, places=2).map(lambda number: Decimal(number)),
    pa.timestamp("us", "UTC"): st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(
        lambda when: when.replace(tzinfo=UTC)
    ),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["cat", "dog", ""]),
    pa.list_(pa.list_(pa.float32())): boxes,
    pa.large_list(pa.string()): st.lists(texts | st.none(), max_size=3),
    pa.list_(pa.int32(), 2): st.lists(numbers, min_size=2, max_size=2),
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]): st.fixed_dictionaries(
        {"bytes": st.binary(max_size=30) | st.none(), "path": texts | st.none()}
    ),
    pa.list_(pa.struct([("bytes", pa.binary()), ("n", pa.int32())])): st.lists(
        st.fixed_dictionaries({"bytes": st.binary(max_size=9), "n": numbers | st.none()}), max_size=2
    ),
    pa.map_(pa.string(), pa.binary()): st.dictionaries(texts, st.binary(max_size=5), max_size=2).map(
        lambda values: list(values.items())
    ),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Tables of up to four columns of any kinds, sliced, with nulls."""
    num_rows = draw(st.integers(0, 7))
    columns = {}
    for name in draw(st.lists(st.sampled_from(["image", "key", "a", "bytes", "a b", "ü"]), min_size=1, unique=True)):
        kind = draw(st.sampled_from(list(KINDS)))
        value = KINDS[kind] if pa.types.is_fixed_size_list(kind) else KINDS[kind] | st.none()
        values = st.lists(value, min_size=num_rows, max_size=num_rows)
        columns[name] = pa.array(draw(values), kind)
    table = pa.table(columns).replace_schema_metadata(draw(st.sampled_from([None, {"huggingface": "{}"}])))
    return table.slice(draw(st.integers(0, num_rows)))


def read(data: bytes) -> pa.Table:
    return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read()


@settings(max_examples=120, deadline=None)
@given(tables(), st.floats(1e-3, 1e4))
def test_what_is_encoded_comes_back_and_the_same_table_gives_the_same_bytes(
    table: pa.Table, row_group_bytes: float
) -> None:
    data = encode_shard(table, row_group_bytes)
    back = read(data)
    back.validate(full=True)
    assert (back.schema, back.schema.metadata) == (table.schema, table.schema.metadata)
    assert back.to_pylist() == table.to_pylist()
    assert encode_shard(table, row_group_bytes) == data
    copied = pa.Table.from_pylist(table.to_pylist(), schema=table.schema)
    if not any(pa.types.is_dictionary(kind) for kind in table.schema.types):  # a slice keeps the words it does not use
        assert encode_shard(copied, 10**9) == encode_shard(table, 10**9)


@pytest.mark.parametrize("nested", [False, True])
def test_null_lists_of_fixed_size_are_refused_because_arrow_cannot_read_what_it_writes(nested: bool) -> None:
    boxes = pa.nulls(2, pa.list_(pa.float32(), 4))
    table = pa.table({"box": pa.StructArray.from_arrays([boxes], names=["inner"]) if nested else boxes})
    with pytest.raises(SourceError, match="columns box: a list of fixed size that is null cannot be stored"):
        encode_shard(table, 1)


@pytest.mark.parametrize("fields", [IMAGE_FIELDS, STYLIZED_FIELDS])
def test_the_schemas_of_our_own_shards_come_back(fields: list[pa.Field]) -> None:
    schema = carrying_schema(fields, pa.schema(WEBDATASET_FIELDS))
    row = dict.fromkeys(schema.names) | {"image": {"bytes": b"x", "path": "a.jpg"}, "members": [("a", b"1")]}
    for rows in ([], [row], [row] * 3):
        table = pa.Table.from_pylist(rows, schema=schema)
        back = read(encode_shard(table, 1))
        assert (back.schema, back.schema.metadata) == (schema, schema.metadata)
        assert back == table


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 500), st.integers(1, 5000))
def test_row_groups_of_equal_rows_are_as_near_to_the_size_as_rows_allow(
    num_rows: int, row_bytes: int, row_group_bytes: int
) -> None:
    table = pa.table({"image": [b"x" * row_bytes] * num_rows})
    footer = pq.read_metadata(io.BytesIO(encode_shard(table, row_group_bytes)))
    sizes = [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]
    assert sum(sizes) == num_rows and min(sizes) >= 1
    a_row = table.nbytes / num_rows
    for size in sizes:
        assert size == 1 or size * a_row <= row_group_bytes + a_row / 2 + 1e-6
    for size in sizes[:-1]:
        assert size == num_rows or (size + 1) * a_row >= row_group_bytes - a_row / 2 - 1e-6


def test_row_groups_of_unequal_rows_keep_to_the_size(tmp_path: Path) -> None:
    table = pa.table({"image": [b"x" * 10] * 300 + [b"x" * 10_000] * 20})
    file = pq.ParquetFile(io.BytesIO(encode_shard(table, 20_000)))
    groups = [file.read_row_group(index) for index in range(file.num_row_groups)]
    assert max(group.nbytes for group in groups if len(group) > 1) <= 1.5 * 20_000


def test_images_are_stored_as_they_are_and_the_rest_is_compressed(tmp_path: Path) -> None:
    rows = 200
    images = pa.array([{"bytes": b"\xff" * 100, "path": "same.jpg"}] * rows, IMAGE_FIELDS[0].type)
    columns = {"key": [f"row {n}" for n in range(rows)], "style": ["monet"] * rows, "boxes": [[1.0, 2.0]] * rows}
    mask = pa.array([{"bytes": b"m"}] * rows, pa.struct([("bytes", pa.binary())]))
    data = encode_shard(pa.table({"image": images, "mask": mask, **columns}), 10**9)
    group = pq.read_metadata(io.BytesIO(data)).row_group(0)
    found = {chunk.path_in_schema: chunk for chunk in map(group.column, range(group.num_columns))}
    for leaf in ("image.bytes", "mask.bytes"):
        assert found[leaf].compression == "UNCOMPRESSED" and not found[leaf].has_dictionary_page
        assert not found[leaf].is_stats_set
    assert found["image.bytes"].total_compressed_size > 100 * rows
    for leaf in ("image.path", "key", "style", "boxes.list.element"):
        assert found[leaf].compression == "ZSTD" and found[leaf].is_stats_set and found[leaf].has_offset_index
    assert found["style"].has_dictionary_page and not found["key"].has_dictionary_page
    assert data.count(b"\xff" * 100) == rows


def test_a_shard_is_read_whole_or_in_part(tmp_path: Path) -> None:
    table = pa.table({"key": list("abcdef"), "n": np.arange(6)})
    (tmp_path / "x.parquet").write_bytes(encode_shard(table, table.nbytes / 3))
    place = str(tmp_path / "x.parquet")
    assert pq.read_metadata(place).num_row_groups == 3
    assert read_shard(place) == table
    assert read_shard(place, max_row_groups=1) == table.slice(0, 2)
    assert read_shard(place, max_row_groups=9, columns=["n"]) == table.select(["n"])
    with pytest.raises(FileNotFoundError):
        read_shard(str(tmp_path / "absent.parquet"))
