"""Lists of URIs: every line once, what is wrong is named by its line, and what is missing is a bad row and no more."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.errors import DecodeError, ReadError, SourceError
from stylejobs.storage import locations
from stylejobs.storage.descriptors import Source
from stylejobs.storage.reading import UnitRows, read_unit
from stylejobs.storage.sources import plan_source

List = Callable[..., Path]


@pytest.fixture
def listed(tmp_path: Path) -> List:
    """listed("a.txt", "line", ...): a list in a folder of its own, beside pictures one.jpg and sub/two.jpg."""
    folder = tmp_path / "lists"
    (folder / "sub").mkdir(parents=True)
    (folder / "one.jpg").write_bytes(b"first")
    (folder / "sub" / "two.jpg").write_bytes(b"second")

    def write(name: str, *lines: str) -> Path:
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
        return folder / name

    return write


def read(source: Source, max_bytes: int = 10**6) -> list[UnitRows]:
    return [read_unit(unit, source.carried_schema, max_bytes) for unit in source.units]


def test_a_text_list_has_comments_blank_lines_and_paths_relative_to_itself(
    listed: List, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lists"
    path = listed(
        "a.txt", "\ufeff# pictures", "", "  one.jpg ", "\t", f"{folder}/sub/two.jpg", f"file://{folder}/one.jpg\r"
    )
    monkeypatch.chdir("/")
    source = plan_source(str(path), 64 * 2**20)
    (rows,) = read(source)
    assert (source.kind, source.num_rows, source.carried_schema) == ("list", 3, pa.schema([]))
    assert rows.keys == rows.paths == ["one.jpg", f"{folder}/sub/two.jpg", f"file://{folder}/one.jpg"]
    assert rows.images == [b"first", b"second", b"first"]
    assert rows.sources == [f"{folder}/one.jpg", f"{folder}/sub/two.jpg", f"{folder}/one.jpg"]
    assert rows.positions == [(None, None)] * 3 and len(rows.carried) == 3


def test_columns_of_csv_and_jsonl_are_carried_as_text(listed: List) -> None:
    (rows,) = read(plan_source(str(listed("a.csv", "label,uri,n", '"cat, big",one.jpg,007', "NA,sub/two.jpg,")), 10**9))
    assert rows.carried.to_pylist() == [{"label": "cat, big", "n": "007"}, {"label": "NA", "n": ""}]
    lines = [{"uri": "one.jpg", "n": 7, "box": [1, 2.5]}, {"label": "é", "uri": "sub/two.jpg", "n": None}]
    (rows,) = read(plan_source(str(listed("a.jsonl", *map(json.dumps, lines))), 10**9))
    first, second = rows.carried.to_pylist()
    assert first == {"n": "7", "box": "[1, 2.5]", "label": None} and second == {"n": None, "box": None, "label": "é"}
    assert rows.images == [b"first", b"second"]


@pytest.mark.parametrize(
    "where", [["label=cat", "label=dog", "split=train"], ["split=train", "label=dog", "label=cat"]]
)
def test_a_filter_leaves_lines_out(listed: List, where: list[str]) -> None:
    path = listed("a.csv", "uri,label,split", "1,cat,train", "2,cat,test", "3,dog,train", "4,cow,train", "5,,train")
    source = plan_source(str(path), 10**9, where=where)
    assert [unit.files for unit in source.units] == [("1", "3")] and source.num_rows == 2
    with pytest.raises(SourceError, match=r"no such column; did you mean 'label'\? Columns: label, split"):
        plan_source(str(path), 1, where=["lable=cat"])
    with pytest.raises(SourceError, match="where= matches none of its lines"):
        plan_source(str(path), 1, where=["label=Cat"])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5 * 2**17))
def test_units_hold_every_line_once_in_order(num_lines: int, unit_bytes: int) -> None:
    with TemporaryDirectory() as folder:
        uris = [f"s3://bucket/{number}.jpg" for number in range(num_lines)]
        Path(folder, "a.txt").write_text("\n".join(uris))
        source = plan_source(f"{folder}/a.txt", unit_bytes)
        assert [uri for unit in source.units for uri in unit.files] == uris
        assert {len(unit.files) for unit in source.units[:-1]} <= {max(1, unit_bytes // 2**17)}
        assert source.num_rows == num_lines and source.summary()["bytes"] == 0


def test_no_request_is_made_for_objects_when_the_list_is_planned(listed: List, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    monkeypatch.setattr(locations, "stat", lambda uri: looked_at.append(uri) or {"size": 1, "tag": "t"})
    plan_source(str(listed("a.txt", "s3://bucket/a.jpg", "one.jpg")), 10**9)
    assert [place for place in looked_at if place.endswith("jpg")] == [str(listed("a.txt").parent / "one.jpg")]


def test_identities_change_with_lines_and_files_and_no_others(listed: List, tmp_path: Path) -> None:
    def identities(*lines: str) -> list[dict]:
        return [unit.identity() for unit in plan_source(str(listed("a.txt", *lines)), 2 * 2**17).units]

    before = identities("one.jpg", "sub/two.jpg", "s3://b/x", "absent.jpg")
    assert identities("# again", "one.jpg", "sub/two.jpg", "s3://b/x", "absent.jpg") == before
    os.utime(tmp_path / "lists" / "one.jpg", (1, 1))
    touched = identities("one.jpg", "sub/two.jpg", "s3://b/x", "absent.jpg")
    assert touched[0] != before[0] and touched[1] == before[1]
    assert identities("one.jpg", "sub/two.jpg", "s3://b/y", "absent.jpg")[0] == touched[0]
    (tmp_path / "lists" / "absent.jpg").write_bytes(b"now")
    assert identities("one.jpg", "sub/two.jpg", "s3://b/x", "absent.jpg")[1] != before[1]


def test_what_cannot_be_had_is_a_bad_row_and_no_other(listed: List, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 100)
    names = ["one.jpg", "absent.jpg", "sub", "/dev/zero", "../pipe", "/proc/self/environ", "../large", "x" * 300]
    (rows,) = read(plan_source(str(listed("a.txt", *names)), 10**9), max_bytes=50)
    assert rows.images[0] == b"first" and rows.images[5] == b""
    for number, said in {
        1: "nothing is there",
        2: "not a plain",
        3: "not a plain",
        4: "not a plain",
        7: "nothing",
    }.items():
        error = rows.images[number]
        assert isinstance(error, ReadError) and (error.stage, error.reason) == ("read", "not_an_image")
        assert said in error.message
    assert isinstance(rows.images[6], DecodeError) and rows.images[6].reason == "bomb"


def test_an_object_that_is_not_there_is_a_bad_row(listed: List, monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(uri: str) -> dict:
        if uri.startswith("s3://"):
            raise FileNotFoundError(uri)
        return {"size": 5, "tag": "t"}

    monkeypatch.setattr(locations, "stat", stat)
    (rows,) = read(plan_source(str(listed("a.txt", "s3://bucket/a.jpg", "one.jpg")), 10**9))
    assert isinstance(rows.images[0], ReadError) and rows.images[1] == b"first"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("http://example.org/a.jpg", "line 2: .*wanted a local path, file:// or s3://, got http://"),
        ("simplecache::s3://bucket/a.jpg", "got simplecache::s3://"),
        ("s3://id:secret@bucket/a.jpg", "line 2: the URI holds credentials"),
        ("s3://bucket", "names a bucket"),
        ("s3://bucket/", "names a bucket"),
        ("a\0b", "line 2: wanted a URI of 1 to"),
        ("x" * 3000, "line 2: wanted a URI of 1 to"),
    ],
)
def test_lines_that_name_no_place_of_ours_are_refused(listed: List, line: str, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        plan_source(str(listed("a.txt", "one.jpg", line)), 1)
    assert "secret" not in str(caught.value)


def test_a_uri_that_is_named_twice_is_an_error_that_names_the_lines(listed: List) -> None:
    with pytest.raises(SourceError, match=r"(?s)2 line\(s\) .*lines 1 and 3: a.jpg.*lines 1 and 4: a.jpg"):
        plan_source(str(listed("a.txt", "a.jpg", "b.jpg", "a.jpg", " a.jpg ")), 1)


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("a.txt", ["# nothing"], "empty list"),
        ("a.csv", ["uri"], "empty list"),
        ("a.csv", ["url,label", "a,b"], "wanted a column 'uri'.* Columns: label, url"),
        ("a.csv", ["uri,x,x", "a,b,c"], "several columns have the same name"),
        ("a.csv", ["uri,x", "a"], "line 2: 1 values for 2 columns"),
        ("a.csv", ["uri,x", '"a'], "not a CSV with a header line"),
        ("a.csv", ["uri,x", ",b"], "line 2: wanted a URI"),
        ("a.jsonl", ['{"uri": "a"}', "{"], "line 2: not JSON"),
        ("a.jsonl", ["[" * 100_000], "line 1: not JSON"),
        ("a.jsonl", ['{"uri": 7}'], 'line 1: wanted an object with the text field "uri"'),
        ("a.jsonl", ["[1]"], "line 1: wanted an object"),
        ("a.jsonl", ['{"uri": "\\ud800"}'], "line 1: not text"),
        ("a.jsonl", ['{"uri": "a", "label": "\\ud800"}'], "line 1: not text"),
    ],
)
def test_lists_that_are_none_are_refused(listed: List, name: str, lines: list[str], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        plan_source(str(listed(name, *lines)), 1)


def test_other_refusals(listed: List, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9.jpg")
    with pytest.raises(SourceError, match="not UTF-8"):
        plan_source(str(tmp_path / "latin.txt"), 1)
    with pytest.raises(SourceError, match="labels=folder is for folders of image files; list sources"):
        plan_source(str(listed("a.txt", "one.jpg")), 1, labels="folder")
    with pytest.raises(SourceError, match="where= needs columns"):
        plan_source(str(tmp_path / "lists" / "sub"), 1, where=["label=cat"])
    assert plan_source(str(tmp_path / "lists"), 1).kind == "files", "a list in a folder is no source"
