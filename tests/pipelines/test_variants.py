"""Styles, variants, classes and retries through the real commands' own code, on the shared Ray."""

import io
import json
import shutil
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


@pytest.fixture
def source(tmp_path: Path, photos: dict[str, np.ndarray]) -> Path:
    """18 pictures of three classes in 3 row groups; two are only 20 px high."""
    images = []
    for number in range(18):
        height = 20 if number in (4, 11) else 60
        sink = io.BytesIO()
        Image.fromarray(photos["coffee"][number : number + height, number : number + 80]).save(sink, "JPEG")
        images.append(sink.getvalue())
    labels = [("cup", "plate", "table")[number % 3] for number in range(18)]
    table = pa.table({"image": images, "key": [f"k{number:02d}" for number in range(18)], "label": labels})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=6)
    return tmp_path / "in.parquet"


@pytest.fixture
def styles(tmp_path: Path, photos: dict[str, np.ndarray]) -> list[str]:
    for name, photo in (("red", "astronaut"), ("green", "flower"), ("blue", "rocket")):
        Image.fromarray(photos[photo][100:200, 100:200]).save(tmp_path / f"{name}.png")
    return ["red.png", "green.png", "blue.png"]


@pytest.fixture
def stylize(verb: Verb, source: Path, styles: list[str]) -> Verb:
    def call(*more: str) -> Outcome:
        line = ["source=in.parquet", "dest=out", "model=builtin:moments", "unit_mb=0.001", "gallery=2", "format=png"]
        return verb("stylize", *line, *more)

    return call


def rows(dest: Path) -> list[dict]:
    return pq.read_table(dest / "data").sort_by([("key", "ascending"), ("variant", "ascending")]).to_pylist()


def test_styles_by_class_with_drawn_strengths_and_the_source_between(
    stylize: Verb, verb: Verb, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "plan.yaml").write_text("classes:\n  cup: {red: 1}\n  plate: {green: 3, blue: 1}\n")
    line = ["styles=red.png,green.png,blue.png", "style_plan=plan.yaml", "variants=2", "strength=0.3-0.9"]
    outcome = stylize(*line, "include_source=true")
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.result["rows"] == {"in": 18, "ok": 18, "bad": 0, "by_reason": {}, "written": 54}
    balance = outcome.result["details"]["balance"]
    assert balance["cup"] == {"red": 12, "source": 6} and balance["plate"] == {"green": 6, "blue": 6, "source": 6}
    assert sum(balance["table"].values()) == 18 and set(balance["table"]) <= {"red", "green", "blue", "source"}
    before = {row["key"]: row for row in pq.read_table(source).to_pylist()}
    made = rows(tmp_path / "out")
    assert [row["variant"] for row in made] == [-1, 0, 1] * 18
    for row in made:
        assert row["label"] == before[row["key"]]["label"]
        if row["variant"] == -1:
            assert row["image"]["bytes"] == before[row["key"]]["image"] and row["image"]["path"].endswith(".jpg")
            assert (row["is_synthetic"], row["style"], row["strength"]) == (False, None, 0.0)
        else:
            assert row["is_synthetic"] and 0.3 <= row["strength"] <= 0.9
    assert verb("verify", "dest=out", "sample=5").exit_code == 0
    # A class plan is part of what the dataset is.
    (tmp_path / "plan.yaml").write_text("classes:\n  cup: {blue: 1}\n")
    outcome = stylize(*line, "include_source=true")
    assert outcome.exit_code == 5 and "style_plan.classes.cup" in outcome.stderr
    (tmp_path / "plan.yaml").unlink()
    assert verb("verify", "dest=out").exit_code == 0, "what a dataset is stands in its own books"


def test_a_style_that_is_added_is_all_that_is_computed(stylize: Verb, verb: Verb, tmp_path: Path) -> None:
    first = stylize("styles=red.png,green.png", "variants=each")
    assert first.exit_code == 0 and first.result["rows"]["written"] == 36, first.stderr
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "data").iterdir()}
    second = stylize("styles=red.png,green.png,blue.png", "variants=each")
    assert second.exit_code == 0, second.stderr
    assert second.result["units"] == {"total": 9, "done": 3, "skipped": 6, "failed": 0}
    after = {path.name: path.read_bytes() for path in (tmp_path / "out" / "data").iterdir()}
    assert before.items() < after.items() and len(after) == 9
    made = rows(tmp_path / "out")
    assert [(row["variant"], row["style"]) for row in made] == [(0, "red"), (1, "green"), (2, "blue")] * 18
    assert verb("verify", "dest=out").exit_code == 0


def test_dead_rows_are_done_again_and_merged(stylize: Verb, verb: Verb, tmp_path: Path) -> None:
    line = ["styles=red.png,green.png", "variants=2"]
    assert stylize(*line).exit_code == 0
    shutil.move(tmp_path / "out", tmp_path / "whole")
    dead = stylize(*line, "limits.min_side_px=30", "max_bad=0.2")
    assert dead.exit_code == 0 and dead.result["rows"]["by_reason"] == {"too_small": 2}, dead.stderr
    assert {row["key"] for row in rows(tmp_path / "out")} & {"k04", "k11"} == set()

    other = verb("stylize", "retry=out", "retry_reasons=oom", "limits.min_side_px=8", "max_bad=0.2")
    assert other.exit_code == 0 and other.result["units"]["done"] == 0, other.stderr
    refused = verb("stylize", "retry=out", "quality=50", "format=jpeg")
    assert refused.exit_code == 5 and "format: the dataset has 'png', this command says 'jpeg'" in refused.stderr
    vain = verb("stylize", "retry=out", "limits.min_side_px=25", "max_bad=0.2")
    assert vain.exit_code == 0 and vain.result["rows"]["bad"] == 2, vain.stderr
    letters = pq.read_table(tmp_path / "out" / "dead_letter").to_pylist()
    assert {letter["attempt"] for letter in letters} == {2}
    assert verb("verify", "dest=out").exit_code == 0

    retried = verb("stylize", "retry=out", "limits.min_side_px=8")
    assert retried.exit_code == 0, retried.stderr
    assert retried.result["rows"] == {"in": 18, "ok": 18, "bad": 0, "by_reason": {}, "written": 36}
    assert retried.result["units"] == {"total": 3, "done": 2, "skipped": 1, "failed": 0}
    merged, whole = rows(tmp_path / "out"), rows(tmp_path / "whole")
    assert merged == whole
    proof = json.loads((tmp_path / "out" / "_SUCCESS").read_text())
    assert proof["rows"] == 18 and proof["bad"] == 0
    assert not list((tmp_path / "out" / "dead_letter").iterdir())


def test_a_snapshot_lies_beside_what_the_dataset_holds(stylize: Verb, verb: Verb, tmp_path: Path) -> None:
    assert stylize("styles=red.png").exit_code == 0
    before = rows(tmp_path / "out")
    assert stylize("styles=blue.png").exit_code == 5
    other = stylize("styles=blue.png", "snapshot=new")
    assert other.exit_code == 0, other.stderr
    place = Path(other.result["dest"])
    assert place.parent == tmp_path / "out" / "snapshots" and {row["style"] for row in rows(place)} == {"blue"}
    assert rows(tmp_path / "out") == before
    again = stylize("styles=blue.png", "snapshot=new")
    assert again.result["dest"] == str(place) and again.result["units"]["done"] == 0
    assert verb("verify", f"dest={place}").exit_code == 0 and verb("verify", "dest=out").exit_code == 0


def test_a_deadline_that_has_come_leaves_a_job_to_go_on_with(stylize: Verb, tmp_path: Path) -> None:
    outcome = stylize("styles=red.png", "deadline=2020-01-01T07:00")
    assert outcome.exit_code == 3, outcome.stderr
    assert (
        "deadline: 3 of 3 units are left" in outcome.stderr and "pipelines.stylize" in outcome.result["resume_command"]
    )
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert stylize("styles=red.png").exit_code == 0


def test_a_budget_for_one_reason_stops_the_job(stylize: Verb) -> None:
    outcome = stylize("styles=red.png", "limits.min_side_px=30", "max_bad=0.5", "max_bad_of.too_small=0.05")
    assert outcome.exit_code == 4 and "reason too_small, more than max_bad_of.too_small=0.05 allows" in outcome.stderr
