"""Large images and slow rows through the real commands' own code, on the shared Ray."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import Outcome

pytestmark = pytest.mark.ray


@pytest.fixture
def stylize(
    verb: Callable[..., Outcome], photos: dict[str, np.ndarray], style_image: Path, tmp_path: Path
) -> Callable[..., Outcome]:
    """On four pictures of 60x80 px and one of 300x400 px."""
    images = []
    for height, width in ((60, 80), (60, 80), (300, 400), (60, 80), (60, 80)):
        sink = io.BytesIO()
        Image.fromarray(photos["coffee"][:height, :width]).save(sink, "PNG")
        images.append(sink.getvalue())
    pq.write_table(pa.table({"image": images, "key": list("abcde")}), tmp_path / "in.parquet")

    def call(*more: str) -> Outcome:
        line = ["source=in.parquet", "model=builtin:moments", f"styles={style_image}", "format=png", "gallery=0"]
        return verb("stylize", *line, *more)

    return call


def pictures(dest: Path) -> dict[str, np.ndarray]:
    rows = pq.read_table(dest / "data").to_pylist()
    return {row["key"]: np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).astype(int) for row in rows}


def test_large_images_go_tile_by_tile(stylize: Callable[..., Outcome], verb: Callable, tmp_path: Path) -> None:
    assert stylize("dest=whole").exit_code == 0
    tiled = stylize("dest=tiled", "tile_above_megapixels=0.05", "tile_px=160", "tile_overlap_px=32")
    assert tiled.exit_code == 0, tiled.stderr
    whole, made = pictures(tmp_path / "whole"), pictures(tmp_path / "tiled")
    assert all(np.array_equal(whole[key], made[key]) for key in "abde")
    assert np.abs(made["c"] - whole["c"]).max() <= 1, "a tile has the colours that the whole has"
    assert verb("verify", "dest=tiled", "sample=5").exit_code == 0
    assert stylize("dest=tiled", "tile_above_megapixels=16").exit_code == 5, "tiles decide pixels"


def test_a_dead_tracking_server_ends_the_command_and_costs_no_unit(
    stylize: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    dead = stylize("dest=out")
    assert dead.exit_code == 6 and "127.0.0.1:9" in dead.result["message"], dead.stderr
    assert "dest=out" in dead.result["resume_command"] and not (tmp_path / "out" / "_SUCCESS").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    again = stylize("dest=out")
    assert again.exit_code == 0 and again.result["units"] == {"total": 1, "done": 0, "skipped": 1, "failed": 0}


def test_rows_that_take_too_long_are_dead_and_can_be_tried_with_more_time(
    stylize: Callable[..., Outcome], verb: Callable, tmp_path: Path
) -> None:
    late = stylize("dest=out", "row_seconds=0.0000001", "max_bad=1")
    assert late.exit_code == 4 and late.result["rows"]["by_reason"] == {"timeout": 5}, late.stderr
    done = verb("stylize", "retry=out", "retry_reasons=timeout", "row_seconds=60")
    assert done.exit_code == 0 and done.result["rows"]["ok"] == 5, done.stderr
    assert stylize("dest=fresh").exit_code == 0
    made, fresh = pictures(tmp_path / "out"), pictures(tmp_path / "fresh")
    assert all(np.array_equal(made[key], fresh[key]) for key in "abcde")
