"""More units than markers may lie about alone: compacted while the job runs, gone on with, proven and mended."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylejobs.storage.markers import COMPACTED_AT
from tests.conftest import Outcome

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NUM_UNITS = COMPACTED_AT + 20


def write_source(path: Path, photo: np.ndarray) -> None:
    """A row group of one small picture for each unit."""
    images = []
    for number in range(NUM_UNITS):
        sink = io.BytesIO()
        top, left = number % 300, number // 300
        Image.fromarray(photo[top : top + 20, left : left + 24]).save(sink, "PNG")
        images.append(sink.getvalue())
    table = pa.table({"image": images, "key": [f"row-{number:04d}" for number in range(NUM_UNITS)]})
    pq.write_table(table, path, row_group_size=1)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_thousand_units(
    verb: Callable[..., Outcome], photos: dict[str, np.ndarray], style_image: Path, tmp_path: Path
) -> None:
    write_source(tmp_path / "in.parquet", photos["coffee"])
    line = ["source=in.parquet", "dest=out", "model=builtin:moments", f"styles={style_image}"]
    line += ["unit_mb=0.001", "gallery=0"]
    first = verb("stylize", *line)
    assert first.exit_code == 0, first.stderr
    assert first.result["units"] == {"total": NUM_UNITS, "done": NUM_UNITS, "skipped": 0, "failed": 0}
    markers = tmp_path / "out" / "_stylejobs" / "units"
    assert len(list(markers.glob("many-*.jsonl.gz"))) == 1
    assert len(list(markers.glob("*.json"))) == NUM_UNITS - COMPACTED_AT
    keys = pq.read_table(tmp_path / "out" / "data", columns=["key"])["key"].to_pylist()
    assert sorted(keys) == [f"row-{number:04d}" for number in range(NUM_UNITS)]

    # Of the units whose markers lie among many, two lose their files: verify finds them, the same command mends them.
    written = sorted((tmp_path / "out" / "data").iterdir())
    before = {path.name: path.read_bytes() for path in written}
    written[7].unlink()
    written[400].write_bytes(before[written[400].name][:-9])
    refused = verb("verify", "dest=out", "mend=true")
    assert refused.exit_code == 4 and refused.result["details"]["withdrawn"] == 2, refused.stderr
    again = verb("stylize", *line)
    assert again.exit_code == 0 and again.result["units"]["done"] == 2, again.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "data").iterdir()} == before
    assert verb("verify", "dest=out").exit_code == 0
