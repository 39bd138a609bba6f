"""Plans: every row in exactly one unit; units are a function of the source and `unit_bytes` alone."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.errors import SourceError
from stylejobs.records.schema import WEBDATASET_FIELDS
from stylejobs.storage.reading import read_unit
from stylejobs.storage.sources import IMAGE_ENDINGS, PARQUET_ENDINGS, TAR_ENDINGS, Source, plan_source
from tests.storage.units_read import write_parquet

NAMES = [f"{folder}{name}.jpg" for folder in ("", "a/", "a/b/", "b/", "a b/") for name in "abc"]


stems = st.lists(st.sampled_from([name[:-4] for name in NAMES]), min_size=1, max_size=4, unique=True)


def write_groups(path: Path, groups: list[list[bytes]]) -> None:
    """A Parquet file with exactly these row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for group in groups:
            writer.write_table(pa.table({"image": pa.array(group, pa.binary())}))


def write_files(root: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)


def shape(source: Source) -> list[tuple]:
    """What the plan says, without where the source is and when it was written."""
    return [(u.kind, u.name, u.row_groups, u.first_row, u.num_rows, u.num_bytes, tuple(u.files)) for u in source.units]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_units_hold_every_row_of_parquet_once_in_order_and_never_mix_files(data: st.DataObject) -> None:
    group = st.lists(st.integers(0, 300), min_size=1, max_size=4)
    sizes = {name: data.draw(st.lists(group, min_size=1, max_size=5)) for name in data.draw(stems)}
    unit_bytes = data.draw(st.floats(1, 3000))
    with TemporaryDirectory() as folder:
        rows: dict[str, list[bytes]] = {}
        for name, groups in sizes.items():
            made = [
                [f"{name} {g} {r} ".encode() + b"." * size for r, size in enumerate(gs)] for g, gs in enumerate(groups)
            ]
            write_groups(Path(folder) / f"{name}.parquet", made)
            rows[f"{name}.parquet"] = [row for group in made for row in group]
        source = plan_source(folder, unit_bytes)
        read: dict[str, list] = {name: [] for name in rows}
        for unit in source.units:
            found = read_unit(unit, source.carried_schema, max_bytes=10**9)
            assert set(found.sources) == {f"{folder}/{unit.name}"} == {unit.source_uri}
            assert unit.first_row == len(read[unit.name]) == found.positions[0][1]
            assert unit.num_rows == len(found) > 0
            read[unit.name] += found.images
        assert read == rows
        assert source.num_rows == sum(map(len, rows.values()))
        assert [unit.name for unit in source.units] == sorted(unit.name for unit in source.units)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=12), st.integers(1, 1500))
def test_units_of_row_groups_are_as_large_as_allowed_and_no_larger(sizes: list[int], unit_bytes: int) -> None:
    with TemporaryDirectory() as folder:
        write_groups(Path(folder) / "a.parquet", [[b"x" * size] for size in sizes])
        footer = pq.read_metadata(f"{folder}/a.parquet")
        groups = [footer.row_group(index).column(0).total_compressed_size for index in range(footer.num_row_groups)]
        units = plan_source(folder, unit_bytes).units
    assert [unit.row_groups[0] for unit in units] == [0, *(unit.row_groups[1] for unit in units[:-1])]
    assert units[-1].row_groups[1] == len(sizes)
    for unit in units:
        first, last = unit.row_groups
        assert unit.num_bytes == sum(groups[first:last])
        assert unit.num_bytes <= unit_bytes or last - first == 1
        assert last == len(sizes) or unit.num_bytes + groups[last] > unit_bytes


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 99), min_size=1), st.integers(1, 300))
def test_units_hold_every_image_file_once_in_order(files: dict[str, int], unit_bytes: int) -> None:
    with TemporaryDirectory() as folder:
        write_files(Path(folder), files)
        units = plan_source(folder, unit_bytes).units
    planned = [name for unit in units for name in unit.files]
    assert planned == sorted(files)
    for unit, after in zip(units, [*units[1:], None], strict=True):
        assert unit.num_rows == len(unit.files) > 0
        assert unit.num_bytes == sum(files[name] for name in unit.files)
        assert unit.num_bytes <= unit_bytes or len(unit.files) == 1
        assert after is None or unit.num_bytes + files[after.files[0]] > unit_bytes


@settings(max_examples=20, deadline=None)
@given(stems.flatmap(st.permutations), st.sampled_from(["parquet", "jpg"]), st.integers(1, 400))
def test_the_plan_does_not_depend_on_where_or_in_which_order_files_were_written(
    order: list[str], ending: str, unit_bytes: int
) -> None:
    def write(root: str, written: list[str]) -> None:
        for name in written:
            if ending == "parquet":
                write_groups(Path(root) / f"{name}.parquet", [[name.encode()], [b"x" * 50, b"y"]])
            else:
                write_files(Path(root), {f"{name}.jpg": 30 * len(name)})

    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        write(one, order)
        write(other, sorted(order, reverse=True))
        assert plan_source(one, unit_bytes) == plan_source(one, unit_bytes)
        assert shape(plan_source(one, unit_bytes)) == shape(plan_source(other, unit_bytes))


def test_row_groups_without_rows_are_no_units(tmp_path: Path) -> None:
    write_groups(tmp_path / "a.parquet", [[], [b"1"], [], [b"2"], []])
    write_groups(tmp_path / "b.parquet", [])
    source = plan_source(str(tmp_path), 1)
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups > 2
    found = [read_unit(unit, source.carried_schema, 10**6).images for unit in source.units]
    assert found == [[b"1"], [b"2"]]


def test_hidden_names_are_not_read_and_others_are(tmp_path: Path) -> None:
    read = {"a.jpg": 1, "b/report/c.jpg": 1, "dead_letter/d.jpg": 1, "_x/e.jpg": 1, "x/_e.jpg": 1}
    passed_over = [".hidden.jpg", ".cache/x.jpg", "b/.x/x.jpg", "README.md"]
    write_files(tmp_path, {**read, **dict.fromkeys(passed_over, 1)})
    (unit,) = plan_source(str(tmp_path), 10**6).units
    assert sorted(unit.files) == sorted(read)


def test_notes_of_parquet_writers_are_not_read(tmp_path: Path) -> None:
    for name in ("a.parquet", "b_c/_x.parquet", "_metadata.parquet", "_delta_log/1.parquet", "b_c/d_.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_parquet(tmp_path / name)
    assert [unit.name for unit in plan_source(str(tmp_path), 1).units] == ["a.parquet", "b_c/d_.parquet"]


def test_of_a_dataset_of_ours_only_its_data_is_read(tmp_path: Path) -> None:
    names = ["data/part-0.parquet", "dead_letter/part-0.parquet", "report/x.parquet", "stray.parquet"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_parquet(tmp_path / name)
    assert [unit.name for unit in plan_source(str(tmp_path), 1).units] == sorted(names)
    write_files(
        tmp_path, {"_stylejobs/plan.json": 2, "_stylejobs/model/styles/a.jpg": 1, "README.md": 1, "_SUCCESS": 1}
    )
    assert [unit.name for unit in plan_source(str(tmp_path), 1).units] == ["data/part-0.parquet"]


def test_a_source_below_a_hidden_or_underscored_folder_is_read(tmp_path: Path) -> None:
    write_files(tmp_path, {"_old/.cache/report/a.jpg": 1})
    (unit,) = plan_source(str(tmp_path / "_old" / ".cache" / "report"), 1).units
    assert unit.files == ("a.jpg",)


@pytest.mark.parametrize("ending", IMAGE_ENDINGS + TAR_ENDINGS + PARQUET_ENDINGS)
@pytest.mark.parametrize("spelt", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("alone", [True, False])
def test_endings_in_any_case_alone_and_in_folders(
    tmp_path: Path, ending: str, spelt: Callable[[str], str], alone: bool
) -> None:
    path = tmp_path / f"photo{spelt(ending)}"
    if ending in PARQUET_ENDINGS:
        write_parquet(path)
    else:
        path.write_bytes(b"x")
    source = plan_source(str(path if alone else tmp_path), 10**6)
    kinds = {PARQUET_ENDINGS: "parquet", TAR_ENDINGS: "tar", IMAGE_ENDINGS: "files"}
    assert source.kind == next(kind for endings, kind in kinds.items() if ending in endings)
    (unit,) = source.units
    assert (unit.files or (unit.name,)) == (path.name,)
    assert unit.num_bytes > 0


def test_a_folder_of_tars(tmp_path: Path) -> None:
    write_files(tmp_path, {"b.tgz": 7, "a.tar": 1})
    source = plan_source(str(tmp_path), 1)
    assert (source.kind, [unit.name for unit in source.units]) == ("tar", ["a.tar", "b.tgz"])
    assert source.num_rows is None and source.summary()["bytes"] == 8
    assert source.carried_schema == pa.schema(WEBDATASET_FIELDS)


@pytest.mark.parametrize("names", [("a.tar", "b.jpg"), ("a.parquet", "deep/b.jpg"), ("a.parquet", "b.tgz")])
def test_a_folder_of_several_kinds_is_refused_and_examples_are_named(tmp_path: Path, names: tuple[str, str]) -> None:
    write_files(tmp_path, dict.fromkeys(names, 1))
    with pytest.raises(SourceError, match=f"holds .* sources, such as {names[0]} and {names[1]}"):
        plan_source(str(tmp_path), 1)


def test_nothing_there_and_nothing_usable_say_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing is there"):
        plan_source(str(tmp_path / "absent"), 1)
    write_files(tmp_path, {"notes.md": 1, ".hidden.jpg": 1})
    for place in (tmp_path, tmp_path / "notes.md"):
        with pytest.raises(SourceError, match=r"found 1 file\(s\) and none of these"):
            plan_source(str(place), 1)
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "empty.parquet")
    with pytest.raises(SourceError, match="hold no rows"):
        plan_source(str(tmp_path), 1)


@pytest.mark.parametrize("labels", ["folder", "csv"])
def test_labels_are_for_image_files_only(tmp_path: Path, labels: str) -> None:
    write_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=f"labels={labels} is for folders of image files; parquet sources"):
        plan_source(str(tmp_path), 1, labels=labels)
    (tmp_path / "a.parquet").unlink()
    tarfile.open(tmp_path / "a.tar", "w").close()
    with pytest.raises(SourceError, match="tar sources"):
        plan_source(str(tmp_path), 1, labels=labels)


def test_labels_travel_with_their_files(tmp_path: Path) -> None:
    write_files(tmp_path, {"cat/1.jpg": 5, "cat/2.jpg": 5, "dog/1.jpg": 5, "top.jpg": 5})
    source = plan_source(str(tmp_path), 10, labels="folder")
    assert source.carried_schema == pa.schema([("label", pa.string())])
    assert [(unit.files, unit.labels) for unit in source.units] == [
        (("cat/1.jpg", "cat/2.jpg"), {"label": ["cat", "cat"]}),
        (("dog/1.jpg", "top.jpg"), {"label": ["dog", None]}),
    ]


def test_a_file_name_that_is_not_utf8_is_an_error_of_the_source(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"x")
    with pytest.raises(SourceError, match="caf"):
        plan_source(str(tmp_path), 1)


def identities(place: Path, unit_bytes: float = 1) -> dict[str, dict]:
    return {unit.name or unit.files[0]: unit.identity() for unit in plan_source(str(place), unit_bytes).units}


def later(path: Path) -> None:
    """A second passes: file systems whose clock is coarse see it, too."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def test_identities_change_with_the_bytes_of_the_file_and_no_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_groups(tmp_path / f"{name}.parquet", [[b"1"], [b"2"]])
    before = identities(tmp_path)
    assert identities(tmp_path) == before
    write_groups(tmp_path / "b.parquet", [[b"1"], [b"3"]])
    later(tmp_path / "b.parquet")
    after = identities(tmp_path)
    assert after["a.parquet"] == before["a.parquet"] and after["b.parquet"] != before["b.parquet"]
    write_groups(tmp_path / "c.parquet", [[b"1"]])
    assert {name: now for name, now in identities(tmp_path).items() if name != "c.parquet"} == after


def test_identities_of_units_of_one_file_differ(tmp_path: Path) -> None:
    write_groups(tmp_path / "a.parquet", [[b"1"], [b"1"], [b"1"]])
    units = plan_source(str(tmp_path), 1).units
    assert len({str(unit.identity()) for unit in units}) == 3
    (whole,) = plan_source(str(tmp_path), 10**6).units
    assert whole.identity() not in [unit.identity() for unit in units]


def test_identities_of_image_files_change_with_bytes_listing_and_labels(tmp_path: Path) -> None:
    write_files(tmp_path, {"cat/1.jpg": 5, "cat/2.jpg": 5, "dog/1.jpg": 5, "dog/2.jpg": 5})

    def units(**options: str) -> list[dict]:
        return [unit.identity() for unit in plan_source(str(tmp_path), 10, **options).units]

    first, second = units()
    assert units() == [first, second]
    assert all(labelled not in (first, second) for labelled in units(labels="folder"))
    (tmp_path / "dog" / "2.jpg").write_bytes(b"y" * 5)
    later(tmp_path / "dog" / "2.jpg")
    assert units()[0] == first and units()[1] != second
    changed = units()
    shutil.copy(tmp_path / "dog" / "2.jpg", tmp_path / "dog" / "3.jpg")
    assert units()[:2] == changed and len(units()) == 3
    (tmp_path / "cat" / "1.jpg").rename(tmp_path / "cat" / "0.jpg")
    assert units()[0] != first and units()[1:2] == changed[1:]
