import pytest
import torch

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.draws import Draws
from stylejobs.core.losses import feature_loss, gram_distance, gram_matrix, total_variation
from stylejobs.core.methods import (
    METHODS,
    Fast,
    FastOptions,
    Ingredients,
    Method,
    Step,
    Turn,
    build_method,
    moment_at,
    take_step,
)

SMALL = {"width": 4, "blocks": 1}


def draw(batch: int, size_px: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def build(styles: list[torch.Tensor] | None = None, **options) -> Method:
    torch.manual_seed(0)
    styles = [draw(1, 40, 9)] if styles is None else styles
    images = {f"wave {index}": style for index, style in enumerate(styles)}
    ingredients = Ingredients(SMALL, {}, build_random_backbone(0), images, ("photos", "waves"))
    return build_method("fast", ingredients, **options)


def at(content: torch.Tensor, method: Method) -> Step:
    return Step({"content": content}, moment_at(method.phases, 1, 0, 100, Draws(torch.Generator().manual_seed(0))))


def turn(method: Method, content: torch.Tensor) -> Turn:
    return method.take_turn("generator", method.networks, at(content, method))


def step(method: Method, content: torch.Tensor) -> dict[str, float]:
    taken = take_step(method, method.networks, method.build_optimizers(method.networks), at(content, method))
    return {name: loss.item() for name, loss in taken.losses.items()}


def total(method: Method, content: torch.Tensor) -> torch.Tensor:
    return sum(method.weights[name] * term for name, term in turn(method, content).terms.items())


def test_what_the_loop_and_the_package_need():
    method = build()
    assert isinstance(method, Fast)
    assert METHODS["fast"] is Fast
    assert set(method.networks) == {"generator"} == set(method.build_optimizers(method.networks))
    assert method.generator is method.networks["generator"]
    assert (method.reads, method.needs_backbone) == (("content",), True)
    assert not any(weight.requires_grad for module in method.frozen.values() for weight in module.parameters())
    assert (method.generator_name, method.generator_options) == ("johnson", SMALL)
    assert {name: code.shape for name, code in method.styles().items()} == {"waves": (0,)}


def test_the_losses_are_their_formulas():
    style, content = draw(1, 40, 9), draw(2)
    method = build([style], content_layer="fire3", style_layers=("fire2", "fire4"))
    backbone = build_random_backbone(0)
    terms = turn(method, content).terms
    stylized = method.networks["generator"](content, torch.zeros(2, 0))
    found, wanted, of_style = (backbone(image, ("fire2", "fire3", "fire4")) for image in (stylized, content, style))
    distances = [gram_distance(gram_matrix(found[x]), gram_matrix(of_style[x])) for x in ("fire2", "fire4")]
    expected = {
        "content": feature_loss(found["fire3"], wanted["fire3"]) / of_style["fire3"].square().mean(),
        "style": sum(distances) / 2,
        "tv": total_variation(stylized),
    }
    assert set(terms) == set(expected) == set(method.weights)
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], rtol=1e-5, atol=1e-7)
        assert term.dtype == torch.float32


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
        weights = list(method.networks["generator"].parameters())
        return torch.cat([grad.flatten() for grad in torch.autograd.grad(total(method, content), weights)])

    method = build(content_weight=1.0, tv_weight=1.0)
    for module in (*method.networks.values(), *method.frozen.values()):
        module.double()
    content = draw(4).double()
    halves = (gradient(content[:2]) + gradient(content[2:])) / 2
    torch.testing.assert_close(halves, gradient(content), rtol=1e-6, atol=1e-9)


def test_losses_stay_float32_under_bfloat16():
    method = build()
    exact = total(method, draw(1))
    with torch.autocast("cpu", torch.bfloat16):
        rough = total(method, draw(1))
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)


def test_overfitting_one_image_halves_the_loss():
    method, content = build(learning_rate=5e-3, style_weight=1.0), draw(1)
    optimizers = method.build_optimizers(method.networks)
    step = at(content, method)
    losses = [take_step(method, method.networks, optimizers, step).losses["total/generator"] for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_several_style_images_are_averaged():
    styles = [draw(1, 40, 1), draw(1, 52, 2)]
    found = build(styles).frozen["targets"].get_buffer("gram_fire2")
    singles = [build([style]).frozen["targets"].get_buffer("gram_fire2") for style in styles]
    torch.testing.assert_close(found, (singles[0] + singles[1]) / 2)


@pytest.mark.parametrize("style", [torch.full((1, 3, 32, 32), -1.0), torch.full((1, 3, 32, 32), 0.2)])
def test_a_flat_style_image_stays_finite(style):
    assert all(torch.isfinite(torch.tensor(value)) for value in step(build([style]), draw(1)).values())


@pytest.mark.parametrize(
    "numbers",
    [{"style_weight": -1.0}, {"tv_weight": float("nan")}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}],
)
def test_options_out_of_range(numbers):
    with pytest.raises(ValueError, match="weights >= 0"):
        FastOptions(**numbers)


def test_unknown_layers_are_refused_when_built():
    with pytest.raises(ValueError, match="did you mean 'fire4'"):
        build(content_layer="fire44")
