"""benchmark as a command, on the shared Ray: a receipt whose sums are right, and nothing left behind."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome
from tests.s3_place import S3Place, used

pytestmark = pytest.mark.ray

Verb = Callable[..., Outcome]
SMALL = ["side_px=48", "cluster.actors=2", "prices.cpu_hour=0.05"]


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_receipt_of_pictures_that_are_made(verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    done = verb("benchmark", *SMALL)
    assert done.exit_code == 0, done.stderr
    result, receipt = done.result, done.result["details"]["receipt"]
    assert result["verb"] == "benchmark" and result["dest"] is None and result["resume_command"] is None
    assert result["rows"] == {"in": 256, "ok": 256, "bad": 0, "by_reason": {}} and result["units"]["done"] == 8
    assert result["model"]["name"] == "moments" and result["mlflow"] is None

    pictures, rate = receipt["pictures"], receipt["images_per_second"]
    assert pictures["source"] == "made" and pictures["images"] == 256
    assert pictures["megapixels"] == pytest.approx(48 * 64 / 1e6)
    assert receipt["cluster"]["workers"] == 2 and receipt["cluster"]["nodes"] == 1
    assert 0 < receipt["first_unit_seconds"] <= result["seconds"]
    assert 0 < rate["low"] <= rate["value"] <= rate["high"] and result["images_per_second"] == rate["value"]
    assert "last 6 of 8 units" in rate["how"]
    assert receipt["stages"].keys() >= {"read", "decode", "generate", "encode", "write"}
    assert sum(stage["share"] for stage in receipt["stages"].values()) == pytest.approx(1, abs=1e-3)
    assert receipt["bound_by"] in ("generator", "codec", "storage")
    costs = receipt["per_million"]
    assert costs["hours"]["expected"] == pytest.approx(1e6 / 3600 / rate["value"], rel=1e-3)
    assert costs["cpu_hours"]["expected"] == pytest.approx(2 * costs["hours"]["expected"], rel=1e-3)
    assert costs["money"]["expected"] == pytest.approx(0.05 * costs["cpu_hours"]["expected"], rel=1e-3)
    assert "images/s" in done.stderr and "bound by" in done.stderr
    assert left(tmp_path) == []


def test_some_units_of_a_source_and_a_receipt_that_stays(
    verb: Verb, photo_folder: Path, style_image: Path, tmp_path: Path
) -> None:
    (photo_folder / "coffee" / "torn.jpg").write_bytes(b"no picture")
    before = left(tmp_path)
    line = [f"source={photo_folder}", f"styles={style_image}", "dest=bench", "unit_mb=0.012", "cluster.actors=1"]
    done = verb("benchmark", *line, "units=2", "size=32")
    assert done.exit_code == 0, done.stderr
    receipt = done.result["details"]["receipt"]
    assert receipt["pictures"]["units"] == 2 and 0 < receipt["pictures"]["images"] < 20
    assert receipt["per_million"]["money"] is None
    assert sorted({*left(tmp_path)} - {*before}) == ["bench/_stylejobs/result.json"]
    assert json.loads((tmp_path / "bench/_stylejobs/result.json").read_text()) == done.result

    every = verb("benchmark", *line)
    assert every.exit_code == 0 and every.result["rows"]["bad"] == 1 and every.result["rows"]["ok"] == 20
    assert every.result["details"]["receipt"]["pictures"]["bad"] == 1


def test_on_an_s3_server_nothing_but_the_receipt_stays(command: Verb, s3: S3Place) -> None:
    with used(s3.environment):
        place = s3.fresh()
        done = command("benchmark", *SMALL, "units=2", f"dest={place}/bench")
    assert done.exit_code == 0, done.stderr
    assert [key.rpartition("/bench/")[2] for key in s3.keys(place)] == ["_stylejobs/result.json"]


def test_a_dataset_is_no_place_to_work_in(verb: Verb, photo_folder: Path, tmp_path: Path) -> None:
    assert verb("ingest", f"source={photo_folder}", "dest=shards").exit_code == 0
    before = left(tmp_path)
    refused = verb("benchmark", "dest=shards")
    assert refused.exit_code == 2 and "dest=shards holds a dataset" in refused.stderr
    assert left(tmp_path) == before


@pytest.mark.parametrize(
    "line, code, words",
    [
        (["model=nowhere"], 2, "nowhere"),
        (["source=nowhere"], 2, "nowhere"),
        (["model=builtin:moment"], 2, "builtin:moments"),
        (["side_px=4", "units=0"], 2, "units"),
        (["source=bad"], 4, "bad"),
    ],
)
def test_what_cannot_be_measured_says_why_and_leaves_nothing(
    verb: Verb, tmp_path: Path, line: list[str], code: int, words: str
) -> None:
    (tmp_path / "bad").mkdir()
    for number in range(40):
        (tmp_path / "bad" / f"{number}.jpg").write_bytes(os.urandom(50))
    done = verb("benchmark", *line, "dest=bench", "cluster.actors=1")
    assert done.exit_code == code and words in done.stderr, done.stderr
    assert not [name for name in left(tmp_path) if name.startswith("bench/benchmark")]


def test_several_nodes_share_no_temporary_folder(verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylejobs.engine.benchmark.num_nodes", lambda: 2)
    refused = verb("benchmark", *SMALL)
    assert refused.exit_code == 2 and "2 nodes share no temporary folder" in refused.stderr
