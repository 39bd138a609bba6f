import numpy as np
import pytest
import torch
from torch import Tensor

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.losses import gram_distance, gram_matrix
from stylejobs.core.methods.gatys import GatysOptions, optimise_images
from stylejobs.core.metrics import edge_cosine

LINE_SEARCH = 25  # evaluations at most in one of torch's line searches


def waves(phase: float, height: int = 40, width: int = 44) -> Tensor:
    rows, columns = torch.arange(height)[:, None] / 6.0, torch.arange(width)[None] / 5.0
    return torch.stack([torch.sin(rows * (k + phase) + phase) * torch.cos(columns + k * phase) for k in (1, 1.5, 2)])


CONTENT = torch.stack([waves(0.3), waves(2.1)])
STYLE = 0.7 * waves(1.1, 48, 48).abs().flip(2)[None]


def distance(image: Tensor, style: Tensor = STYLE) -> float:
    """Mean Gram distance over the style layers."""
    backbone = build_random_backbone(0)
    found, wanted = (backbone(x, backbone.style_layers) for x in (image, style))
    return np.mean([gram_distance(gram_matrix(found[x]), gram_matrix(wanted[x])).item() for x in found])


@pytest.fixture(scope="module")
def stylized() -> tuple[Tensor, list[float]]:
    return optimise_images(CONTENT, STYLE, build_random_backbone(0), GatysOptions(num_steps=60))


def test_the_first_loss_is_its_formula():
    backbone = build_random_backbone(0)
    options = GatysOptions("fire3", ("fire2", "fire4"), 7.0, 2.0, tv_weight=0.5, num_steps=1)
    _, losses = optimise_images(CONTENT, STYLE, backbone, options)
    found, wanted = (backbone(x, ("fire2", "fire4")) for x in (CONTENT, STYLE))
    squares = []
    for layer in ("fire2", "fire4"):
        flat, (target,) = (x[layer].double().numpy() for x in (found, wanted))
        target = np.einsum("chw,dhw->cd", target, target) / target.size
        grams = [np.einsum("chw,dhw->cd", f, f) / f.size for f in flat]
        squares += [((gram - target) ** 2).sum() / (target**2).sum() for gram in grams]
    pixels = CONTENT.double().numpy()
    tv = (np.abs(np.diff(pixels, axis=2)).sum() + np.abs(np.diff(pixels, axis=3)).sum()) / pixels.size
    # it begins at the content, whose content loss is 0
    assert losses[0] == pytest.approx(2.0 * np.mean(squares) + 0.5 * tv, rel=1e-4)


def test_the_loss_falls_and_the_result_is_an_image(stylized):
    image, losses = stylized
    assert losses[-1] < losses[0] / 5
    assert 60 <= len(losses) <= 60 + LINE_SEARCH
    assert image.shape == CONTENT.shape
    assert not image.requires_grad
    assert image.abs().max() <= 1.0


def test_every_row_takes_the_style(stylized):
    for row in (0, 1):
        assert distance(stylized[0][row : row + 1]) < distance(CONTENT[row : row + 1]) / 3


def test_every_row_keeps_its_own_content(stylized):
    own, other = edge_cosine(stylized[0], CONTENT), edge_cosine(stylized[0], CONTENT.flip(0))
    assert (own > 0.7).all()
    assert (own > other + 0.3).all()


def test_a_batch_is_about_its_rows():
    """One search for all rows, so they are not the same to the last digit."""
    options, backbone = GatysOptions(num_steps=30), build_random_backbone(0)
    together, losses = optimise_images(CONTENT, STYLE, backbone, options)
    alone = [optimise_images(CONTENT[row : row + 1], STYLE, backbone, options) for row in (0, 1)]
    assert losses[0] == pytest.approx(np.mean([row_losses[0] for _, row_losses in alone]), rel=1e-5)
    assert losses[-1] == pytest.approx(np.mean([row_losses[-1] for _, row_losses in alone]), rel=0.3)
    alone_BCHW = torch.cat([image for image, _ in alone])
    assert (together - alone_BCHW).abs().mean() < 0.7 * (together - CONTENT).abs().mean()


def test_more_weight_on_content_keeps_more_of_it():
    def content_kept(weight: float) -> float:
        options = GatysOptions(content_weight=weight, num_steps=10)
        image, _ = optimise_images(CONTENT[:1], STYLE, build_random_backbone(0), options)
        return (image - CONTENT[:1]).abs().mean().item()

    assert content_kept(300.0) < 0.5 * content_kept(0.0)


def test_a_style_for_every_row_is_its_rows_style():
    styles = torch.cat([STYLE, waves(0.5, 48, 48)[None]])
    image, _ = optimise_images(CONTENT, styles, build_random_backbone(0), GatysOptions(num_steps=25))
    for row in (0, 1):
        own, other = (distance(image[row : row + 1], styles[index : index + 1]) for index in (row, 1 - row))
        assert own < other


def test_nothing_that_is_given_changes():
    content, style, backbone = CONTENT.clone(), STYLE.clone(), build_random_backbone(0)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimise_images(content, style, backbone, GatysOptions(num_steps=2))
    assert torch.equal(content, CONTENT)
    assert torch.equal(style, STYLE)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert all(weight.grad is None for weight in backbone.parameters())


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"style_weight": -1.0}, "style_weight=-1.0"),
        ({"content_weight": float("nan")}, "content_weight=nan"),
        ({"num_steps": 0}, "num_steps >= 1"),
    ],
)
def test_options_out_of_range(numbers, words):
    with pytest.raises(ValueError, match=words):
        GatysOptions(**numbers)


@pytest.mark.parametrize(
    ("style", "options", "words"),
    [
        (STYLE.expand(3, -1, -1, -1), {}, "one for each of 2 content images; got 3"),
        (STYLE[..., :20], {}, "at least 32x32 px"),
        (STYLE, {"content_layer": "fire44"}, "did you mean 'fire4'"),
    ],
)
def test_what_it_refuses(style, options, words):
    with pytest.raises(ValueError, match=words):
        optimise_images(CONTENT, style, build_random_backbone(0), GatysOptions(**options))
