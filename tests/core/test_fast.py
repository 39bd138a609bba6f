import pytest
import torch

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.losses import feature_loss, gram_distance, gram_matrix, total_variation
from stylejobs.core.methods import METHODS, Fast, FastOptions, Method, build_method

SMALL = {"width": 4, "blocks": 1}


def draw(batch: int, size_px: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def build(options: FastOptions | None = None, style: torch.Tensor | None = None) -> Method:
    torch.manual_seed(0)
    style = draw(1, 40, 9) if style is None else style
    backbone = build_random_backbone(0)
    return build_method(
        "fast", generator_options=SMALL, backbone=backbone, style_image_BCHW=style, style_name="waves", options=options
    )


def step(method: Method, content: torch.Tensor) -> dict[str, float]:
    optimizers = method.build_optimizers(method.networks)
    terms = {}
    for objective in method.objectives(method.networks, {"content": content}):
        optimizers[objective.player].zero_grad(set_to_none=True)
        objective.loss.backward()
        optimizers[objective.player].step()
        terms |= {name: term.item() for name, term in objective.terms.items()}
    return terms


def test_what_the_loop_and_the_package_need():
    method = build()
    assert isinstance(method, Fast)
    assert METHODS["fast"] is Fast
    assert set(method.networks) == {"generator"} == set(method.build_optimizers(method.networks))
    assert not any(weight.requires_grad for module in method.frozen.values() for weight in module.parameters())
    assert (method.generator_name, method.generator_options) == ("johnson", SMALL)
    assert {name: code.shape for name, code in method.styles.items()} == {"waves": (0,)}


def test_the_objective_is_its_formula():
    options = FastOptions("fire3", ("fire2", "fire4"), content_weight=0.7, style_weight=2.0, tv_weight=0.3)
    style, content = draw(1, 40, 9), draw(2)
    method, backbone = build(options, style), build_random_backbone(0)
    (objective,) = method.objectives(method.networks, {"content": content})
    stylized = method.networks["generator"](content, torch.zeros(2, 0))
    found, wanted, of_style = (backbone(image, ("fire2", "fire3", "fire4")) for image in (stylized, content, style))
    expected = {
        "content": 0.7 * feature_loss(found["fire3"], wanted["fire3"]) / of_style["fire3"].square().mean(),
        "style": sum(gram_distance(gram_matrix(found[x]), gram_matrix(of_style[x])) for x in ("fire2", "fire4")),
        "tv": 0.3 * total_variation(stylized),
    }
    expected["total"] = sum(expected.values())
    assert list(objective.terms) == ["content", "style", "tv", "total"]
    for name, term in objective.terms.items():
        torch.testing.assert_close(term, expected[name].detach(), rtol=1e-5, atol=1e-7)
        assert not term.requires_grad
        assert term.dtype == torch.float32
    torch.testing.assert_close(objective.loss.detach(), objective.terms["total"])


def test_gradients_reach_every_weight_and_nothing_frozen():
    method = build()
    before = {name: value.clone() for name, value in method.frozen["targets"].state_dict().items()}
    step(method, draw(2))
    for weight in method.networks["generator"].parameters():
        assert weight.grad is not None
        assert weight.grad.isfinite().all()
    for name, value in method.frozen["targets"].state_dict().items():
        assert torch.equal(value, before[name])


def test_two_workers_with_half_the_batch_give_one_workers_gradient():
    def gradient(content: torch.Tensor) -> torch.Tensor:
        (objective,) = method.objectives(method.networks, {"content": content})
        weights = list(method.networks["generator"].parameters())
        return torch.cat([grad.flatten() for grad in torch.autograd.grad(objective.loss, weights)])

    method = build(FastOptions(content_weight=1.0, tv_weight=1.0))
    for module in (*method.networks.values(), *method.frozen.values()):
        module.double()
    content = draw(4).double()
    halves = (gradient(content[:2]) + gradient(content[2:])) / 2
    torch.testing.assert_close(halves, gradient(content), rtol=1e-6, atol=1e-9)


def test_losses_stay_float32_under_bfloat16():
    method = build()
    with torch.autocast("cpu", torch.bfloat16):
        (objective,) = method.objectives(method.networks, {"content": draw(1)})
    assert objective.loss.dtype == torch.float32
    (exact,) = method.objectives(method.networks, {"content": draw(1)})
    assert objective.loss.item() == pytest.approx(exact.loss.item(), rel=0.05)


def test_overfitting_one_image_halves_the_loss():
    method, content = build(FastOptions(learning_rate=5e-3, style_weight=1.0)), draw(1)
    optimizers = method.build_optimizers(method.networks)
    losses = []
    for _ in range(40):
        (objective,) = method.objectives(method.networks, {"content": content})
        optimizers["generator"].zero_grad()
        objective.loss.backward()
        optimizers["generator"].step()
        losses.append(objective.loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_several_style_images_are_averaged():
    styles = torch.cat([draw(1, 40, 1), draw(1, 40, 2)])
    found = build(style=styles).frozen["targets"].get_buffer("gram_fire2")
    singles = [build(style=style[None]).frozen["targets"].get_buffer("gram_fire2") for style in styles]
    torch.testing.assert_close(found, (singles[0] + singles[1]) / 2)


@pytest.mark.parametrize("style", [torch.full((1, 3, 32, 32), -1.0), torch.full((1, 3, 32, 32), 0.2)])
def test_a_flat_style_image_stays_finite(style):
    assert all(torch.isfinite(torch.tensor(value)) for value in step(build(style=style), draw(1)).values())


@pytest.mark.parametrize(
    "numbers",
    [{"style_weight": -1.0}, {"tv_weight": float("nan")}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}],
)
def test_options_out_of_range(numbers):
    with pytest.raises(ValueError, match="weights >= 0"):
        FastOptions(**numbers)


def test_unknown_layers_are_refused_when_built():
    with pytest.raises(ValueError, match="did you mean 'fire4'"):
        build(FastOptions(content_layer="fire44"))
