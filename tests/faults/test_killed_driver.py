"""SIGKILL of the command half way: the same command again gives the rows of an undisturbed run, none twice."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import Outcome

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def shards(tmp_path: Path, photos: dict[str, np.ndarray]) -> Path:
    """24 row groups of 2 pictures, so that there are 24 units."""
    images = []
    for number in range(48):
        sink = io.BytesIO()
        Image.fromarray(photos["coffee"][number : number + 200, number : number + 220]).save(sink, "JPEG")
        images.append(sink.getvalue())
    table = pa.table({"image": images, "key": [f"row-{number:02d}" for number in range(48)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    return tmp_path / "in.parquet"


def test_a_killed_job_goes_on_where_it_was(
    shards: Path, style_image: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    line = ["source=in.parquet", "model=builtin:moments", f"styles={style_image}", "unit_mb=0.001", "cluster.actors=1"]
    units = tmp_path / "killed" / "_stylejobs" / "units"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.stylize", *line, "dest=killed"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 180
    while not (units.is_dir() and len(list(units.glob("*.json"))) >= 5):
        assert process.poll() is None and time.monotonic() < deadline, "the job ended or hung before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(units.glob("*.json")))
    assert 5 <= done < 24, "killed too late to prove anything"
    assert not (tmp_path / "killed" / "_SUCCESS").exists()

    (tmp_path / "killed" / "data" / ".part-00009-torn.parquet.0123.tmp").write_bytes(b"what a killed write leaves")
    resumed = command("stylize", *line, "dest=killed")
    assert resumed.exit_code == 0, resumed.stderr
    skipped = resumed.result["units"]["skipped"]
    assert done <= skipped < 24 and resumed.result["units"]["done"] == 24 - skipped
    undisturbed = command("stylize", *line, "dest=undisturbed")
    assert undisturbed.exit_code == 0, undisturbed.stderr

    killed, whole = contents(tmp_path / "killed"), contents(tmp_path / "undisturbed")
    assert killed == whole and len(whole) == 24
    keys = pq.read_table(tmp_path / "killed" / "data")["key"].to_pylist()
    assert sorted(keys) == [f"row-{number:02d}" for number in range(48)]
    assert not [path for path in (tmp_path / "killed").rglob(".*")], "torn temporary files are left"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}
