"""Filters on rows: the same rows as a filter of the whole table, and no bytes of row groups without a match."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.errors import SourceError
from stylejobs.storage import locations
from stylejobs.storage.descriptors import Source
from stylejobs.storage.reading import UnitRows, read_unit
from stylejobs.storage.sources import plan_source
from stylejobs.storage.units import digest

COLUMNS = {
    "label": st.sampled_from(["cat", "dog", "", "ü", "cat ", None]),
    "n": st.sampled_from([0, 7, -1, 2**40, None]),
    "ok": st.sampled_from([True, False, None]),
    "key": st.sampled_from(["a", "b", None]),
}


def write(path: Path, groups: list[list[dict]], **options: object) -> None:
    schema = pa.schema(
        [("image", pa.binary()), ("label", pa.string()), ("n", pa.int64()), ("ok", pa.bool_()), ("key", pa.string())]
    )
    with pq.ParquetWriter(path, schema, **options) as writer:
        for group in groups:
            writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=len(group))


def read(source: Source) -> list[UnitRows]:
    return [read_unit(unit, source.carried_schema, 10**9) for unit in source.units]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_are_those_that_match_with_the_keys_and_places_that_they_have_unfiltered(data: st.DataObject) -> None:
    row = st.fixed_dictionaries(COLUMNS)
    groups = data.draw(st.lists(st.lists(row, min_size=1, max_size=4), min_size=1, max_size=6))
    for number, found in enumerate(row for group in groups for row in group):
        found["image"] = b"picture %d" % number
    column = data.draw(st.sampled_from(sorted(COLUMNS)))
    values = {"label": ["cat", "ü", ""], "n": ["7", "-1"], "ok": ["false"], "key": ["a"]}[column]
    wanted = [f"{column}={value}" for value in values[: data.draw(st.integers(1, 3))]]
    if data.draw(st.booleans()):
        wanted.append("label=cat")
    with TemporaryDirectory() as folder:
        write(Path(folder, "a.parquet"), groups, write_statistics=data.draw(st.booleans()))
        unit_bytes = data.draw(st.sampled_from([1, 500, 10**9]))
        whole = [row for rows in read(plan_source(folder, unit_bytes)) for row in flat(rows)]
        matching = [row for row in whole if matches(row[-1], wanted)]
        try:
            source = plan_source(folder, unit_bytes, where=wanted)
        except SourceError as error:
            assert "hold no rows" in str(error) and not matching
            return
        assert [row for rows in read(source) for row in flat(rows)] == matching
        assert source.num_rows is None


def flat(rows: UnitRows) -> list[tuple]:
    """Rows as tuples; the last is of the columns that filters see."""
    numbers = [row for _, row in rows.positions]
    given = [key if not key.startswith("a.parquet/") else None for key in rows.keys]
    seen = [{**row, "key": key} for row, key in zip(rows.carried.to_pylist(), given, strict=True)]
    return list(zip(rows.keys, rows.images, rows.positions, numbers, seen, strict=True))


def matches(row: dict, wanted: list[str]) -> bool:
    by_column: dict[str, set[str]] = {}
    for text in wanted:
        by_column.setdefault(text.partition("=")[0], set()).add(text.partition("=")[2])
    texts = {name: str(row[name]).lower() if isinstance(row[name], bool) else str(row[name]) for name in by_column}
    return all(texts[name] in values for name, values in by_column.items())


@pytest.fixture
def sorted_set(tmp_path: Path) -> Path:
    """Two files of six row groups with a picture of 50 kB in each row: label a a b b c c; n is the row's number."""
    rng = np.random.default_rng(0)
    for name in ("1.parquet", "2.parquet"):
        groups = [
            [{"image": rng.bytes(50_000), "label": "aabbcc"[g], "n": 2 * g + r} for r in (0, 1)] for g in range(6)
        ]
        write(tmp_path / name, groups)
    return tmp_path


def test_row_groups_that_statistics_exclude_are_in_no_unit(sorted_set: Path) -> None:
    whole = plan_source(str(sorted_set), 10**9)
    source = plan_source(str(sorted_set), 10**9, where=["label=b"])
    assert [(u.name, u.row_groups, u.first_row) for u in source.units] == [
        ("1.parquet", (2, 4), 4),
        ("2.parquet", (2, 4), 4),
    ]
    assert sum(u.num_bytes for u in source.units) == pytest.approx(sum(u.num_bytes for u in whole.units) / 3, rel=0.01)
    apart = plan_source(str(sorted_set), 10**9, where=["label=a", "label=c"])
    assert [u.row_groups for u in apart.units] == [(0, 2), (4, 6)] * 2
    assert [u.row_groups for u in plan_source(str(sorted_set), 1, where=["n=5"]).units] == [(2, 3)] * 2


def test_pictures_of_row_groups_without_a_match_are_not_read(sorted_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without statistics nothing is known before the column is read.
    table = pq.read_table(sorted_set / "1.parquet")
    pq.write_table(table, sorted_set / "1.parquet", row_group_size=2, write_statistics=False)
    source = plan_source(str(sorted_set / "1.parquet"), 10**9, where=["n=5"])
    assert source.units[0].row_groups == (0, 6)
    num_read = [0]
    before = locations._StorageFile.read

    def spy(self: object, size: int = -1) -> bytes:
        data = before(self, size)
        num_read[0] += len(data)
        return data

    monkeypatch.setattr(locations._StorageFile, "read", spy)
    (rows,) = read(source)
    assert rows.keys == ["1.parquet/5"] and rows.positions == [(2, 5)]
    assert rows.images == [table["image"][5].as_py()]
    # Of 600 kB: one row group of 100 kB, the end of the file with its footer (64 kB at a time), and the column `n`.
    assert 100_000 < num_read[0] < 200_000 < 600_000 < (sorted_set / "1.parquet").stat().st_size


def test_a_unit_in_which_nothing_matches_has_no_rows(sorted_set: Path) -> None:
    pq.write_table(pq.read_table(sorted_set / "1.parquet"), sorted_set / "1.parquet", write_statistics=False)
    source = plan_source(str(sorted_set / "1.parquet"), 10**9, where=["label=z"])
    (rows,) = read(source)
    assert len(rows) == 0 and rows.carried.schema == source.carried_schema


def test_the_filter_is_part_of_what_a_unit_is(sorted_set: Path) -> None:
    def identities(*where: str) -> list[str]:
        return [digest(unit.identity()) for unit in plan_source(str(sorted_set), 10**9, where=where).units]

    assert identities("label=a", "n=1") == identities("n=1", "label=a")
    assert not set(identities("label=a")) & set(identities("label=a", "n=1"))
    assert not set(identities("label=a", "label=b", "label=c")) & set(identities())


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("lable=a", r"no such column; did you mean 'label'\? Columns: image, key, label, n, ok"),
        ("n=seven", "where=n=seven: the column is of type int64"),
        ("n=07", "where=n=07: the column is of type int64"),
        ("ok=yes", "where=ok=yes: the column is of type bool"),
        ("image=x", "the column is of type binary; filters take text, integers and booleans"),
        ("label=zebra", "hold no rows that where= can match"),
        ("=a", "wanted COLUMN=VALUE"),
    ],
)
def test_filters_that_mean_nothing_are_refused(sorted_set: Path, where: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        plan_source(str(sorted_set), 1, where=[where])


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.uint8(), pa.uint64(), pa.int16()],
    ids=str,
)
def test_every_kind_of_column(tmp_path: Path, kind: pa.DataType) -> None:
    is_text = not pa.types.is_integer(kind)
    top = 2**64 - 1 if kind == pa.uint64() else 200
    values = pa.array(["a", "b", "c"]).cast(kind) if is_text else pa.array([0, 5, top], kind)
    pq.write_table(pa.table({"image": [b"0", b"1", b"2"], "x": values}), tmp_path / "a.parquet", row_group_size=1)
    for row, value in enumerate(["a", "b", "c"] if is_text else ["0", "5", str(top)]):
        assert [r.keys for r in read(plan_source(str(tmp_path), 1, where=[f"x={value}"])) if len(r)] == [
            [f"a.parquet/{row}"]
        ]


def test_a_column_that_one_file_lacks_matches_nothing_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"1"], "x": ["a"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"image": [b"2"]}), tmp_path / "2.parquet")
    assert [unit.name for unit in plan_source(str(tmp_path), 1, where=["x=a"]).units] == ["1.parquet"]
