"""The ingesting worker, without Ray: which bytes are kept, what the others become, and who is refused."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylejobs.engine.ingest import Ingester, IngestSettings
from stylejobs.engine.writer import Stopwatch, WriteSettings, schema_to_text
from stylejobs.errors import DecodeError, RowError
from stylejobs.records.codec import Limits, decode_image, is_plain_rgb8, read_header
from stylejobs.records.schema import IMAGE_FIELDS
from stylejobs.storage.reading import UnitRows
from stylejobs.storage.sources import plan_source
from stylejobs.storage.units import digest

LIMITS = Limits()


def picture(height: int = 20, width: int = 30, mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)], 2).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(ramp[..., 0].astype(np.uint16) * 257)
    made = Image.fromarray(ramp).convert(mode)
    if mode == "RGBA":
        made.putalpha(Image.fromarray(ramp[..., 1]))
    return made


def encode(format: str, mode: str = "RGB", size: tuple[int, int] = (20, 30), **options: object) -> bytes:
    sink = io.BytesIO()
    picture(*size, mode).save(sink, format, **options)
    return sink.getvalue()


def turned(format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(format, exif=exif)


def several(format: str, **options: object) -> bytes:
    other = picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return encode(format, save_all=True, append_images=[other], **options)


def ingester(
    max_side_px: int | None = None, carried: pa.Schema | None = None, dest: str = "/unused", limits: Limits = LIMITS
) -> Ingester:
    write = WriteSettings(dest, schema_to_text(carried or pa.schema([])), limits.max_bytes, 10**6)
    return Ingester(IngestSettings(write, limits, max_side_px))


def rows_of(images: list[bytes | RowError], carried: pa.Table | None = None) -> UnitRows:
    keys = [f"k{n}" for n in range(len(images))]
    if carried is None:
        carried = pa.table({"row": list(range(len(images)))}).select([])
    paths = [f"{key}.file" for key in keys]
    return UnitRows(keys, images, paths, [(None, None)] * len(images), keys, carried)


def ingest_one(image: bytes, max_side_px: int | None = None) -> dict:
    converted = ingester(max_side_px).convert(rows_of([image]), Stopwatch())
    assert not converted.errors, converted.errors
    (row,) = converted.table.to_pylist()
    assert row["sha256"] == hashlib.sha256(row["image"]["bytes"]).hexdigest()
    return row


KEPT = {
    "jpeg": encode("JPEG"),
    "jpeg, progressive": encode("JPEG", progressive=True, quality=60),
    "jpeg, upright by its tag": turned("JPEG", 1),
    "png": encode("PNG"),
    "webp": encode("WEBP"),
    "webp, lossless": encode("WEBP", lossless=True),
}
MADE_JPEG = {
    "jpeg, grey": encode("JPEG", "L"),
    "jpeg, cmyk": encode("JPEG", "CMYK"),
    "jpeg, on its side": turned("JPEG", 6),
    "jpeg, mirrored": turned("JPEG", 2),
    "jpeg, several": several("MPO"),
}
MADE_PNG = {
    "png, alpha": encode("PNG", "RGBA"),
    "png, grey": encode("PNG", "L"),
    "png, palette": encode("PNG", "P"),
    "png, bilevel": encode("PNG", "1"),
    "png, 16 bit": encode("PNG", "I;16"),
    "png, on its side": turned("PNG", 8),
    "png, animated": several("PNG"),
    "webp, alpha": encode("WEBP", "RGBA"),
    "webp, animated": several("WEBP"),
    "bmp": encode("BMP"),
    "gif": encode("GIF"),
    "gif, animated": several("GIF"),
    "tiff": encode("TIFF"),
    "tiff, cmyk": encode("TIFF", "CMYK"),
}


class TestDecisions:
    @pytest.mark.parametrize("image", KEPT.values(), ids=KEPT.keys())
    @pytest.mark.parametrize("max_side_px", [None, 30, 31])
    def test_plain_bytes_are_kept(self, image: bytes, max_side_px: int | None) -> None:
        row = ingest_one(image, max_side_px)
        assert row["image"] == {"bytes": image, "path": "k0.file"}
        assert (row["height"], row["width"]) == (20, 30)

    @pytest.mark.parametrize("image", MADE_JPEG.values(), ids=MADE_JPEG.keys())
    def test_jpegs_that_are_not_plain_stay_jpegs(self, image: bytes) -> None:
        row = ingest_one(image)
        header = read_header(row["image"]["bytes"], LIMITS)
        assert header.format == "jpeg" and is_plain_rgb8(header)
        source, made = (decode_image(data, LIMITS).astype(int) for data in (image, row["image"]["bytes"]))
        assert source.shape == made.shape == (row["height"], row["width"], 3)
        assert np.abs(source - made).mean() < 3

    @pytest.mark.parametrize("image", MADE_PNG.values(), ids=MADE_PNG.keys())
    def test_all_else_becomes_png_without_loss(self, image: bytes) -> None:
        row = ingest_one(image)
        header = read_header(row["image"]["bytes"], LIMITS)
        assert header.format == "png" and is_plain_rgb8(header)
        assert np.array_equal(decode_image(row["image"]["bytes"], LIMITS), decode_image(image, LIMITS))
        assert (row["height"], row["width"]) == (header.height, header.width)

    @pytest.mark.parametrize(
        ("image", "format"), [(encode("JPEG"), "jpeg"), (encode("PNG"), "png"), (encode("WEBP"), "png")]
    )
    def test_large_ones_are_shrunk(self, image: bytes, format: str) -> None:
        row = ingest_one(image, max_side_px=15)
        header = read_header(row["image"]["bytes"], LIMITS)
        assert (header.format, header.height, header.width) == (format, row["height"], row["width"]) == (format, 10, 15)

    def test_a_side_is_measured_upright(self) -> None:
        row = ingest_one(turned("JPEG", 6), max_side_px=15)
        assert (row["height"], row["width"]) == (15, 10)

    def test_ingesting_again_keeps_every_byte(self) -> None:
        for image in [*KEPT.values(), *MADE_JPEG.values(), *MADE_PNG.values()]:
            once = ingest_one(image, 25)
            assert ingest_one(once["image"]["bytes"], 25)["image"]["bytes"] == once["image"]["bytes"]

    def test_what_is_written_is_within_the_limits(self) -> None:
        converted = ingester(max_side_px=100).convert(rows_of([encode("PNG", size=(8, 400))]), Stopwatch())
        for row in converted.table.to_pylist():
            read_header(row["image"]["bytes"], LIMITS)


BAD = {
    "text": (b"this is a text file", "not_an_image"),
    "nothing": (b"", "not_an_image"),
    "torn jpeg, plain header": (encode("JPEG", size=(200, 200))[:-400], "truncated"),
    "torn png": (encode("PNG")[:-30], "truncated"),
    "tiny": (encode("PNG", size=(7, 7)), "too_small"),
    "thin": (encode("PNG", size=(8, 401)), "too_small"),
    "not read": (DecodeError("bomb", "too large to be read"), "bomb"),
    "damaged": (encode("PNG").replace(b"IDAT", b"IDAT\0", 1), "decode"),
}


class TestBadRows:
    @pytest.mark.parametrize(("image", "reason"), BAD.values(), ids=BAD.keys())
    def test_it_is_refused_with_its_reason_and_its_neighbours_stay(self, image: bytes | RowError, reason: str) -> None:
        good = encode("PNG")
        converted = ingester().convert(rows_of([good, image, good]), Stopwatch())
        assert {row: (error.stage, error.reason) for row, error in converted.errors.items()} == {1: ("decode", reason)}
        assert [row["key"] for row in converted.table.to_pylist()] == ["k0", "k2"]

    def test_limits_hold(self) -> None:
        image = encode("PNG")
        for limits in (Limits(max_bytes=len(image) - 1), Limits(max_megapixels=599e-6)):
            converted = ingester(limits=limits).convert(rows_of([image]), Stopwatch())
            assert converted.errors[0].reason == "bomb"
        converted = ingester(limits=Limits(max_bytes=len(image), max_megapixels=600e-6)).convert(
            rows_of([image]), Stopwatch()
        )
        assert not converted.errors

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.sampled_from(["kept", "made", "bad"]), max_size=8))
    def test_every_row_is_written_or_refused_and_carries_its_own_columns(self, kinds: list[str]) -> None:
        images = {"kept": KEPT["png"], "made": MADE_PNG["png, grey"], "bad": b"text"}
        numbers = list(range(len(kinds)))
        carried = pa.table(
            {"n": pa.array(numbers, pa.int64()), "sha256": pa.array(map(str, numbers), pa.string()), "width": numbers}
        )
        converted = ingester(carried=carried.schema).convert(
            rows_of([images[kind] for kind in kinds], carried), Stopwatch()
        )
        good = [n for n, kind in enumerate(kinds) if kind != "bad"]
        assert sorted(converted.errors) == [n for n, kind in enumerate(kinds) if kind == "bad"]
        names = [field.name for field in IMAGE_FIELDS]
        assert converted.table.schema.names == [*names, "n", "source_sha256"]
        found = [(row["key"], row["n"], row["source_sha256"], row["width"]) for row in converted.table.to_pylist()]
        assert found == [(f"k{n}", n, str(n), 30) for n in good]


def test_a_whole_unit(tmp_path: Path) -> None:
    files: dict[str, bytes] = {"cat/a.jpg": KEPT["jpeg"], "cat/b.bmp": MADE_PNG["bmp"], "dog/c.png": b"torn"}
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    source = plan_source(str(tmp_path / "in"), 10**6, labels="folder")
    worker = ingester(carried=source.carried_schema, dest=str(tmp_path / "out"))
    marker = worker.process(source.units[0], 0, digest("unit"))
    assert (marker.rows_in, marker.rows_ok, marker.rows_bad, marker.by_reason) == (3, 2, 1, {"not_an_image": 1})
    first = (tmp_path / "out" / marker.file).read_bytes()
    rows = pq.read_table(io.BytesIO(first)).to_pylist()
    assert [(row["key"], row["image"]["path"], row["label"]) for row in rows] == [
        ("cat/a.jpg", "cat/a.jpg", "cat"),
        ("cat/b.bmp", "cat/b.bmp", "cat"),
    ]
    (letter,) = pq.read_table(tmp_path / "out" / marker.dead_letter).to_pylist()
    assert letter["key"] == "dog/c.png" and Path(letter["source"]).read_bytes() == b"torn"
    assert worker.process(source.units[0], 0, digest("unit")).file_sha256 == marker.file_sha256
    assert (tmp_path / "out" / marker.file).read_bytes() == first


@pytest.mark.parametrize("build", [lambda: ingester(), lambda: ingester(max_side_px=16)])
def test_threads_do_not_change_the_rows(build: Callable[[], Ingester]) -> None:
    images = [*KEPT.values(), b"bad", *MADE_PNG.values(), *MADE_JPEG.values()]
    rows = rows_of(images)
    first = build().convert(rows, Stopwatch())
    again = build().convert(rows, Stopwatch())
    assert first.table == again.table and first.errors.keys() == again.errors.keys() == {len(KEPT)}
    assert [row["key"] for row in first.table.to_pylist()] == [f"k{n}" for n in range(len(images)) if n != len(KEPT)]
