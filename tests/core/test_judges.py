import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.losses import gaussian_wasserstein, mrf_loss, sliced_wasserstein
from stylejobs.core.methods.judges import CONTENT_KINDS, STYLE_KINDS, ContentJudge, StyleJudge, scale_to_target

LAYERS = ("fire2", "fire4")
every_content_kind = pytest.mark.parametrize("kind", CONTENT_KINDS)
every_style_kind = pytest.mark.parametrize("kind", STYLE_KINDS)


class WideBackbone(nn.Module):
    """Stands for a VGG with its classifier, which has 120 million weights: fc6 and fc7 are means and maxima."""

    name, content_layer, style_layers = "wide", "fc6", ("fc6",)
    layers = ("fc6", "fc7")

    def __init__(self):
        super().__init__()
        self.body = build_random_backbone(0)

    def forward(self, image: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
        features = self.body(image, ("fire4",))["fire4"]
        found = {"fc6": features.mean(dim=(2, 3), keepdim=True), "fc7": features.amax(dim=(2, 3), keepdim=True)}
        return {layer: found[layer] for layer in layers}


def draw(batch: int, seed: int, size_px: int = 36) -> Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def judge_content(kind: str) -> ContentJudge:
    if kind == "fc6_fc7":
        return ContentJudge(kind, WideBackbone())
    return ContentJudge(kind, build_random_backbone(0) if kind == "perceptual" else None)


def judge_style(kind: str, image: Tensor, style: Tensor, layers: tuple[str, ...] | None = LAYERS) -> Tensor:
    return StyleJudge(kind, build_random_backbone(0), layers)(image, style, torch.Generator().manual_seed(0))


def features(image: Tensor, layer: str) -> np.ndarray:
    return build_random_backbone(0)(image, (layer,))[layer].double().numpy()


def relative(found: np.ndarray, target: np.ndarray) -> float:
    """Of one row or of many: mean over rows of |f - t|^2 / |t|^2."""
    return float(np.mean([((f - t) ** 2).sum() / (t**2).sum() for f, t in zip(found, target, strict=True)]))


def test_content_judges_are_their_formulas():
    image, content = draw(2, 0), draw(2, 1)
    gap = (image - content).double().numpy()
    wide = [WideBackbone()(x, ("fc6", "fc7")) for x in (image, content)]
    expected = {
        "l1": np.abs(gap).mean(),
        "l2": (gap**2).mean(),
        "perceptual": relative(features(image, "fire4"), features(content, "fire4")),
        "fc6_fc7": np.mean([relative(wide[0][x].numpy(), wide[1][x].numpy()) for x in ("fc6", "fc7")]),
    }
    assert set(expected) == set(CONTENT_KINDS)
    for kind, wanted in expected.items():
        assert judge_content(kind)(image, content).item() == pytest.approx(wanted, rel=1e-4), kind
    named = ContentJudge("perceptual", build_random_backbone(0), "fire3")
    wanted = relative(features(image, "fire3"), features(content, "fire3"))
    assert named(image, content).item() == pytest.approx(wanted, rel=1e-4)


def gram_by_hand(found: np.ndarray, target: np.ndarray) -> float:
    grams = [np.einsum("chw,dhw->cd", f, f) / f.size for f in (found, target)]
    return np.linalg.norm(grams[0] - grams[1]) / np.linalg.norm(grams[1])


def moments_by_hand(found: np.ndarray, target: np.ndarray) -> float:
    (mean, std), (wanted_mean, wanted_std) = ((f.mean((1, 2)), f.std((1, 2))) for f in (found, target))
    return np.mean((mean - wanted_mean) ** 2 + (std - wanted_std) ** 2) / np.mean(target**2)


@pytest.mark.parametrize(("kind", "by_hand"), [("gram", gram_by_hand), ("moments", moments_by_hand)])
def test_gram_and_moments_are_their_formulas(kind, by_hand):
    image, style = draw(2, 0), draw(2, 1, 40)
    pairs = [(features(image, layer)[row], features(style, layer)[row]) for layer in LAYERS for row in (0, 1)]
    wanted = np.mean([by_hand(found, target) for found, target in pairs])
    assert judge_style(kind, image, style).item() == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("kind", ["wasserstein", "sliced", "mrf"])
def test_the_other_style_judges_are_losses_over_the_energy_of_the_target(kind):
    rng = torch.Generator().manual_seed(0)
    losses = {
        "wasserstein": gaussian_wasserstein,
        "sliced": lambda found, target: sliced_wasserstein(found, target, 64, rng),
        "mrf": mrf_loss,
    }
    image, style, found = draw(1, 0), draw(1, 1, 40), []
    for layer in LAYERS:
        f, t = (torch.from_numpy(features(x, layer)) for x in (image, style))
        found.append(losses[kind](f, t).item() / t.square().mean().item())  # all are quadratic in the features
    assert judge_style(kind, image, style).item() == pytest.approx(np.mean(found), rel=1e-3)


@every_content_kind
def test_content_is_zero_at_the_content_and_above_it_elsewhere(kind):
    judge, content = judge_content(kind), draw(2, 0)
    assert judge(content, content).item() == 0.0
    near, far = judge(content + 0.05 * draw(2, 1), content), judge(draw(2, 1), content)
    assert 0.0 < near.item() < far.item()


@every_style_kind
def test_style_is_zero_at_the_style_and_above_it_elsewhere(kind):
    style = draw(2, 0)
    assert judge_style(kind, style, style).item() == pytest.approx(0.0, abs=2e-6)
    flat = torch.full_like(style, 0.3)
    near, far = judge_style(kind, style + 0.05 * draw(2, 1), style), judge_style(kind, flat, style)
    assert 2e-6 < near.item() < far.item()


@pytest.mark.parametrize("kind", ["gram", "moments", "wasserstein", "sliced"])
def test_style_does_not_ask_where_things_are(kind):
    """Mirrored features are the same set; `mrf` alone looks at neighbourhoods."""
    backbone = build_random_backbone(0)
    found = backbone(draw(1, 0), ("fire2",))["fire2"]
    loss = STYLE_KINDS[kind](found.flip(3), found, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0.0, abs=2e-6)


@every_content_kind
def test_content_of_a_batch_is_the_mean_of_its_rows(kind):
    judge, image, content = judge_content(kind), draw(2, 0), draw(2, 1) * torch.tensor([1.0, 0.1])[:, None, None, None]
    rows = [judge(image[row : row + 1], content[row : row + 1]).item() for row in (0, 1)]
    assert judge(image, content).item() == pytest.approx(sum(rows) / 2, rel=1e-4)


@every_style_kind
def test_style_of_a_batch_is_the_mean_of_its_rows(kind):
    image, style = draw(2, 0), draw(2, 1) * torch.tensor([1.0, 0.1])[:, None, None, None]
    rows = [judge_style(kind, image[row : row + 1], style[row : row + 1]).item() for row in (0, 1)]
    assert judge_style(kind, image, style).item() == pytest.approx(sum(rows) / 2, rel=1e-4)


@every_style_kind
def test_gradients_reach_the_image_alone(kind):
    image, style = draw(1, 0).requires_grad_(), draw(1, 1).requires_grad_()
    judge_style(kind, image, style).backward()
    assert style.grad is None
    assert image.grad.isfinite().all()
    assert image.grad.abs().max() > 0.0


@pytest.mark.parametrize("kind", ["perceptual", "fc6_fc7"])
def test_the_content_is_a_target_without_gradient(kind):
    image, content = draw(1, 0).requires_grad_(), draw(1, 1).requires_grad_()
    judge_content(kind)(image, content).backward()
    assert content.grad is None
    assert image.grad.abs().max() > 0.0


@every_style_kind
def test_the_scale_of_features_does_not_matter(kind):
    backbone = build_random_backbone(0)
    found, target = (backbone(draw(1, seed), ("fire3",))["fire3"] for seed in (0, 1))
    losses = [
        STYLE_KINDS[kind](scale * found, scale * target, torch.Generator().manual_seed(0)).item()
        for scale in (1.0, 30.0)
    ]
    # 1e-5 is added under the root of the deviations
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_scaling_to_a_target_without_energy_stays_finite():
    found, target = scale_to_target(torch.ones(2, 3, 4, 4, dtype=torch.bfloat16), torch.zeros(2, 3, 4, 4))
    assert found.dtype == target.dtype == torch.float32
    assert found.isfinite().all()
    assert not target.any()


def test_default_layers_are_the_backbones():
    backbone = build_random_backbone(0)
    assert ContentJudge("perceptual", backbone).layers == (backbone.content_layer,)
    assert ContentJudge("l1", backbone).layers == ()
    assert StyleJudge("gram", backbone).layers == backbone.style_layers
    assert not any(weight.requires_grad for weight in StyleJudge("gram", backbone).parameters())


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda b: ContentJudge("perceptuel", b), "did you mean 'perceptual'"),
        (lambda b: ContentJudge("perceptual", None), "content_kind=perceptual: wanted a backbone; got none"),
        (lambda b: ContentJudge("perceptual", b, "fire44"), "did you mean 'fire4'"),
        (lambda b: ContentJudge("fc6_fc7", b), "wanted a layer of random_squeezenet1_1_0 .*got 'fc6'"),
        (lambda b: StyleJudge("grams", b), "did you mean 'gram'"),
        (lambda b: StyleJudge("gram", None), "wants a backbone"),
        (lambda b: StyleJudge("gram", b, ("fire2", "fire33")), "did you mean 'fire3'"),
    ],
)
def test_what_they_refuse(build, words):
    with pytest.raises(ValueError, match=words):
        build(build_random_backbone(0))
