"""Little bytes that would become many: each is refused by name, before the memory is taken."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylejobs.errors import DecodeError, ModelError, SourceError
from stylejobs.records.codec import Limits, decode_image, read_header
from stylejobs.records.schema import declared_features, find_image_column
from stylejobs.storage import parquet_trust, tars
from stylejobs.storage.packages import read_package
from stylejobs.storage.reading import read_unit
from stylejobs.storage.sinks import write_part
from stylejobs.storage.sources import plan_source
from tests.engine.small_dataset import make, picture
from tests.storage.test_reading_tars import pack
from tests.storage.units_read import read_one

MB = 2**20


@contextmanager
def at_most(num_bytes: int) -> Iterator[None]:
    """Python may take so many bytes here, and no more."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < num_bytes
    finally:
        tracemalloc.stop()


class TestPictures:
    @pytest.mark.parametrize("format", ["JPEG", "GIF", "BMP"])
    def test_a_header_that_promises_a_huge_picture(self, format: str) -> None:
        """PNG and WebP are in tests/records/test_codec.py."""
        sink = io.BytesIO()
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(sink, format)
        data = bytearray(sink.getvalue())
        at, side = {"JPEG": (data.find(b"\xff\xc0") + 5, ">H"), "GIF": (6, "<H"), "BMP": (18, "<i")}[format]
        size = struct.pack(side, 60_000)
        data[at : at + 2 * len(size)] = size * 2
        with at_most(64 * MB), pytest.raises(DecodeError, match="bomb: 60000x60000 pixels"):
            read_header(bytes(data), Limits())
        with at_most(64 * MB), pytest.raises(DecodeError, match="bomb"):
            decode_image(bytes(data), Limits())


class TestTars:
    @pytest.mark.parametrize(
        "kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE]
    )
    def test_a_name_of_gigabytes_is_not_read(self, tmp_path: Path, kind: bytes) -> None:
        header = tarfile.TarInfo("a")
        header.type, header.size = kind, 4096 * MB
        with gzip.open(tmp_path / "t.tar.gz", "wb") as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            file.write(bytes(MB))
        with (
            at_most(64 * MB),
            pytest.raises(SourceError, match=r"t\.tar\.gz: not a whole tar.*a header of 4,294,967,296"),
        ):
            read_one(tmp_path)

    @pytest.fixture
    def low(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Less may be inflated than usually, so that the tests are fast."""
        monkeypatch.setattr(tars, "_ALWAYS_BYTES", 4 * MB)

    @pytest.mark.parametrize(
        ("compress", "name"), [(gzip.open, "{}.jpg"), (bz2.open, "{}.txt"), (gzip.open, ".{}"), (lzma.open, "{}.jpg")]
    )
    def test_members_that_inflate_without_bound(self, tmp_path: Path, low: None, compress: Callable, name: str) -> None:
        """Each is below the limit of a picture; hidden ones are only skipped."""
        with compress(tmp_path / "t.tar", "wb") as file:
            for number in range(8):
                member = tarfile.TarInfo(name.format(number))
                member.size = MB
                file.write(member.tobuf())
                file.write(bytes(MB))
        assert (tmp_path / "t.tar").stat().st_size < MB / 16
        with pytest.raises(SourceError, match=r"t\.tar: .*it inflates to more than 64 times its size"):
            read_one(tmp_path, max_bytes=64 * MB)

    def test_what_follows_the_last_member_is_bounded_too(self, tmp_path: Path, low: None) -> None:
        plain = pack(tmp_path / "x.tar", [("1.jpg", b"photo")])
        (tmp_path / "x.tar").unlink()
        with gzip.open(tmp_path / "t.tgz", "wb") as file:
            file.write(plain + bytes(8 * MB))
        with pytest.raises(SourceError, match="inflates to more than 64 times"):
            read_one(tmp_path)

    def test_a_sparse_member_has_the_size_that_it_would_have(self, tmp_path: Path) -> None:
        member = tarfile.TarInfo("1.jpg")
        member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
        block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        block[386:410] = b"00000000000\0" + b"00000001000\0"
        block[483:495] = b"77777777777\0"
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        (tmp_path / "t.tar").write_bytes(bytes(block) + bytes(512 + 1024))
        with at_most(64 * MB):
            rows = read_one(tmp_path, max_bytes=10 * MB)
        assert rows.images[0].reason == "bomb" and f"{8**11 - 1} bytes" in rows.images[0].message

    def test_an_honest_archive_of_texts_is_read(self, tmp_path: Path) -> None:
        pack(tmp_path / "t.tar.gz", [("1.jpg", picture(0)), ("1.txt", b"word " * 40_000)], "w:gz")
        assert len(read_one(tmp_path).carried["txt"][0].as_py()) == 200_000


class TestParquet:
    def test_row_groups_that_inflate_without_bound(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet_trust, "_ALWAYS_BYTES", 4 * MB)
        zeros = pa.array([bytes(MB)] * 8)
        pq.write_table(pa.table({"image": zeros}), tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
        source = plan_source(str(tmp_path), 1e9)
        before = pa.total_allocated_bytes()
        with pytest.raises(SourceError, match=r"a\.parquet: row groups 0 to 1 inflate from [\d,]+ to 8,38\d,"):
            read_unit(source.units[0], source.carried_schema, 10**9)
        assert pa.total_allocated_bytes() - before < MB

    @pytest.mark.parametrize(
        "declared", ["[" * 100_000, '{"info": {"features": {"image": "no object"}}}', '{"info": []}', "\ud800"]
    )
    def test_metadata_of_any_depth_and_kind(self, declared: str) -> None:
        metadata = {"huggingface": declared.encode("utf-8", "surrogatepass")}
        schema = pa.schema([("image", pa.binary())], metadata=metadata)
        assert declared_features(schema) == {} and find_image_column(schema, None, "x") == "image"


def test_a_description_of_a_model_of_any_depth(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"options": ' + "[" * 100_000)
    with pytest.raises(ModelError, match="not the description of a model package"):
        read_package(str(tmp_path))


@pytest.mark.parametrize("sink", ["parquet", "webdataset", "files"])
def test_huge_keys_and_texts_are_carried_and_are_no_path(tmp_path: Path, sink: str) -> None:
    (tmp_path / "in").mkdir()
    table = {"image": [picture(0)], "key": ["k/" * 50_000 + "x" * MB], "note": ["[" * MB]}
    pq.write_table(pa.table(table), tmp_path / "in" / "a.parquet")
    dest = make(tmp_path / "in", tmp_path / "out", sink=sink)
    for path in dest.rglob("*"):
        assert len(str(path.relative_to(dest)).encode()) < 1000
    (marker,) = (dest / "_stylejobs" / "units").glob("*.json")
    assert json.loads(marker.read_text())["rows_ok"] == 1


def test_a_picture_name_that_is_too_long_for_any_file_system(tmp_path: Path) -> None:
    table = pa.table(
        {"image": [{"bytes": b"x", "path": "/" * 70_000 + ".jpg"}], "key": ["é" * 70_000], "variant": pa.array([0])}
    )
    written = write_part("files", str(tmp_path), "part-00000-" + "ab" * 6, table, 1e6)
    assert written.num_bytes and len(list((tmp_path / "data").rglob("*.jpg"))) == 1
