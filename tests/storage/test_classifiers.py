"""Packages of classifiers: what is saved is loaded, what is altered refused, and neither kind passes for the other."""

import json
from pathlib import Path

import pytest
import torch

from stylejobs.core.networks import build_network
from stylejobs.core.networks.classifier import Classifier
from stylejobs.errors import ModelError
from stylejobs.storage.classifiers import load_classifier
from stylejobs.storage.packages import CLASSIFIER, load_package, save_package

OPTIONS = {"classes": ["T-Shirt", "Not sure"], "width": 4, "size_px": 40}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save_package(str(tmp_path / "named"), CLASSIFIER, OPTIONS, Classifier(**OPTIONS).state_dict(), {}, {"steps": 3})
    return str(tmp_path / "named")


def test_what_is_saved_is_loaded(folder):
    torch.manual_seed(0)
    wanted, image = Classifier(**OPTIONS), torch.rand(2, 3, 40, 50)
    sha256 = json.loads(Path(folder, "model.json").read_text())["sha256"]
    loaded = load_classifier(folder, sha256)
    assert (loaded.classes, loaded.size_px, loaded.sha256) == (("T-Shirt", "Not sure"), 40, sha256)
    assert torch.equal(loaded.network(image), wanted(image))
    assert not loaded.network.training and not any(weight.requires_grad for weight in loaded.network.parameters())
    card = Path(folder, "card.md").read_text()
    assert "Classes: T-Shirt, Not sure." in card and "steps: 3" in card
    assert {path.suffix for path in Path(folder).rglob("*") if path.is_file()} == {".json", ".md", ".safetensors"}


def test_another_digest_and_altered_files_are_refused(folder):
    with pytest.raises(ModelError, match="wanted the model 000"):
        load_classifier(folder, "000")
    described = json.loads(Path(folder, "model.json").read_text())
    altered = {**described, "options": {**OPTIONS, "classes": ["Not sure", "T-Shirt"]}}
    Path(folder, "model.json").write_text(json.dumps(altered))
    with pytest.raises(ModelError, match=r"model\.json was altered"):
        load_classifier(folder)
    Path(folder, "model.json").write_text(json.dumps(described))
    weights = Path(folder, "weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match=r"weights\.safetensors: was altered"):
        load_classifier(folder)


def test_weights_of_another_classifier_do_not_fit(tmp_path):
    other = Classifier(("a", "b", "c"), width=4).state_dict()
    save_package(str(tmp_path), CLASSIFIER, OPTIONS, other, {}, {})
    with pytest.raises(ModelError, match="do not fit the classifier"):
        load_classifier(str(tmp_path))
    save_package(str(tmp_path), CLASSIFIER, {"classes": ["alone"]}, other, {}, {})
    with pytest.raises(ModelError, match="at least two classes"):
        load_classifier(str(tmp_path))


def test_a_classifier_stylizes_nothing_and_a_generator_names_nothing(folder, tmp_path):
    with pytest.raises(ModelError, match="is a classifier, which names what is in a picture and makes none"):
        load_package(folder)
    network = build_network("johnson", width=4, blocks=1)
    save_package(
        str(tmp_path / "j"), "johnson", {"width": 4, "blocks": 1}, network.state_dict(), {"a": torch.zeros(0)}, {}
    )
    with pytest.raises(ModelError, match="holds the generator 'johnson'; wanted a classifier"):
        load_classifier(str(tmp_path / "j"))
