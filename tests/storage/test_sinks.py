"""Sinks: what is written is read back, names are safe and never meet, and whose a file is can be told."""

import hashlib
import io
import json
import math
import re
import tarfile
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylejobs.errors import SourceError
from stylejobs.records.schema import IMAGE_TYPE, with_image_feature
from stylejobs.storage import locations
from stylejobs.storage.picture_names import owner_of, picture_name
from stylejobs.storage.reading import read_unit
from stylejobs.storage.sinks import find_strays, read_part, write_part
from stylejobs.storage.sources import plan_source

HEAD = "0123456789ab"
PART = f"part-00007-{HEAD}"
KEPT = ("parquet", "webdataset", "files")
# What has been used against programs that write where data says, and what file systems confuse.
BAD_KEYS = [
    "/etc/passwd", "../../../up", "a/../../b", "..", ".", "", "/", "...", "a\0b", "line\nbreak", "C:\\x\\y.jpg", "CON",
    "aux.jpg", "x" * 500, "é" * 300, "\u202eevil", "a" * 90 + "/" + "b" * 90, "s3://b/x.jpg", "~/x", "-rf", ".hidden/x",
    "dir./x", "a b", "\ud800", "a.jpg/b.jpg", "|pipe", "$(x)",
]  # fmt: skip


def jpeg(colour: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (9, 7), (colour % 256, 10, 10)).save(sink, "JPEG")
    return sink.getvalue()


def table_of(keys: list[str], variants: int = 1, **columns: list) -> pa.Table:
    rows = [(key, variant) for key in keys for variant in range(variants)]
    images = [{"bytes": jpeg(row), "path": f"{key}.jpg"} for row, (key, _) in enumerate(rows)]
    table = {
        "image": pa.array([{**i, "path": i["path"].encode("utf-8", "replace").decode()} for i in images], IMAGE_TYPE),
        "key": pa.array([key.encode("utf-8", "replace").decode() for key, _ in rows], pa.string()),
        "variant": pa.array([variant for _, variant in rows], pa.int32()),
        "out_sha256": pa.array([hashlib.sha256(image["bytes"]).hexdigest() for image in images], pa.string()),
        **columns,
    }
    made = pa.table(table)
    return made.replace_schema_metadata(with_image_feature(made.schema).metadata)


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("sink", KEPT)
@pytest.mark.parametrize("keys", [["cat/01.jpg", "cat/02.png", "dog"], BAD_KEYS, ["same"] * 4, ["A", "a", "a.jpg"]])
def test_every_row_comes_back_from_its_sink(tmp_path: Path, sink: str, keys: list[str]) -> None:
    table = table_of(keys, variants=2, label=list(range(2 * len(keys))))
    written = write_part(sink, str(tmp_path), PART, table, 10**6)
    assert hashlib.sha256((tmp_path / written.file).read_bytes()).hexdigest() == written.file_sha256
    assert written.num_bytes == sum(map(len, files_under(tmp_path).values()))
    part = read_part(str(tmp_path), written.file)
    assert part.rows == table.drop_columns(["image"]).to_pylist()
    assert [part.picture(row) for row in range(len(part.rows))] == [row["bytes"] for row in table["image"].to_pylist()]


@pytest.mark.parametrize("sink", KEPT)
def test_the_same_rows_again_are_the_same_files(tmp_path: Path, sink: str) -> None:
    for folder in ("one", "two", "two"):
        write_part(sink, str(tmp_path / folder), PART, table_of(BAD_KEYS), 10**6)
    assert files_under(tmp_path / "one") == files_under(tmp_path / "two")


def test_null_keeps_nothing_and_no_rows_are_no_file(tmp_path: Path) -> None:
    written = [write_part("null", str(tmp_path), PART, table_of(["a"]), 10**6)]
    written += [write_part(sink, str(tmp_path), PART, table_of([]), 10**6) for sink in KEPT]
    assert all((one.file, one.file_sha256, one.num_bytes) == (None, None, 0) for one in written)
    assert not list(tmp_path.iterdir())


class TestWebdataset:
    def test_samples_are_those_of_the_convention_and_headers_tell_nothing(self, tmp_path: Path) -> None:
        table = table_of(["v1.2/cat.x/01.final.jpg", *BAD_KEYS], variants=2)
        written = write_part("webdataset", str(tmp_path), PART, table, 10**6)
        with tarfile.open(tmp_path / written.file) as tar:
            members = tar.getmembers()
        assert written.file == f"data/{PART}.tar"
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
        # As readers of the format split names: the sample ends at the first dot of the base name.
        found = [re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", member.name) for member in members]
        samples = [match[1] for match in found]
        assert [match[2] for match in found] == ["jpg", "json"] * len(table)
        assert samples[::2] == samples[1::2] and len(set(samples)) == len(table)
        assert samples[0] == f"v1_2/cat_x/01_final-v0-{HEAD}-0"
        assert not any("." in sample for sample in samples)

    def test_our_own_source_reads_it(self, tmp_path: Path) -> None:
        table = table_of(BAD_KEYS, label=[f"l{n}" for n in range(len(BAD_KEYS))])
        write_part("webdataset", str(tmp_path), PART, table, 10**6)
        source = plan_source(str(tmp_path / "data"), 10**6)
        rows = read_unit(source.units[0], source.carried_schema, 10**6)
        assert rows.images == [image["bytes"] for image in table["image"].to_pylist()]
        held = [json.loads(text) for text in rows.carried["json"].to_pylist()]
        assert [row["key"] for row in held] == table["key"].to_pylist()
        assert [row["label"] for row in held] == table["label"].to_pylist()

    def test_columns_of_every_kind_become_json(self, tmp_path: Path) -> None:
        table = table_of(
            ["a"], bytes=[b"\xff"], nan=[math.nan], when=[datetime(2026, 1, 2)], none=pa.nulls(1), boxes=[[[1, 2.5]]],
            pairs=pa.array([[("x", b"1")]], pa.map_(pa.string(), pa.binary())), deep=[{"a": {"b": [None]}}],
        )  # fmt: skip
        written = write_part("webdataset", str(tmp_path), PART, table, 10**6)
        (row,) = read_part(str(tmp_path), written.file).rows
        assert (row["bytes"], row["nan"], row["when"], row["none"]) == ("/w==", None, "2026-01-02 00:00:00", None)
        assert (row["boxes"], row["pairs"], row["deep"]) == ([[1, 2.5]], [["x", "MQ=="]], {"a": {"b": [None]}})

    def test_a_sample_that_has_lost_a_member_is_named(self, tmp_path: Path) -> None:
        for kept in ("jpg", "json"):
            with tarfile.open(tmp_path / "a.tar", "w") as tar:
                member = tarfile.TarInfo(f"x.{kept}")
                member.size = 2
                tar.addfile(member, io.BytesIO(b"{}"))
            with pytest.raises(SourceError, match=r"a\.tar: a sample without its"):
                read_part(str(tmp_path), "a.tar")


class TestFiles:
    def test_the_tree_is_kept_and_the_lineage_names_every_picture(self, tmp_path: Path) -> None:
        table = table_of(["cat/1.jpg", "cat/deep/2.JPEG", "dog/3"], variants=2, label=list("aabbcc"))
        written = write_part("files", str(tmp_path), PART, table, 10**6)
        assert written.file == f"lineage/{PART}.parquet"
        lineage = pq.read_table(tmp_path / written.file)
        assert lineage.column_names == ["file", "key", "variant", "out_sha256", "label"]
        names = lineage["file"].to_pylist()
        assert names[:3] == [
            f"data/cat/1-v0-{HEAD}-0.jpg",
            f"data/cat/1-v1-{HEAD}-1.jpg",
            f"data/cat/deep/2-v0-{HEAD}-2.jpg",
        ]
        assert sorted([written.file, *names]) == list(files_under(tmp_path))
        for row in lineage.to_pylist():
            assert hashlib.sha256((tmp_path / row["file"]).read_bytes()).hexdigest() == row["out_sha256"]

    def test_our_own_source_reads_the_pictures(self, tmp_path: Path) -> None:
        write_part("files", str(tmp_path), PART, table_of(["cat/1.jpg", "dog/2.jpg"]), 10**6)
        source = plan_source(str(tmp_path / "data"), 10**6, labels="folder")
        assert source.units[0].labels == {"label": ["cat", "dog"]}

    def test_nothing_is_written_outside_of_data(self, tmp_path: Path) -> None:
        write_part("files", str(tmp_path / "deep" / "dest"), PART, table_of(BAD_KEYS), 10**6)
        assert {name.split("/")[2] for name in files_under(tmp_path)} == {"data", "lineage"}
        assert len(files_under(tmp_path / "deep" / "dest" / "data")) == len(BAD_KEYS)

    @pytest.mark.parametrize("file", ["../secret", "data/../../secret", "/etc/hostname", "lineage/x"])
    def test_a_table_that_names_another_file_is_not_followed(self, tmp_path: Path, file: str) -> None:
        (tmp_path / "secret").write_text("x")
        (tmp_path / "dest" / "lineage").mkdir(parents=True)
        pq.write_table(pa.table({"file": [file], "key": ["a"]}), tmp_path / "dest" / "lineage" / "x.parquet")
        with pytest.raises(SourceError, match="names"):
            read_part(str(tmp_path / "dest"), "lineage/x.parquet").picture(0)


keys = st.text(st.characters(exclude_categories=()), max_size=200) | st.sampled_from(BAD_KEYS)


@settings(max_examples=300, deadline=None)
@given(keys, st.integers(0, 99), st.integers(0, 10**6))
def test_names_are_safe_whatever_the_key(key: str, variant: int, row: int) -> None:
    name = picture_name(key, variant, HEAD, row)
    parts = name.split("/")
    assert len(name.encode()) < 1000 and len(parts) <= 9
    for part in parts:
        assert 0 < len(part.encode()) < 140 and part.isprintable()
        assert not part.startswith(".") and not part.endswith(".") and not set(part) & set('\\:*?"<>| ')
        assert part.split(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    assert owner_of(f"data/{name}.jpg") == HEAD


@given(st.lists(st.sampled_from(["a", "A", "a.jpg", "a.png", "é", "e\u0301", "x/../a", "", "."]), max_size=12))
def test_names_of_a_unit_never_meet(keys: list[str]) -> None:
    names = [picture_name(key, 0, HEAD, row).casefold() for row, key in enumerate(keys)]
    assert len(set(names)) == len(names)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(["cat/1.jpg", "part-00001-x", "a", "A"]), min_size=1, max_size=3), st.sampled_from(KEPT)
)
def test_strays_are_what_no_unit_that_is_done_has_written(keys: list[str], sink: str) -> None:
    with TemporaryDirectory() as dest:
        fingerprints = [f"{number:x}" * 64 for number in range(3)]
        found = {}
        for number, fingerprint in enumerate(fingerprints):
            before = set(locations.list_files(dest))
            written = write_part(sink, dest, f"part-{number:05d}-{fingerprint[:12]}", table_of(keys), 10**6)
            found[fingerprint] = written.file, set(locations.list_files(dest)) - before
        (Path(dest) / "data").mkdir(exist_ok=True)
        (Path(dest) / "data" / "notes.txt").write_text("x")
        for kept in (fingerprints, fingerprints[1:], []):
            strays = set(find_strays(dest, [found[fingerprint][0] for fingerprint in kept], kept))
            gone = [places for fingerprint, (_, places) in found.items() if fingerprint not in kept]
            assert strays == {f"{dest}/data/notes.txt"}.union(*gone)
