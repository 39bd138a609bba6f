"""train -> register -> promote -> stylize: one small but real DDP training, looked at from all sides."""

import io
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from PIL import Image

from stylejobs.storage.packages import load_package
from tests.conftest import Outcome

pytestmark = pytest.mark.ray

Verb = Callable[..., Outcome]
TINY = (
    "method=fast", "name=tiny", "steps=6", "size_px=32", "style_size_px=48", "batch=2", "log_every=2", "sample_every=3",
    "generator.width=4", "generator.blocks=1", "ema=0.5",
)  # fmt: skip


@pytest.fixture
def shards(verb: Verb, photo_folder: Path) -> str:
    assert verb("ingest", f"source={photo_folder}", "dest=shards", "shard_mb=0.02").exit_code == 0
    return "shards"


def test_a_model_is_trained_registered_promoted_and_used(
    verb: Verb, shards: str, style_image: Path, tmp_path: Path, tracking_store: str
) -> None:
    trained = verb("train", *TINY, f"content={shards}", f"style={style_image}", "workers=2")
    assert trained.exit_code == 0, trained.stderr
    model = trained.result["model"]
    check_run(MlflowClient(tracking_store), trained.result)

    package = load_package(trained.result["details"]["package"], model["sha256"])
    assert package.package.styles == ("flower",)
    assert package.package.training["images_seen"] == 6 * 2 * 2
    raw = load_package(trained.result["details"]["package"] + "/raw")
    assert raw.package.weights_sha256 != package.package.weights_sha256

    promoted = verb("promote", "model=models:/tiny@candidate", "override=true", "reason=test")
    assert promoted.exit_code == 0 and promoted.result["model"]["version"] == model["version"]
    arguments = (
        "source=shards",
        "dest=out",
        "model=models:/tiny@champion",
        "cluster.actors=1",
        "unit_mb=0.02",
        "format=png",
    )
    made = verb("stylize", *arguments)
    assert made.exit_code == 0, made.stderr
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert len(rows) == 20
    assert {(row["model_name"], row["model_version"], row["model_sha256"]) for row in rows} == {
        ("tiny", model["version"], model["sha256"])
    }
    check_pyfunc(tracking_store, rows[0], tmp_path / "shards" / "data")
    check_that_a_moved_alias_changes_nothing(verb, tracking_store, arguments, tmp_path)


def test_a_gan_learns_two_labelled_domains_from_folders_and_mixes_them(
    verb: Verb, photo_folder: Path, tmp_path: Path, tracking_store: str
) -> None:
    """Two sets, two networks in DDPs, a critic that moves more often; then mixes, automatic strength and sharpening."""
    for number, label in enumerate(("night", "oil")):
        (tmp_path / "paintings" / label).mkdir(parents=True)
        for index in range(3):
            waves = np.sin(np.mgrid[0:40, 0:44] / (2.0 + number + index)).sum(axis=0)[..., None] * (60, 90, 120)
            Image.fromarray(np.uint8(waves / 2 + 128)).save(tmp_path / "paintings" / label / f"{index}.png")
    trained = verb(
        "train", "method=stargan", "name=domains", f"content={photo_folder}", "style=paintings", "steps=4", "workers=2",
        "batch=1", "size_px=32", "generator.width=4", "generator.blocks=1", "critic.width=4", "critic.layers=2",
        "optim.critic_steps=2", "log_every=1", "sample_every=2",
    )  # fmt: skip
    assert trained.exit_code == 0, trained.stderr
    package = load_package(trained.result["details"]["package"])
    assert package.package.styles == ("night", "oil")
    assert [code.tolist() for code in package.styles.values()] == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert package.match is not None
    run = MlflowClient(tracking_store).get_run(trained.result["mlflow"]["run_id"])
    assert {"loss/reconstruction", "loss/gradient_penalty", "signal/accuracy", "lr/critic"} <= set(run.data.metrics)

    made = verb(
        "stylize", f"source={photo_folder}", "dest=mixed", "model=models:/domains@candidate",
        "styles=night:0.7+oil:0.3,oil", "strength=auto", "preserve_colour=true", "deblur=unsharp", "cluster.actors=1",
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    rows = pq.read_table(tmp_path / "mixed" / "data", columns=["style", "strength", "blur_score"]).to_pylist()
    assert len(rows) == 20
    assert {row["style"] for row in rows} == {"night:0.7+oil:0.3", "oil"}
    assert all(0.0 <= row["strength"] <= 1.0 for row in rows) and len({row["strength"] for row in rows}) > 1
    assert all(row["blur_score"] > 0.0 for row in rows)


def check_run(client: MlflowClient, result: dict) -> None:
    run = client.get_run(result["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["generator.width"] == "4" and run.data.params["steps"] == "6"
    assert "critic.width" not in run.data.params
    data = {one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs}
    assert set(data) == {"content"} and all(data.values())
    assert {"stylejobs.code_sha256", "stylejobs.lock_sha256", "stylejobs.config_sha256"} <= run.data.tags.keys()
    assert {"lr/generator", "gradient_norm/generator", "images_per_second", "memory/rss_mb"} <= run.data.metrics.keys()
    assert any(name.startswith("system/node-0/") for name in run.data.metrics)
    history = client.get_metric_history(run.info.run_id, "loss/style")
    assert [metric.step for metric in history] == [2, 4, 6]
    assert all(np.isfinite(metric.value) and metric.value > 0 for metric in history)
    images = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert any("samples" in path for path in images)
    version = client.get_model_version_by_alias("tiny", "candidate")
    assert str(version.version) == result["model"]["version"] and version.tags["sha256"] == result["model"]["sha256"]


def check_pyfunc(tracking_store: str, made: dict, shards: Path) -> None:
    """The registered model gives, to anybody, the pictures that the job wrote."""
    source = next(row for row in pq.read_table(shards).to_pylist() if row["key"] == made["key"])
    mlflow.set_tracking_uri(tracking_store)
    loaded = mlflow.pyfunc.load_model("models:/tiny@champion")
    answer = loaded.predict(pd.DataFrame({"image": [source["image"]["bytes"]]}), params={"format": "png"})
    ours = np.asarray(Image.open(io.BytesIO(answer["image"][0]))).astype(int)
    job = np.asarray(Image.open(io.BytesIO(made["image"]["bytes"]))).astype(int)
    # alone or in a micro-batch, the sums inside a convolution may round differently: one level at most
    assert ours.shape == job.shape and np.abs(ours - job).max() <= 1


def check_that_a_moved_alias_changes_nothing(
    verb: Verb, store: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    client = MlflowClient(store)
    old = client.get_model_version_by_alias("tiny", "champion")
    new = client.create_model_version("tiny", old.source, tags={"sha256": "0" * 64})
    client.set_registered_model_alias("tiny", "champion", new.version)
    next((tmp_path / "out" / "_stylejobs" / "units").glob("*.json")).unlink()
    again = verb("stylize", *arguments)
    assert again.exit_code == 0, again.stderr
    assert again.result["units"]["done"] == 1 and again.result["model"]["version"] == str(old.version)


def test_a_version_that_does_not_exist_is_not_promoted(verb: Verb) -> None:
    outcome = verb("promote", "model=models:/unheard-of/7")
    assert outcome.exit_code == 2
    assert "models:/unheard-of/7 does not exist" in outcome.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("content=absent", "absent: nothing is there"),
        ("content=flower.png", "1 images are fewer than one step of 2 workers x batch 2"),
        ("style=absent.png", "absent.png: no such file"),
        ("backbone.weights=absent.pth", "absent.pth"),
        ("backbone.content_layer=relu9_9", "squeezenet1_1 has"),
        ("batch=64", "fewer than one step of 2 workers x batch 64"),
        ("method=slow", "slow"),
    ],
)
def test_what_a_training_needs_is_checked_before_it_starts(
    verb: Verb, shards: str, style_image: Path, change: str, said: str
) -> None:
    key = change.split("=")[0]
    usual = [*TINY, f"content={shards}", f"style={style_image}"]
    outcome = verb("train", *[argument for argument in usual if argument.split("=")[0] != key], change)
    assert outcome.exit_code == 2, outcome.stderr
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr
