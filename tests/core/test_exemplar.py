import math

import pytest
import torch
from torch import Tensor

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.draws import Draws
from stylejobs.core.methods import Exemplar, ExemplarOptions, Ingredients, Step, build_method, moment_at, take_step
from stylejobs.core.methods.adain import Painter
from stylejobs.core.methods.judges import StyleJudge

GENERATOR = {"latent": 8, "width": 4, "size_px": 32, "width_scale": 0.1}
CRITIC = {"width": 4}
INVENT, APPLY = 0, 60


def build(generator: dict | None = None, critic: dict | None = None, **options) -> Exemplar:
    torch.manual_seed(0)
    ingredients = Ingredients(
        generator or GENERATOR, critic or CRITIC, build_random_backbone(0), {"monet": draw(1, 9)}, ("photo", "monet")
    )
    return build_method("exemplar", ingredients, **options)


def draw(batch: int, seed: int, size_px: int = 32) -> Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make_step(method, images_seen: int, number: int = 1, seed: int = 0, augment: float = 0.0) -> Step:
    moment = moment_at(method.phases, number, images_seen, 100, Draws(torch.Generator().manual_seed(seed)), augment)
    return Step({"content": draw(2, 1), "style": draw(2, 2) * 0.3 + 0.5}, moment)


def draw_noise(seed: int = 0) -> Tensor:
    return torch.randn(2, GENERATOR["latent"], generator=torch.Generator().manual_seed(seed))


def slope_penalty(critic, real: Tensor, fake: Tensor, share_B: Tensor) -> float:
    """(|slope| - 1)^2 by central differences along the slope's own direction, image by image, in float64."""
    found = []
    for row, share in enumerate(share_B):
        mixed = (share * real[row] + (1 - share) * fake[row]).double()[None].requires_grad_()
        (slope,) = torch.autograd.grad(critic(mixed).mean(), mixed)
        along = slope / slope.norm()
        with torch.no_grad():
            rise = critic(mixed + 1e-5 * along).mean() - critic(mixed - 1e-5 * along).mean()
        found.append((rise.item() / 2e-5 - 1) ** 2)
    return sum(found) / len(found)


def test_the_losses_of_the_critic_are_their_formulas():
    method = build()
    step = make_step(method, INVENT)
    turn = method.take_turn("critic", method.networks, step)
    rng = torch.Generator().manual_seed(0)
    noise, share_B = torch.randn(2, 8, generator=rng), torch.rand(2, generator=rng)
    critic, fake = method.networks["critic"], method.networks["exemplars"](noise).detach()
    real = step.batch["style"]
    expected = {
        "critic": (critic(fake).mean() - critic(real).mean()).item(),
        "drift": critic(real).square().mean().item(),
        "gradient_penalty": slope_penalty(critic.double(), real, fake, share_B),
    }
    assert {name: term.item() for name, term in turn.terms.items()} == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert set(turn.signals) == {"accuracy"}


def test_the_losses_of_the_exemplars_are_their_formulas():
    method = build()
    terms = method.take_turn("exemplars", method.networks, make_step(method, INVENT)).terms
    logits = method.networks["critic"](method.networks["exemplars"](draw_noise()))[:, 0].double()
    p = (1 / (1 + (-logits).exp())).mean().item()
    expected = {"adversarial": -logits.mean().item(), "entropy": p * math.log(p) + (1 - p) * math.log(1 - p)}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_the_decoder_learns_from_exemplars_as_adain_does_from_images():
    method = build()
    step = make_step(method, APPLY)
    terms = method.take_turn("decoder", method.networks, step).terms
    with torch.no_grad():
        exemplars = method.networks["exemplars"](draw_noise())
    painter = Painter(method.generator.adain, StyleJudge("moments", build_random_backbone(0)))
    expected = painter.take_turn(method.networks, make_step(method, APPLY), exemplars).terms
    torch.testing.assert_close(terms, expected)
    assert terms["content"].requires_grad
    assert step.kept["stylized"].shape == (2, 3, 32, 32)


def test_who_moves_when():
    """Step 1: the critic in every step, the exemplars in every third. Step 2: the decoder alone."""
    method = build(critic_steps=3)
    optimizers = method.build_optimizers(method.networks)
    for images_seen, number, movers in (
        (INVENT, 1, {"critic"}),
        (40, 3, {"critic", "exemplars"}),
        (50, 3, {"decoder"}),
    ):
        before = {name: [w.clone() for w in net.parameters()] for name, net in method.networks.items()}
        losses = take_step(method, method.networks, optimizers, make_step(method, images_seen, number)).losses
        moved = {
            name
            for name, net in method.networks.items()
            if any(not torch.equal(new, old) for new, old in zip(net.parameters(), before[name], strict=True))
        }
        assert moved == movers
        assert {name.removeprefix("total/") for name in losses if name.startswith("total/")} == movers


def test_phases_and_published_numbers():
    method = build(phases=(0.25, 0.75))
    assert [(phase.name, phase.share, phase.players) for phase in method.phases] == [
        ("invent", 0.25, ("critic", "exemplars")),
        ("apply", 0.75, ("decoder",)),
    ]
    assert method.phases[0].every == {"exemplars": 5}
    names = ("gradient_penalty", "drift", "entropy", "style")
    assert [method.weights[name] for name in names] == [10.0, 1e-3, 0.01, 10.0]
    assert {method.players[name].betas for name in ("critic", "exemplars")} == {(0.0, 0.9)}
    assert [name for name, player in method.players.items() if player.is_critic] == ["critic"]
    assert method.players["decoder"].schedule.at(0.0, 160_000) == pytest.approx(0.5)
    rated = build(learning_rate=3e-3, critic_learning_rate=2e-4)
    assert [rated.players[name].learning_rate for name in ("critic", "exemplars", "decoder")] == [2e-4, 2e-4, 3e-3]


def test_each_objective_falls():
    method = build(critic_learning_rate=2e-3, learning_rate=5e-3, critic_steps=99)
    optimizers = method.build_optimizers(method.networks)
    for player, images_seen in (("critic", INVENT), ("decoder", APPLY)):
        found = [
            take_step(method, method.networks, optimizers, make_step(method, images_seen)).losses[f"total/{player}"]
            for _ in range(25)
        ]
        assert found[-1] < found[0] - 0.2 * abs(found[0]), player


def test_exemplars_learn_to_please_the_critic():
    method = build(critic_learning_rate=2e-3)
    optimizer = method.build_optimizers(method.networks)["exemplars"]
    found = []
    for _ in range(15):
        terms = method.take_turn("exemplars", method.networks, make_step(method, INVENT)).terms
        loss = sum(method.weights[name] * term for name, term in terms.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < found[0]


def test_the_critic_sees_augmented_images_of_its_size():
    method, seen = build(), []
    method.networks["critic"].register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach()))
    step = make_step(method, INVENT)
    step = Step({**step.batch, "style": draw(2, 2, 50)}, step.moment)  # larger than exemplars
    method.take_turn("critic", method.networks, step)
    assert {image.shape[-2:] for image in seen} == {(32, 32)}
    plain = seen[:2]
    seen.clear()
    augmented = Step(step.batch, make_step(method, INVENT, augment=1.0).moment)
    method.take_turn("critic", method.networks, augmented)
    assert not any(torch.equal(a, b) for a, b in zip(plain, seen[:2], strict=True))


def test_styles_are_drawn_and_differ():
    method = build()
    codes = method.styles()
    assert list(codes) == [f"random:{seed}" for seed in range(8)]
    assert {code.shape for code in codes.values()} == {(method.generator.style_dim,)}
    values = list(codes.values())
    for index, code in enumerate(values):
        torch.testing.assert_close(code, method.generator.draw_style(index), rtol=0.0, atol=0.0)
        assert all((code - other).abs().max() > 1e-4 for other in values[:index])
    content = draw(2, 3)
    with torch.no_grad():
        first, second = method.generator(content, torch.stack(values[:2]))
        again, _ = method.generator(content, torch.stack([values[1], values[0]]))
    assert not torch.equal(first, again)
    assert first.shape == second.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phases": (0.2, 0.4, 0.4)}, r"2 shares \(invent, apply\).*got \(0.2, 0.4, 0.4\)"),
        ({"phases": (0.5, 0.6)}, "add up to 1"),
        ({"phases": (1.0, 0.0)}, "the last above 0"),
        ({"critic_steps": 0}, "got critic_steps=0"),
        ({"entropy_weight": -0.1}, "got entropy_weight=-0.1"),
        ({"beta2": 1.0}, "got beta2=1.0"),
        ({"critic_learning_rate": 0.0}, "got critic_learning_rate=0.0"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        ExemplarOptions(**options)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"critic": {"name": "dcgann"}}, "did you mean 'dcgan'"),
        ({"generator": {**GENERATOR, "size_px": 33}}, "a power of two"),
        ({"gan": "lsgan"}, "cannot be built"),
    ],
)
def test_what_it_refuses(given, words):
    with pytest.raises(ValueError, match=words):
        build(**given)
