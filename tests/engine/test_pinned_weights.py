"""Weights that are altered after a job was planned: every worker refuses them, whatever else the place says."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from stylejobs.config.schema import StylizeConfig, TrainConfig
from stylejobs.core.backbone import build_random_backbone
from stylejobs.engine.canary_worker import CanaryWorker
from stylejobs.engine.models import pinned_uri
from stylejobs.engine.replayer import Replayer
from stylejobs.engine.stylize import plan_stylize, stylize
from stylejobs.engine.stylizer import Stylizer
from stylejobs.engine.train_plan import plan_training
from stylejobs.engine.train_settings import read_backbone
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import ModelError
from tests.engine.pinning import save_johnson, write_image


def alter(weights: Path) -> None:
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def replace_whole(folder: Path) -> None:
    save_johnson(folder, seed=1)


@pytest.fixture
def config(tmp_path: Path) -> StylizeConfig:
    write_image(tmp_path / "photos" / "a.png")
    model = save_johnson(tmp_path / "model")
    return StylizeConfig(source=str(tmp_path / "photos"), dest=str(tmp_path / "out"), model=model, canary=0, gallery=0)


@pytest.fixture
def job(config: StylizeConfig) -> UnitJob:
    job, _ = plan_stylize(config)
    return job


@pytest.mark.parametrize("worker", [Stylizer, CanaryWorker, Replayer])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: alter(folder / "weights.safetensors"), r"weights\.safetensors: was altered: wanted sha256"),
        (lambda folder: alter(folder / "styles" / "styles.safetensors"), r"styles\.safetensors: was altered"),
        (replace_whole, "wanted the model [0-9a-f]{64}, found [0-9a-f]{64}"),
    ],
)
def test_a_worker_refuses_them(
    job: UnitJob, tmp_path: Path, worker: type, change: Callable[[Path], None], said: str
) -> None:
    worker(job.settings)
    change(Path(pinned_uri(str(tmp_path / "out"))))
    with pytest.raises(ModelError, match=said):
        worker(job.settings)


@pytest.mark.ray
def test_a_job_ends_with_2_when_they_change_between_its_plan_and_its_workers(
    ray_cluster: None, config: StylizeConfig, tmp_path: Path, tracking_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)
    job, model = plan_stylize(config)
    alter(Path(pinned_uri(config.dest)) / "weights.safetensors")
    result = stylize(config, job, model)
    assert result.exit_code == 2, result.message
    assert "weights.safetensors: was altered" in result.message
    assert not (tmp_path / "out" / "data").exists() and not (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.parametrize("pinned_by_hand", [False, True])
def test_a_training_worker_refuses_another_backbone(tmp_path: Path, photo_folder: Path, pinned_by_hand: bool) -> None:
    import hashlib

    weights = tmp_path / "squeezenet.safetensors"
    save_file(build_random_backbone(0).features.state_dict(), weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    config = TrainConfig(
        method="fast",
        content=str(photo_folder),
        style=write_image(tmp_path / "style.png"),
        name="demo",
        workers=1,
        batch=1,
        size_px=32,
        style_size_px=32,
        storage=str(tmp_path / "runs"),
        backbone={"weights": str(weights), "sha256": sha256 if pinned_by_hand else None},
    )
    settings = plan_training(config).settings
    assert settings.backbone["sha256"] == sha256
    assert read_backbone(settings) is not None
    save_file(build_random_backbone(1).features.state_dict(), weights)
    with pytest.raises(ModelError, match=f"wanted sha256 {sha256}, got"):
        read_backbone(settings)
