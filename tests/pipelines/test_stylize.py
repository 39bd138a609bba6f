"""stylize: the main job through the real commands' own code, on the shared Ray."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylejobs.records.schema import STYLIZED_FIELDS
from tests.conftest import Outcome

pytestmark = pytest.mark.ray

Verb = Callable[..., Outcome]


@pytest.fixture
def shards(verb: Verb, photo_folder: Path, tmp_path: Path) -> Path:
    assert verb("ingest", f"source={photo_folder}", "dest=shards", "labels=folder", "shard_mb=0.012").exit_code == 0
    return tmp_path / "shards"


@pytest.fixture
def stylize(verb: Verb, shards: Path, style_image: Path) -> Callable[..., Outcome]:
    def call(*arguments: str) -> Outcome:
        given = {argument.split("=")[0] for argument in arguments}
        usual = {
            "source": "shards",
            "dest": "out",
            "model": "builtin:moments",
            "styles": style_image,
            "unit_mb": 0.012,
            "cluster.actors": 1,
        }
        return verb("stylize", *[f"{key}={value}" for key, value in usual.items() if key not in given], *arguments)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data").glob("*.parquet"))}


def test_every_row_once_with_its_lineage(stylize: Callable[..., Outcome], shards: Path, tmp_path: Path) -> None:
    outcome = stylize()
    assert outcome.exit_code == 0, outcome.stderr
    source = pq.read_table(shards / "data").sort_by("key")
    made = pq.read_table(tmp_path / "out" / "data").sort_by("key")
    assert made.schema.names == [field.name for field in STYLIZED_FIELDS] + ["sha256", "label"]
    assert made["key"].to_pylist() == source["key"].to_pylist()
    assert made["label"].to_pylist() == source["label"].to_pylist()
    assert made["source_sha256"].to_pylist() == source["sha256"].to_pylist()
    for before, row in zip(source.to_pylist(), made.to_pylist(), strict=True):
        data = row["image"]["bytes"]
        assert hashlib.sha256(data).hexdigest() == row["out_sha256"]
        assert Image.open(io.BytesIO(data)).size == (row["width"], row["height"]) == (before["width"], before["height"])
        assert row["is_synthetic"] and row["variant"] == 0 and row["strength"] == 1.0
        assert row["model_sha256"] == outcome.result["model"]["sha256"]
    result = outcome.result
    assert result["rows"] == {"in": 20, "ok": 20, "bad": 0, "by_reason": {}, "written": 20}
    assert result["units"]["done"] == result["units"]["total"] == len(contents(tmp_path / "out")) > 1
    assert json.loads((tmp_path / "out" / "_stylejobs" / "result.json").read_text()) == result
    success = json.loads((tmp_path / "out" / "_SUCCESS").read_text())
    assert success["rows"] == 20 and success["manifest_sha256"] == result["details"]["manifest_sha256"]


def test_colours_move_to_the_style(
    stylize: Callable[..., Outcome], shards: Path, tmp_path: Path, style_image: Path
) -> None:
    assert stylize("format=png").exit_code == 0
    style = mean_colour(style_image.read_bytes())
    source = {row["key"]: row["image"]["bytes"] for row in pq.read_table(shards / "data").to_pylist()}
    for row in pq.read_table(tmp_path / "out" / "data").to_pylist():
        before = np.linalg.norm(mean_colour(source[row["key"]]) - style)
        assert np.linalg.norm(mean_colour(row["image"]["bytes"]) - style) < 0.7 * before


def mean_colour(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3).mean(0)


def test_strength_zero_gives_the_source_exactly(stylize: Callable[..., Outcome], shards: Path, tmp_path: Path) -> None:
    assert stylize("strength=0", "format=png").exit_code == 0
    source = {row["key"]: row["image"]["bytes"] for row in pq.read_table(shards / "data").to_pylist()}
    for row in pq.read_table(tmp_path / "out" / "data").to_pylist():
        before = np.asarray(Image.open(io.BytesIO(source[row["key"]])).convert("RGB"))
        assert np.array_equal(before, np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))))


def test_a_mix_of_styles_colours_kept_and_blurry_sources_sharpened(
    stylize: Callable[..., Outcome], shards: Path, tmp_path: Path, style_image: Path
) -> None:
    shutil.copy(style_image, tmp_path / "second.png")
    mix = f"{style_image}:0.7+second.png:0.3"
    outcome = stylize(
        f"styles={mix}", "model=builtin:fda", "preserve_colour=true", "deblur=wiener", "deblur_below=0.5", "format=png"
    )
    assert outcome.exit_code == 0, outcome.stderr
    source = {row["key"]: row["image"]["bytes"] for row in pq.read_table(shards / "data").to_pylist()}
    for row in pq.read_table(tmp_path / "out" / "data").to_pylist():
        assert row["style"] == "flower:0.7+second:0.3" and row["blur_score"] > 0
        before = np.asarray(Image.open(io.BytesIO(source[row["key"]])).convert("RGB")).astype(int)
        after = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).astype(int)
        inside = ((after > 0) & (after < 255)).all(axis=2)
        assert np.ptp(after - before, axis=2)[inside].max() <= 1 and not np.array_equal(before, after)
    drifted = stylize(f"styles={mix}", "model=builtin:fda", "preserve_colour=true", "format=png")
    assert drifted.exit_code == 5 and "parameters.deblur" in drifted.stderr


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("strength=auto", "has no content match for flower"),
        ("strength=most", "wanted one of 'auto' or a number"),
        ("deblur_below=0.1", "is read only with deblur="),
        ("styles=random:7", "cannot invent styles"),
        ("styles=a.png:0+b.png:0", "not all of them 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_ray_starts_and_anything_is_written(
    photo_folder: Path, tmp_path: Path, style_image: Path, capsys: pytest.CaptureFixture, argument: str, said: str
) -> None:
    from pipelines.stylize import main

    places = [f"source={photo_folder}", f"dest={tmp_path / 'out'}", "model=builtin:moments"]
    assert main([*places, f"styles={style_image}", argument]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_same_command_again_does_nothing_and_half_a_job_goes_on(
    stylize: Callable[..., Outcome], tmp_path: Path
) -> None:
    first = stylize()
    before = contents(tmp_path / "out")
    again = stylize()
    assert again.exit_code == 0
    assert again.result["units"]["skipped"] == first.result["units"]["total"]
    assert again.result["rows"] == first.result["rows"]
    markers = sorted((tmp_path / "out" / "_stylejobs" / "units").glob("*.json"))
    for marker in markers[::2]:
        marker.unlink()
    half = stylize()
    assert half.result["units"]["done"] == len(markers[::2])
    assert contents(tmp_path / "out") == before


def test_a_changed_source_file_recomputes_only_its_units(
    stylize: Callable[..., Outcome], shards: Path, tmp_path: Path
) -> None:
    stylize()
    before = contents(tmp_path / "out")
    path = sorted((shards / "data").glob("*.parquet"))[1]
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    outcome = stylize()
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.result["units"]["done"] == 1
    after = contents(tmp_path / "out")
    assert len(after.keys() - before.keys()) == 1 and len(before.keys() - after.keys()) == 1
    assert pq.read_table(tmp_path / "out" / "data").num_rows == 19


def test_variants_differ_in_style_and_size_and_folder_sources_work(
    verb: Verb, photo_folder: Path, tmp_path: Path, style_image: Path
) -> None:
    shutil.copy(style_image, tmp_path / "second.png")
    outcome = verb(
        "stylize", f"source={photo_folder}", "dest=out", "model=builtin:moments", "size=32", "variants=2",
        f"styles={style_image},second.png", "format=webp",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.stderr
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert len(rows) == 40 == outcome.result["rows"]["written"]
    assert len({(row["key"], row["variant"]) for row in rows}) == 40
    assert len({(row["key"], row["style"]) for row in rows}) == 40
    assert all(min(row["width"], row["height"]) == 32 for row in rows)


def test_bad_rows_are_dead_letters_that_point_to_their_bytes(
    stylize: Callable[..., Outcome], shards: Path, tmp_path: Path
) -> None:
    path = sorted((shards / "data").glob("*.parquet"))[0]
    rows = pq.read_table(path).to_pylist()
    rows[1]["image"]["bytes"] = b"not a picture"
    pq.write_table(pq.read_table(path).from_pylist(rows, schema=pq.read_schema(path)), path)
    outcome = stylize("max_bad=0.1")
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.result["rows"]["by_reason"] == {"not_an_image": 1}
    letter = pq.read_table(tmp_path / "out" / "dead_letter").to_pylist()[0]
    assert letter["key"] == rows[1]["key"] and letter["stage"] == "decode"
    found = pq.ParquetFile(letter["source"]).read().slice(letter["row"], 1).to_pylist()[0]
    assert found["image"]["bytes"] == b"not a picture"


def test_the_plan_is_written_and_nothing_is_done(stylize: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = stylize("plan=true")
    assert outcome.exit_code == 0
    assert outcome.result["units"]["done"] == 0
    plan = json.loads((tmp_path / "out" / "_stylejobs" / "plan.json").read_text())
    assert plan["source"]["rows"] == 20
    assert plan["model"]["sha256"] == outcome.result["model"]["sha256"]
    assert not (tmp_path / "out" / "data").exists()
    assert stylize().exit_code == 0


def test_hugging_face_reads_the_dataset_and_people_see_it(stylize: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = stylize("gallery=5")
    files = [str(path) for path in sorted((tmp_path / "out" / "data").glob("*.parquet"))]
    read = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    assert isinstance(read.features["image"], datasets.Image)
    assert all(row["image"].size == (row["width"], row["height"]) for row in read)
    by_folder = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hf2"))
    assert len(by_folder) == 20
    page = Path(outcome.result["report"]).read_text()
    assert page.count("data:image/jpeg;base64,") >= 10
    assert outcome.result["model"]["sha256"][:12] in page


def test_parquet_layout(stylize: Callable[..., Outcome], tmp_path: Path) -> None:
    stylize()
    path = sorted((tmp_path / "out" / "data").glob("*.parquet"))[0]
    group = pq.read_metadata(path).row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert columns["image.bytes"].compression == "UNCOMPRESSED"
    assert not columns["image.bytes"].has_dictionary_page
    assert columns["style"].compression == "ZSTD" and columns["style"].has_dictionary_page
    assert columns["key"].has_offset_index and columns["key"].has_column_index
