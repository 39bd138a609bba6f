"""plan=true, plan=PATH and the canary as whole commands: drift ends with 5, a bad model with 4 and no data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from stylejobs.core.networks import build_network
from stylejobs.core.pixels import to_float
from stylejobs.storage.packages import save_package
from tests.conftest import Outcome

pytestmark = pytest.mark.ray

Verb = Callable[..., Outcome]


@pytest.fixture
def model(tmp_path: Path, style_image: Path) -> Callable[[str], str]:
    """A package in one place: model("bad") gives one colour for everything, model("good") does what it should."""

    def save(kind: str) -> str:
        moments = build_network("moments")
        style = to_float(torch.from_numpy(np.array(Image.open(style_image)))[None])
        code_D = moments.encode_style(style)[0] if kind == "good" else torch.tensor([0.2, 0.2, 0.2, 0.0, 0.0, 0.0])
        save_package(str(tmp_path / "model"), "moments", {}, {}, {"only": code_D}, {})
        return "model=model"

    return save


def test_a_bad_model_stops_with_4_before_data_and_a_better_one_takes_the_same_dest(
    verb: Verb, photo_folder: Path, tmp_path: Path, model: Callable[[str], str]
) -> None:
    out, books = tmp_path / "out", tmp_path / "out" / "_stylejobs"
    arguments = [f"source={photo_folder}", "dest=out", "unit_mb=0.012", "canary=0.001"]
    refused = verb("stylize", *arguments, model("bad"))
    assert refused.exit_code == 4 and "FAILED constant: 1, wanted at most 0.1" in refused.stderr
    assert "ok     black: 0, wanted at most 0.1" in refused.stderr
    assert not (out / "data").exists() and not (out / "dead_letter").exists() and not (out / "_SUCCESS").exists()
    verdict = json.loads((books / "canary.json").read_text())
    assert not verdict["passed"] and verdict["rows"] == verdict["images"] == 20
    assert {gate["name"]: gate["value"] for gate in verdict["gates"]}["constant"] == 1.0
    assert len(list((books / "canary").glob("*.jpg"))) == 8
    assert refused.result["units"]["done"] == refused.result["rows"]["written"] == 0

    passed = verb("stylize", *arguments, model("good"))
    assert passed.exit_code == 0, passed.stderr
    assert "canary: 20 rows" in passed.stderr and json.loads((books / "canary.json").read_text())["passed"]
    assert pq.read_table(out / "data").num_rows == 20

    next((books / "units").iterdir()).unlink()
    resumed = verb("stylize", *arguments, model("good"))
    assert resumed.exit_code == 0 and resumed.result["units"]["done"] == 1
    assert "canary:" not in resumed.stderr


def test_a_plan_is_made_reviewed_applied_and_refused_when_a_file_has_changed(
    verb: Verb, photo_folder: Path, tmp_path: Path, model: Callable[[str], str]
) -> None:
    arguments = [f"source={photo_folder}", "unit_mb=0.012", model("good"), "rate=0.000001"]
    made = verb("stylize", *arguments, "dest=out", "plan=true", "prices.cpu_hour=0.05")
    assert made.exit_code == 0, made.stderr
    forecast = made.result["details"]["forecast"]
    assert forecast["rows"] == 20 and sum(bucket["rows"] for bucket in forecast["buckets"]) == 20
    assert forecast["money"]["expected"] == pytest.approx(20 / 1e-6 / 3600 * 0.05, rel=1e-3)
    assert "images/s a worker" in made.stderr and not (tmp_path / "out" / "data").exists()

    reviewed = shutil.copy(tmp_path / "out" / "_stylejobs" / "plan.json", tmp_path / "reviewed.json")
    applied = verb("stylize", *arguments, "dest=applied", "plan=reviewed.json", "canary=0.5")
    assert applied.exit_code == 0, applied.stderr
    assert pq.read_table(tmp_path / "applied" / "data").num_rows == 20
    gates = json.loads((tmp_path / "applied" / "_stylejobs" / "canary.json").read_text())["gates"]
    assert gates[-1]["name"] == "images/s of a worker" and gates[-1]["limit"] == pytest.approx(1e-6 / 3)
    applied_plan = json.loads((tmp_path / "applied" / "_stylejobs" / "plan.json").read_text())
    assert applied_plan["inputs"] == json.loads(Path(reviewed).read_text())["inputs"]

    first, second = sorted(photo_folder.rglob("*.jpg"))[:2]
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(first)
    second.rename(second.with_name("renamed.jpg"))
    drifted = verb("stylize", *arguments, "dest=later", "plan=reviewed.json")
    assert drifted.exit_code == 5
    for kind, path in (("changed", first), ("gone", second), ("added", second.with_name("renamed.jpg"))):
        assert f"{kind}: {path.relative_to(photo_folder)}" in drifted.stderr
    assert "3 difference(s)" in drifted.stderr and not (tmp_path / "later").exists()
    assert verb("stylize", *arguments, "dest=later", "plan=absent.json").exit_code == 2
