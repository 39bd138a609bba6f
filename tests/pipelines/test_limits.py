"""Large images and slow rows through the real commands' own code, on the shared Ray."""

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
    # A colour transfer by the tile's own moments is another picture, of the same size and without a hard edge.
    assert made["c"].shape == whole["c"].shape and not np.array_equal(made["c"], whole["c"])
    steps = np.abs(np.diff(made["c"], axis=1)).mean(axis=(0, 2))
    assert steps.max() < 3 * np.median(np.abs(np.diff(whole["c"], axis=1)).mean(axis=(0, 2))) + 20
    assert verb("verify", "dest=tiled", "sample=5").exit_code == 0
    assert stylize("dest=tiled", "tile_above_megapixels=16").exit_code == 5, "tiles decide pixels"


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
