"""What `predict` takes beside the style; how MLflow loads the model is in tests/tracking."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch

from stylejobs.core.luma import keep_colour
from stylejobs.core.networks import build_network
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.engine.pyfunc_model import PackagedGenerator
from stylejobs.errors import StyleError
from stylejobs.records.codec import Limits, decode_image, encode_image
from stylejobs.storage.packages import save_package

SOURCE = np.random.default_rng(0).integers(0, 256, (21, 33, 3), np.uint8)


@pytest.fixture
def predict(tmp_path: Path) -> Callable[..., np.ndarray]:
    """predict(strength=0.5): pixels of the stylized SOURCE."""
    save_package(str(tmp_path), "moments", {}, {}, {"warm": torch.linspace(0.1, 0.6, 6)}, {})
    model = PackagedGenerator()
    model.load_context(SimpleNamespace(artifacts={"package": str(tmp_path)}))

    def call(**params: object) -> np.ndarray:
        frame = pandas.DataFrame({"image": [encode_image(SOURCE, "png", 90)]})
        return decode_image(model.predict(None, frame, {"format": "png", **params})["image"].iloc[0], Limits())

    return call


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_strength_and_colour(predict: Callable[..., np.ndarray], strength: float, colour: bool) -> None:
    content_BCHW = to_float(torch.from_numpy(SOURCE)[None])
    stylized_BCHW = build_network("moments")(content_BCHW, torch.linspace(0.1, 0.6, 6)[None])
    if colour:
        stylized_BCHW = keep_colour(stylized_BCHW, content_BCHW)
    wanted = to_uint8(content_BCHW + strength * (stylized_BCHW - content_BCHW))[0].numpy()
    found = predict(strength=strength, preserve_colour=colour)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_strength_zero_is_the_source_and_one_is_usual(predict: Callable[..., np.ndarray]) -> None:
    assert np.array_equal(predict(strength=0), SOURCE)
    assert np.array_equal(predict(), predict(strength=1.0)) and not np.array_equal(predict(), SOURCE)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_other_strengths_are_refused(predict: Callable[..., np.ndarray], strength: float) -> None:
    with pytest.raises(StyleError, match="wanted a number in \\[0, 1\\]"):
        predict(strength=strength)
