"""A model earns its alias: versions of one training are judged, refused, promoted and taken back by commands."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from stylejobs.engine.registering import register_folder
from stylejobs.storage.units import read_json
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from stylejobs.tracking.registry import resolve_version
from tests.conftest import Outcome
from tests.pipelines.painters import SIDE_PX, train_painters, write_sets

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EARLY, MIDDLE, LATE = 5, 60, 200
GATES = """
hard:
  edge_cosine: {at_least: 0.15}
  identification: {at_least: 0.2}
  constant: {at_most: 0.1}
improves: [style]
"""


@pytest.fixture(scope="module")
def packages(photos: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Checkpoints of one training, by the number of its steps."""
    steps = (EARLY, MIDDLE, LATE)
    return dict(zip(steps, train_painters(tmp_path_factory.mktemp("painters"), photos, steps), strict=True))


@pytest.fixture(scope="module")
def sets(photos: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_sets(tmp_path_factory.mktemp("sets"), photos, num_styles=50)


@pytest.fixture
def judge(verb: Callable[..., Outcome], sets: tuple[Path, Path], tmp_path: Path) -> Callable[..., Outcome]:
    (tmp_path / "gates.yaml").write_text(GATES)
    content, style = sets

    def call(model: str, *arguments: str) -> Outcome:
        return verb(
            "evaluate", f"model={model}", f"data={content}", f"style={style}", "gates=gates.yaml", "images=50",
            f"size_px={SIDE_PX}", "cluster.actors=1", *arguments,
        )  # fmt: skip

    return call


@pytest.fixture
def register(tracking_store: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], str]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)

    def call(package: Path, name: str) -> str:
        with MlflowTracker.start("painters", "registers") as run:
            return register_folder(str(package), name, run.run_id, {}).uri

    return call


def test_a_worse_model_is_refused_a_better_one_promoted_and_rollback_restores(
    packages: dict[int, Path], judge: Callable, register: Callable, verb: Callable[..., Outcome], tmp_path: Path
):
    first, worse, better = (register(packages[steps], "hand") for steps in (MIDDLE, EARLY, LATE))

    # Nothing is promoted that was not judged.
    refused = verb("promote", f"model={first}", "gates=gates.yaml")
    assert refused.exit_code == 4 and "wanted a verdict" in refused.stderr

    judged = judge(first)
    assert judged.exit_code == 0, judged.stderr
    assert judged.result["details"]["baseline"] is None
    assert verb("promote", f"model={first}", "gates=gates.yaml").exit_code == 0

    judged = judge(worse, "junit=junit.xml", "summary=summary.md")
    assert judged.exit_code == 4
    assert judged.result["details"]["baseline"]["version"] == "1"  # the champion, without being named
    failed = {gate["name"] for gate in judged.result["details"]["gates"] if gate["state"] == "failed"}
    assert {"edge_cosine at least 0.15", "identification at least 0.2"} <= failed
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert int(suite.get("failures")) == len(failed)
    assert "edge_cosine at least 0.15" in (tmp_path / "summary.md").read_text()
    refused = verb("promote", f"model={worse}", "gates=gates.yaml")
    assert refused.exit_code == 4 and all(name in refused.stderr for name in failed)
    assert resolve_version("models:/hand@champion").version == "1"

    judged = judge(better)
    assert judged.exit_code == 0, judged.stderr
    assert judged.result["details"]["improved"] == ["style"]
    assert verb("promote", f"model={better}", "gates=gates.yaml").exit_code == 0
    assert resolve_version("models:/hand@champion").version == "3"
    assert resolve_version("models:/hand@previous").version == "1"

    assert verb("promote", "model=models:/hand@champion", "rollback=true", "gates=gates.yaml").exit_code == 0
    assert resolve_version("models:/hand@champion").version == "1"


@pytest.mark.faults
def test_what_is_kept_of_an_evaluation(packages: dict[int, Path], judge: Callable, tmp_path: Path):
    judged = judge(str(packages[LATE]), f"baseline={packages[MIDDLE]}", "calibrate=true")
    folder = Path(judged.result["dest"])
    verdict = read_json(str(folder / "verdict.json"))
    assert verdict["model"]["sha256"] == judged.result["model"]["sha256"]
    assert verdict["set_sha256"] == judged.result["details"]["set_sha256"]
    rows = json.loads((folder / "calibration.json").read_text())["rows"]
    assert {
        "identity",
        "reinhard",
        "fda",
        "blur",
        "noise",
        "checkerboard",
        "shuffled",
        "copy",
        "collapse",
    } <= rows.keys()
    # What calibration is for: each fault is seen by some measure, and by no other that is asked instead of it.
    assert rows["identity"]["edge_cosine"][0] == pytest.approx(1.0, abs=1e-6)
    assert rows["shuffled"]["edge_cosine"][0] < 0.1
    assert rows["shuffled"]["style"][0] == pytest.approx(rows["reinhard"]["style"][0])
    assert rows["copy"]["identification"][0] < 0.1
    assert rows["checkerboard"]["nyquist"][0] > 1.5 * rows["identity"]["nyquist"][0]
    assert rows["blur"]["nyquist"][0] < 0.1 * rows["identity"]["nyquist"][0]
    assert rows["collapse"]["pairwise"][0] < 0.3 * rows["identity"]["pairwise"][0]
    with Image.open(folder / "montage.jpg") as montage:
        assert montage.size == (3 * SIDE_PX + 4 * 4, 8 * SIDE_PX + 9 * 4)  # source, baseline, candidate
    assert "reinhard" in judged.stderr and "candidate" in judged.stderr


@pytest.mark.faults
def test_the_same_evaluation_gives_the_same_numbers_and_other_images_another_set(
    packages: dict[int, Path], judge: Callable, sets: tuple[Path, Path]
):
    first, again = (judge(str(packages[MIDDLE]), "gates=none") for _ in range(2))
    assert first.exit_code == again.exit_code == 0

    def measures(outcome: Outcome) -> dict:
        found = outcome.result["details"]["measures"]
        return {name: numbers for name, numbers in found.items() if name != "images_per_second"}

    assert measures(first) == measures(again)
    assert first.result["details"]["set_sha256"] == again.result["details"]["set_sha256"]
    other = judge(str(packages[MIDDLE]), "gates=none", "seed=1")
    assert other.result["details"]["set_sha256"] != first.result["details"]["set_sha256"]


@pytest.mark.faults
def test_lpips_and_fid_are_measured_where_their_weights_are_given(
    packages: dict[int, Path], judge: Callable, tmp_path: Path
):
    from safetensors.torch import save_file
    from torchvision import models

    # Random weights: that the numbers are those of trained ones is not ours to show, but that they arrive.
    save_file(models.alexnet().features.state_dict(), tmp_path / "trunk.safetensors")
    channels = enumerate((64, 192, 384, 256, 256))
    heads = {f"lin{level}.model.1.weight": torch.rand(1, count, 1, 1) for level, count in channels}
    save_file(heads, tmp_path / "heads.safetensors")
    save_file(models.Inception3(aux_logits=False, init_weights=False).state_dict(), tmp_path / "fid.safetensors")
    given = {"trunk": "trunk", "lpips": "heads", "inception": "fid"}
    judged = judge(
        str(packages[LATE]),
        "gates=none",
        *(f"perceptual.{key}_weights={name}.safetensors" for key, name in given.items()),
    )
    assert judged.exit_code == 0, judged.stderr
    found = judged.result["details"]["measures"]
    assert found["lpips"][0] > 0 and found["fid"][0] > 0
    assert found["artfid"][0] == pytest.approx((1 + found["lpips"][0]) * (1 + found["fid"][0]))
    plain = judge(str(packages[LATE]), "gates=none")
    assert plain.result["details"]["set_sha256"] != judged.result["details"]["set_sha256"]


def test_too_few_images_for_an_interval(packages: dict[int, Path], judge: Callable):
    refused = judge(str(packages[LATE]), "images=57")
    assert refused.exit_code == 2
    assert "wanted images=57" in refused.stderr and "found 56" in refused.stderr
    assert judge(str(packages[LATE]), "images=10").exit_code == 2


def test_a_model_that_is_not_a_number_is_refused(packages: dict[int, Path], judge: Callable, tmp_path: Path):
    from stylejobs.storage.packages import load_package, save_package

    loaded = load_package(str(packages[LATE]))
    weights = {name: tensor * torch.nan for name, tensor in loaded.generator.state_dict().items()}
    package = loaded.package
    save_package(str(tmp_path / "nan"), package.network, package.options, weights, loaded.styles, {})
    judged = judge(str(tmp_path / "nan"))
    assert judged.exit_code == 4
    assert "NaN" in judged.stderr and "is not a number" in judged.stderr
    assert judged.result["details"]["measures"]["edge_cosine"] == [None, None, None]
