"""Every bad input gets its exit code and one clear message, and leaves nothing half-written."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import Outcome

pytestmark = pytest.mark.ray

Verb = Callable[..., Outcome]


def jpeg(height: int = 40, width: int = 60) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)).save(sink, "JPEG")
    return sink.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    pq.write_table(pa.table({"image": [jpeg()] * 4, "key": list("abcd")}), folder / "part-0.parquet")
    return folder


def refused(outcome: Outcome, exit_code: int, said: str) -> None:
    assert outcome.exit_code == exit_code, outcome.stderr
    assert outcome.result["exit_code"] == exit_code
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sourc=x", "dest=y", "model=builtin:moments"), "did you mean 'source'?"),
        (("missing.yaml",), "missing.yaml"),
        (("source=x", "dest=y", "model=m", "quality=high"), "quality"),
    ],
)
def test_a_malformed_config_is_refused(verb: Verb, arguments: tuple[str, ...], said: str) -> None:
    refused(verb("stylize", *arguments), 2, said)


def test_a_missing_source(verb: Verb) -> None:
    refused(verb("ingest", "source=absent", "dest=out"), 2, "absent: nothing is there")


def test_an_empty_folder(verb: Verb, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(verb("ingest", "source=empty", "dest=out"), 2, "found 0 file(s)")


def test_a_folder_without_images(verb: Verb, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no picture")
    refused(verb("ingest", "source=texts", "dest=out"), 2, "found 1 file(s) and none of these")
    assert not (tmp_path / "out").exists()


def test_a_shard_without_an_image_column(verb: Verb, tmp_path: Path, style_image: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x.parquet")
    outcome = verb("stylize", "source=x.parquet", "dest=out", "model=builtin:moments", f"styles={style_image}")
    refused(outcome, 2, "has no column of encoded images")
    assert "text (string)" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_truncated_parquet_file(verb: Verb, shards: Path, style_image: Path) -> None:
    path = shards / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    outcome = verb("stylize", "source=shards", "dest=out", "model=builtin:moments", f"styles={style_image}")
    refused(outcome, 2, "part-0.parquet: not a whole Parquet file")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("models:/nobody@champion", "models:/nobody@champion does not exist"),
        ("models:/nobody/3", "models:/nobody/3 does not exist"),
        ("builtin:nothing", "builtin:fda, builtin:histogram, builtin:moments"),
        ("shards", "not a model package"),
        ("absent", "not a model package"),
    ],
)
def test_a_model_that_does_not_exist(verb: Verb, shards: Path, tmp_path: Path, model: str, said: str) -> None:
    refused(verb("stylize", "source=shards", "dest=out", f"model={model}"), 2, said)
    assert not (tmp_path / "out").exists()


def test_a_style_that_does_not_exist_or_is_no_image(verb: Verb, shards: Path) -> None:
    arguments = ("source=shards", "dest=out", "model=builtin:moments")
    refused(verb("stylize", *arguments, "styles=absent.png"), 2, "absent.png: no such file")
    refused(verb("stylize", *arguments, "styles=shards/part-0.parquet"), 2, "not an image that we read")
    refused(verb("stylize", *arguments), 2, "carries no styles")


def test_a_dest_with_strange_files_is_left_alone(verb: Verb, shards: Path, tmp_path: Path, style_image: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    outcome = verb("stylize", "source=shards", "dest=out", "model=builtin:moments", f"styles={style_image}")
    refused(outcome, 2, "is not empty and holds no job of ours")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["thesis.txt"]


def test_a_dest_with_another_jobs_output_is_refused_and_named(
    verb: Verb, shards: Path, tmp_path: Path, style_image: Path
) -> None:
    arguments = ("source=shards", "dest=out", "model=builtin:moments", f"styles={style_image}")
    assert verb("stylize", *arguments).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    outcome = verb("stylize", *arguments, "quality=50", "strength=0.5")
    refused(outcome, 5, "parameters.quality: it was made with 92, this command says 50")
    assert "parameters.strength: it was made with 1.0, this command says 0.5" in outcome.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_an_unwritable_dest(verb: Verb, shards: Path, tmp_path: Path, style_image: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    outcome = verb("stylize", "source=shards", "dest=file/out", "model=builtin:moments", f"styles={style_image}")
    refused(outcome, 6, "cannot write")


def png_bomb() -> bytes:
    """A PNG whose header says 60,000 x 60,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_bad_images_become_dead_letters_with_reasons(verb: Verb, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    bad = {
        "text.jpg": (b"this is a text file", "not_an_image"),
        "empty.png": (b"", "not_an_image"),
        "dot.png": (_png(1, 1), "too_small"),
        "bomb.png": (png_bomb(), "bomb"),
        "torn.jpg": (jpeg(400, 400)[:4000], "truncated"),
    }
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    for number in range(5):
        (folder / f"good{number}.jpg").write_bytes(jpeg())
    outcome = verb("ingest", "source=photos", "dest=out", "max_bad=0.5")
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.result["rows"] == {
        "in": 10, "ok": 5, "bad": 5, "by_reason": {"not_an_image": 2, "too_small": 1, "bomb": 1, "truncated": 1},
    }  # fmt: skip
    letters = pq.read_table(tmp_path / "out" / "dead_letter").to_pylist()
    assert {letter["key"]: letter["reason"] for letter in letters} == {
        name: reason for name, (_, reason) in bad.items()
    }
    assert all(Path(letter["source"]).read_bytes() == bad[letter["key"]][0] for letter in letters)


def test_a_folder_in_which_every_file_is_bad_ends_with_4_and_lists_the_reasons(verb: Verb, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "text.jpg").write_text("no picture")
    (folder / "dot.png").write_bytes(_png(1, 1))
    for arguments in ((), ("max_bad=1",)):
        outcome = verb("ingest", "source=photos", "dest=out", *arguments)
        refused(outcome, 4, "2 of 2 rows are bad")
        assert "not_an_image" in outcome.stderr and "too_small" in outcome.stderr
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_more_bad_rows_than_allowed_end_with_4_and_more_patience_finishes(verb: Verb, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "text.jpg").write_text("no picture")
    for number in range(9):
        (folder / f"good{number}.jpg").write_bytes(jpeg())
    refused(verb("ingest", "source=photos", "dest=out"), 4, "1 of 10 rows are bad")
    outcome = verb("ingest", "source=photos", "dest=out", "max_bad=0.1")
    assert outcome.exit_code == 0
    assert outcome.result["units"] == {"total": 1, "done": 0, "skipped": 1, "failed": 0}


def _png(height: int, width: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 7, np.uint8)).save(sink, "PNG")
    return sink.getvalue()
