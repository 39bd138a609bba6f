"""ingest: folders, Parquet and tars of every format -> image shards that anybody can read."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylejobs.records.schema import IMAGE_FIELDS
from tests.conftest import Outcome

pytestmark = pytest.mark.ray

Verb = Callable[..., Outcome]
FORMATS = {"a.JPG": "JPEG", "b.png": "PNG", "c.webp": "WEBP", "d.Bmp": "BMP", "e.tiff": "TIFF", "f.gif": "GIF"}


def encode(pixels: np.ndarray, format: str, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format, **options)
    return sink.getvalue()


def read_shards(dest: Path) -> pa.Table:
    return pq.read_table(dest / "data")


def test_every_format_in_nested_folders(verb: Verb, tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    pixels = photos["chelsea"][:64, :96]
    for name, format in FORMATS.items():
        path = tmp_path / "in" / "deep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels, format))
    outcome = verb("ingest", "source=in", "dest=out", "labels=folder")
    assert outcome.exit_code == 0, outcome.stderr
    table = read_shards(tmp_path / "out")
    assert table.schema.names == [field.name for field in IMAGE_FIELDS] + ["label"]
    assert table["key"].to_pylist() == [f"deep/{name}" for name in FORMATS]
    assert set(table["label"].to_pylist()) == {"deep"}
    assert table["width"].to_pylist() == [96] * 6 and table["height"].to_pylist() == [64] * 6
    for row in table.to_pylist():
        decoded = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")).astype(int)
        # lossless formats are exact; GIF has 256 colours, JPEG and WebP lose a little
        limit = 0 if row["key"].endswith(("png", "Bmp", "tiff")) else 12
        assert np.abs(decoded - pixels.astype(int)).mean() <= limit


def test_bytes_that_are_fine_are_kept_and_rotated_ones_are_turned(
    verb: Verb, tmp_path: Path, photos: dict[str, np.ndarray]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    fine = encode(photos["coffee"][:40, :80], "JPEG", quality=80)
    (folder / "fine.jpg").write_bytes(fine)
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "turned.jpg").write_bytes(encode(photos["coffee"][:40, :80], "JPEG", exif=exif))
    assert verb("ingest", "source=in", "dest=out").exit_code == 0
    rows = {row["key"]: row for row in read_shards(tmp_path / "out").to_pylist()}
    assert rows["fine.jpg"]["image"]["bytes"] == fine
    assert (rows["turned.jpg"]["height"], rows["turned.jpg"]["width"]) == (80, 40)
    assert Image.open(io.BytesIO(rows["turned.jpg"]["image"]["bytes"])).size == (40, 80)


def test_labels_from_a_csv(verb: Verb, tmp_path: Path, photo_folder: Path) -> None:
    names = sorted(str(path.relative_to(photo_folder)) for path in photo_folder.rglob("*.jpg"))
    lines = [f"{name},{index},{'even' if index % 2 == 0 else 'odd'}" for index, name in enumerate(names[:-1])]
    (photo_folder / "labels.csv").write_text("\n".join(["file_name,number,parity", *lines]))
    assert verb("ingest", f"source={photo_folder}", "dest=out", "labels=csv").exit_code == 0
    rows = {row["key"]: row for row in read_shards(tmp_path / "out").to_pylist()}
    assert rows[names[3]]["number"] == "3" and rows[names[3]]["parity"] == "odd"
    assert rows[names[-1]]["parity"] is None


def test_a_csv_without_our_files_is_refused(verb: Verb, photo_folder: Path) -> None:
    (photo_folder / "labels.csv").write_text("file_name,label\nother.jpg,cat\n")
    outcome = verb("ingest", f"source={photo_folder}", "dest=out", "labels=csv")
    assert outcome.exit_code == 2
    assert "names none of the 20 files" in outcome.stderr


def test_parquet_keeps_its_columns(verb: Verb, tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    images = [encode(photos["rocket"][:32, : 40 + n], "PNG") for n in range(6)]
    boxes = [[[0.0, 1.0, 2.0, float(n)]] for n in range(6)]
    table = pa.table({"photo": images, "boxes": boxes, "sha256": ["theirs"] * 6, "key": [f"k{n}" for n in range(6)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    outcome = verb("ingest", "source=in.parquet", "dest=out", "shard_mb=0.002")
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.result["units"]["total"] == 3
    read = read_shards(tmp_path / "out").sort_by("key")
    assert read["key"].to_pylist() == [f"k{n}" for n in range(6)]
    assert read["boxes"].to_pylist() == boxes
    assert set(read["source_sha256"].to_pylist()) == {"theirs"}
    assert [image["bytes"] for image in read["image"].to_pylist()] == images


def test_webdataset_tars(verb: Verb, tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    with tarfile.open(tmp_path / "train-000.tar", "w") as tar:
        for number in range(3):
            members = {
                "jpg": encode(photos["coffee"][:50, :60], "JPEG"),
                "txt": f"caption {number}".encode(),
                "json": json.dumps({"n": number}).encode(),
                "depth.bin": b"\1\2",
            }
            for ending, data in members.items():
                info = tarfile.TarInfo(f"sample{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("evil.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert verb("ingest", "source=train-000.tar", "dest=out").exit_code == 0
    rows = read_shards(tmp_path / "out").to_pylist()
    assert [row["key"] for row in rows] == [f"train-000/sample{n}" for n in range(3)]
    assert [row["txt"] for row in rows] == [f"caption {n}" for n in range(3)]
    assert json.loads(rows[2]["json"]) == {"n": 2}
    assert rows[0]["members"] == [("depth.bin", b"\1\2")]


def test_sides_are_limited(verb: Verb, tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jpg").write_bytes(encode(photos["coffee"], "JPEG"))  # 400 x 600
    assert verb("ingest", "source=in", "dest=out", "max_side=150").exit_code == 0
    row = read_shards(tmp_path / "out").to_pylist()[0]
    assert (row["height"], row["width"]) == (100, 150)


def test_hugging_face_reads_the_shards(verb: Verb, tmp_path: Path, photo_folder: Path) -> None:
    assert verb("ingest", f"source={photo_folder}", "dest=out", "labels=folder", "shard_mb=0.01").exit_code == 0
    files = [str(path) for path in sorted((tmp_path / "out" / "data").glob("*.parquet"))]
    assert len(files) > 1
    read = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    assert isinstance(read.features["image"], datasets.Image)
    assert len(read) == 20
    assert all(row["image"].size == (row["width"], row["height"]) for row in read)
