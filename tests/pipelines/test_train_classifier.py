"""train method=classifier: labels in, a registered classifier out; and what it must not be used for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from stylejobs.core.agreement import classify
from stylejobs.core.pixels import to_float
from stylejobs.storage.classifiers import load_classifier
from tests.conftest import Outcome

pytestmark = pytest.mark.ray

Verb = Callable[..., Outcome]
SMALL = (
    "method=classifier", "name=labels", "size_px=32", "load_px=36", "batch=6", "workers=1", "generator.width=4",
    "ema=0.8", "log_every=5", "optim.lr=3e-3", "augment.flip=0",
)  # fmt: skip


def stripes(number: int, axis: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    waves = np.sin(np.mgrid[0:40, 0:52][axis] / 2.0 + rng.uniform(0, 6))[..., None] * rng.uniform(40, 90, 3)
    return np.uint8((waves + 128 + rng.normal(0, 8, (40, 52, 3))).clip(0, 255))


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    for number in range(12):
        for label, axis in (("level lines", 0), ("upright", 1)):
            (tmp_path / "pictures" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(stripes(number, axis)).save(tmp_path / "pictures" / label / f"{number}.png")
    return "pictures"


def test_a_classifier_is_trained_registered_and_names_what_it_never_saw(
    verb: Verb, labelled: str, tmp_path: Path, tracking_store: str
) -> None:
    assert verb("ingest", f"source={labelled}", "dest=shards", "labels=folder").exit_code == 0
    first = verb("train", *SMALL, "content=shards", "steps=40")
    assert first.exit_code == 0, first.stderr
    loaded = load_classifier(first.result["details"]["package"], first.result["model"]["sha256"])
    assert loaded.classes == ("level lines", "upright") and loaded.size_px == 36
    unseen = [stripes(number, axis) for number in range(100, 110) for axis in (0, 1)]
    answers = classify(loaded.network, to_float(torch.from_numpy(np.stack(unseen))))
    assert (answers == torch.tensor([0, 1] * 10)).float().mean() > 0.9

    client = MlflowClient(tracking_store)
    run = client.get_run(first.result["mlflow"]["run_id"])
    assert {"loss/classification", "signal/correct", "lr/classifier"} <= run.data.metrics.keys()
    assert {one.dataset.name for one in run.inputs.dataset_inputs} == {"content"}
    version = client.get_model_version_by_alias("labels", "candidate")
    assert version.tags["sha256"] == loaded.sha256 and version.tags["method"] == "classifier"

    refused = verb("stylize", "source=shards", "dest=out", "model=models:/labels@candidate")
    assert refused.exit_code == 2, refused.stderr
    assert "is a classifier, which names what is in a picture and makes none" in refused.stderr
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.faults
def test_a_training_of_labels_goes_on_where_it_was(verb: Verb, labelled: str) -> None:
    told = (*SMALL, f"content={labelled}", "checkpoint.every=5")
    begun = verb("train", *told, "steps=5")
    gone_on = verb("train", *told, "steps=10", "resume=latest", "allow=steps")
    assert (begun.exit_code, gone_on.exit_code) == (0, 0), gone_on.stderr
    assert "going on from step 5 (30 images)" in gone_on.stderr
    assert (gone_on.result["details"]["steps"], gone_on.result["details"]["images_seen"]) == (10, 60)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("content=pictures/upright",), "holds images without a label; wanted a label for every image"),
        (("content=alone",), "holds one label, upright, alone"),
        (("content=pictures", "style=pictures/upright/0.png"), "is not read by method=classifier"),
        (("content=pictures", "evaluation.every_images=10"), "is not read by method=classifier"),
        (("content=pictures", "batch=64"), "24 images are fewer than one step of 1 workers x batch 64"),
        (("content=pictures", "generator.name=resnet"), "method=classifier trains with classifier"),
    ],
)
def test_what_cannot_be_learned_ends_before_it_starts(
    verb: Verb, labelled: str, tmp_path: Path, change: tuple[str, ...], said: str
) -> None:
    (tmp_path / "alone" / "upright").mkdir(parents=True)
    Image.fromarray(stripes(0, 1)).save(tmp_path / "alone" / "upright" / "0.png")
    keys = {text.split("=")[0] for text in change}
    outcome = verb("train", *(text for text in SMALL if text.split("=")[0] not in keys), *change)
    assert outcome.exit_code == 2, outcome.stderr
    assert said in outcome.stderr and "Traceback" not in outcome.stderr
    assert not (tmp_path / ".stylejobs" / "runs").exists()
