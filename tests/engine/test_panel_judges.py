"""Weights of LPIPS for an evaluation: pinned when it is planned, refused when they are others, or altered since."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torchvision import models

from stylejobs.config.perceptual import Perceptual
from stylejobs.engine.panel_judges import load_perceptual, pin_perceptual
from stylejobs.errors import ModelError

CHANNELS = (64, 192, 384, 256, 256)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Trunk and heads of LPIPS with random weights."""
    heads = {f"lin{level}.model.1.weight": torch.rand(1, count, 1, 1) for level, count in enumerate(CHANNELS)}
    places = {"trunk_weights": tmp_path / "trunk.safetensors", "lpips_weights": tmp_path / "heads.safetensors"}
    for place, tensors in zip(places.values(), (models.alexnet().features.state_dict(), heads), strict=True):
        save_file(tensors, place)
    return {key: str(place) for key, place in places.items()}


def test_what_is_pinned_is_loaded_again(files):
    pinned = pin_perceptual(Perceptual(**files))
    assert len(pinned.digests) == 2
    lpips, inception = load_perceptual(pinned)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    assert inception is None
    assert lpips is not None and lpips(image, image.flip(0)).min() > 0


def test_nothing_is_read_where_nothing_is_asked_for():
    pinned = pin_perceptual(Perceptual())
    assert pinned.digests == [] and load_perceptual(pinned) == (None, None)


def test_weights_that_were_altered_since_are_refused(files):
    pinned = pin_perceptual(Perceptual(**files))
    heads = Path(files["lpips_weights"])
    heads.write_bytes(heads.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match=r"perceptual\.lpips_weights=.*wanted sha256"):
        load_perceptual(pinned)


def test_weights_of_another_network_and_missing_ones_end_the_plan(files, tmp_path):
    with pytest.raises(ModelError, match=r"perceptual\.trunk_weights=.*"):
        pin_perceptual(Perceptual(**files, trunk="vgg16"))
    with pytest.raises(ModelError, match="Inception v3"):
        pin_perceptual(Perceptual(inception_weights=files["trunk_weights"]))
    with pytest.raises(ModelError, match=r"perceptual\.lpips_weights=.*no such file"):
        pin_perceptual(Perceptual(**{**files, "lpips_weights": str(tmp_path / "none.pth")}))


@pytest.mark.parametrize("given", ["trunk_weights", "lpips_weights"])
def test_lpips_wants_both_of_its_files(given: str):
    with pytest.raises(ValidationError, match="wants both"):
        Perceptual(**{given: "weights.safetensors"})
