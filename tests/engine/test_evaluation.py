"""The evaluation of a generator in training: which pixels it sees, and that it leaves no trace."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from stylejobs.core.metrics import edge_cosine
from stylejobs.core.networks import build_network
from stylejobs.core.panel import Panel
from stylejobs.core.pixels import to_float
from stylejobs.engine.evaluation import Evaluation
from stylejobs.errors import DecodeError
from stylejobs.records.codec import Limits, encode_image

SIDE_PX, NUM = 32, 10
CPU = torch.device("cpu")


class Recorded(nn.Module):
    """Makes images brighter by the first number of the code, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.given: list[tuple[Tensor, Tensor]] = []

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        self.given.append((content_BCHW, style_BD))
        return self.weight * content_BCHW + style_BD[:, :1, None, None]


def squares(photos: dict[str, np.ndarray], names: tuple[str, ...], num: int) -> list[np.ndarray]:
    """Pieces of photographs, uint8 [48, 64, 3]."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(num):
        photo = photos[names[number % len(names)]]
        y, x = (int(rng.integers(side - 192)) for side in photo.shape[:2])
        found.append(photo[y : y + 144 : 3, x : x + 192 : 3])
    return found


@pytest.fixture(scope="module")
def pieces(photos) -> tuple[list[np.ndarray], list[np.ndarray]]:
    styles = squares(photos, ("astronaut", "rocket", "flower"), 24)
    painted = [255 - ndimage.median_filter(piece, (5, 5, 1)) for piece in styles]
    return squares(photos, ("chelsea", "coffee", "flower"), NUM), painted


@pytest.fixture(scope="module")
def encoded(pieces) -> tuple[list[bytes], list[bytes]]:
    return tuple([encode_image(piece, "png", 90) for piece in some] for some in pieces)


@pytest.fixture(scope="module")
def evaluation(encoded) -> Evaluation:
    return Evaluation(*encoded, SIDE_PX, Limits(), CPU, load_px=48)


def to_tensor(pieces: list[np.ndarray]) -> Tensor:
    return to_float(torch.from_numpy(np.stack(pieces)))


def test_middle_squares_are_stylized_in_turn_and_measured_as_pixels_are(evaluation, pieces):
    generator = Recorded().eval()
    found = evaluation.measure(generator, {"dark": torch.tensor([-0.5, 9.0]), "light": torch.tensor([0.25, 9.0])})
    content, style = (to_tensor([piece[8:40, 16:48] for piece in some]) for some in pieces)
    assert torch.equal(torch.cat([given for given, _ in generator.given]), content)
    assert all(len(given) <= 8 for given, _ in generator.given)
    codes = torch.cat([code for _, code in generator.given])[:, 0]
    assert codes.tolist() == [-0.5, 0.25] * (NUM // 2)
    made = (content + codes[:, None, None, None]).clamp(-1, 1)
    assert found.pop("images_per_second") > 0
    assert found == Panel(content, style).measure(made)
    assert found["content"] == pytest.approx(edge_cosine(made, content).mean().item())


def test_without_load_px_the_square_is_of_the_whole_picture(encoded, pieces):
    generator = Recorded().eval()
    Evaluation(*encoded, SIDE_PX, Limits(), CPU).measure(generator, {"as it is": torch.zeros(1)})
    scaled = [np.asarray(Image.fromarray(piece).resize((43, 32), Image.Resampling.LANCZOS)) for piece in pieces[0]]
    expected = to_tensor([picture[:, 5:37] for picture in scaled])
    assert torch.equal(torch.cat([given for given, _ in generator.given]), expected)


def test_the_training_does_not_notice(evaluation):
    torch.manual_seed(3)
    generator = build_network("resnet", width=4, blocks=1)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    generator.eval()
    first, second = (evaluation.measure(generator, {"only": torch.zeros(0)}) for _ in range(2))
    assert {**first, "images_per_second": 0.0} == {**second, "images_per_second": 0.0}
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert torch.is_grad_enabled()
    assert all(weight.grad is None and weight.requires_grad for weight in generator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_making_one_draws_nothing_either(encoded):
    before = torch.get_rng_state()
    Evaluation(*encoded, SIDE_PX, Limits(), CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_diverged_generator_has_no_numbers(evaluation):
    generator = Recorded().eval()
    with torch.no_grad():
        generator.weight.fill_(torch.nan)
    found = evaluation.measure(generator, {"only": torch.zeros(1)})
    assert all(np.isnan(found[name]) for name in ("content", "style", "style_raw", "balanced"))


@pytest.mark.parametrize(("style_size_px", "side_px"), [(96, 48), (60, 40), (None, 32)])
def test_one_style_image_is_cut_at_the_scale_it_is_learned_at(encoded, photos, style_size_px, side_px):
    one = [encode_image(255 - photos["astronaut"][:300, 50:450], "png", 90)]
    evaluation = Evaluation(encoded[0], one, 48, Limits(), CPU, style_size_px=style_size_px)
    generator = Recorded().eval()
    evaluation.measure(generator, {"only": torch.zeros(1)})
    assert generator.given[0][0].shape[-2:] == (side_px, side_px)


def test_what_cannot_be_evaluated_is_refused(evaluation, encoded):
    content, style = encoded
    generator = Recorded()
    with pytest.raises(ValueError, match="evaluation mode"):
        evaluation.measure(generator, {"only": torch.zeros(1)})
    with pytest.raises(ValueError, match="styles"):
        evaluation.measure(generator.eval(), {})
    with pytest.raises(ValueError, match="got 0 and 24"):
        Evaluation([], style, SIDE_PX, Limits(), CPU)
    with pytest.raises(ValueError, match="at least 8 contents"):
        Evaluation(content[:7], style, SIDE_PX, Limits(), CPU)
    with pytest.raises(ValueError, match="load_px of at least side_px"):
        Evaluation(content, style, SIDE_PX, Limits(), CPU, load_px=31)
    with pytest.raises(DecodeError):
        Evaluation([b"no image", *content], style, SIDE_PX, Limits(), CPU)
