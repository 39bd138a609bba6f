import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.draws import Draws
from stylejobs.core.losses import total_variation
from stylejobs.core.methods import ContentGan, ContentGanOptions, Ingredients, Step, build_method, moment_at, take_step
from stylejobs.core.methods.judges import CONTENT_KINDS, STYLE_KINDS, ContentJudge, StyleJudge

PATCH = {"width": 4, "layers": 1}
GENERATORS = {
    "resnet": {"width": 4, "blocks": 1},
    "label_conditioned": {"name": "label_conditioned", "width": 4, "blocks": 1},
    "style_modulated": {"name": "style_modulated", "width": 4, "style_dim": 8},
}
PHASES = ("pretrain", "critic", "joint")
SHARES = (0.2, 0.2, 0.6)
IMAGES_SEEN = {"pretrain": 10, "critic": 30, "joint": 70}
PARTS = {"style_modulated": {"synthesis", "mapping", "style_encoder"}}
JUDGES = {"content_layer": "fire3", "style_layers": ("fire2", "fire3")}
every_generator = pytest.mark.parametrize("name", GENERATORS)


def build(generator: dict | None = None, critic: dict | None = None, **options) -> ContentGan:
    torch.manual_seed(0)
    styles = {"waves": draw(1, 8, 40), "dots": draw(1, 9, 36)}
    ingredients = Ingredients(
        GENERATORS["resnet"] if generator is None else generator,
        critic or PATCH,
        build_random_backbone(0),
        styles,
        ("photo", "waves", "dots"),
    )
    return build_method("content_gan", ingredients, **{**JUDGES, "phases": SHARES, **options})


def draw(batch: int, seed: int, size_px: int = 32) -> Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make_step(method, phase: str, augment: float = 0.0) -> Step:
    moment = moment_at(method.phases, 1, IMAGES_SEEN[phase], 100, Draws(torch.Generator().manual_seed(0)), augment)
    assert moment.phase.name == phase
    batch = {"content": draw(2, 1), "style": draw(2, 2) * 0.4 + 0.5, "style_domain": torch.tensor([2, 1])}
    return Step(batch, moment)


def stylize(method, name: str, step: Step) -> Tensor:
    """The images of phase 3 by hand; of `style_modulated` also those in two styles of noise."""
    content, style = step.batch["content"], step.batch["style"]
    if name == "resnet":
        return method.generator(content, torch.zeros(2, 0))
    if name == "label_conditioned":
        return method.generator(content, torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    given, invented = method.generator.encode_style(style), method.networks["mapping"](noise)
    return torch.cat([method.generator(content, given), method.generator(content, invented)])


def rebuild(method, name: str, step: Step) -> Tensor:
    """The images of phase 1 by hand."""
    both = torch.cat([step.batch["content"], step.batch["style"]])
    codes = {"resnet": torch.zeros(4, 0), "label_conditioned": F.one_hot(torch.tensor([0, 0, 2, 1]), 3).float()}
    code = codes[name] if name in codes else method.generator.encode_style(both)
    return method.generator(both, code)


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


@every_generator
def test_phase_1_gives_images_of_both_domains_back(name):
    method = build(GENERATORS[name])
    step = make_step(method, "pretrain")
    terms = method.take_turn("generator", method.networks, step).terms
    both = torch.cat([step.batch["content"], step.batch["style"]])
    wanted = (rebuild(method, name, step) - both).abs().mean().item()
    assert values(terms) == pytest.approx({"reconstruction": wanted}, rel=1e-5)


@every_generator
def test_phase_2_tells_style_images_from_what_the_generator_makes(name):
    method = build(GENERATORS[name])
    step = make_step(method, "critic")
    turn = method.take_turn("critic", method.networks, step)
    critic, fake = method.networks["critic"], stylize(method, name, step).detach()
    wanted = 0.5 * ((critic(step.batch["style"]) - 1).square().mean() + critic(fake).square().mean())
    assert values(turn.terms) == pytest.approx({"critic": wanted.item()}, rel=1e-5)
    assert set(turn.signals) == {"accuracy"}


@every_generator
def test_the_losses_of_phase_3_are_their_formulas(name):
    method, backbone = build(GENERATORS[name]), build_random_backbone(0)
    step = make_step(method, "joint")
    terms = method.take_turn("generator", method.networks, step).terms
    critic_terms = method.take_turn("critic", method.networks, step).terms
    stylized, critic = stylize(method, name, step).detach(), method.networks["critic"]
    contents = torch.cat([step.batch["content"]] * (len(stylized) // 2))
    style = StyleJudge("gram", backbone, JUDGES["style_layers"])
    expected = {
        "content": ContentJudge("perceptual", backbone, "fire3")(stylized, contents),
        "style": style(stylized[:2], step.batch["style"], torch.Generator()),
        "tv": total_variation(stylized),
        "adversarial": (critic(stylized) - 1).square().mean(),
    }
    assert values(terms) == pytest.approx(values(expected), rel=1e-4)
    wanted = 0.5 * ((critic(step.batch["style"]) - 1).square().mean() + critic(stylized).square().mean())
    assert values(critic_terms) == pytest.approx({"critic": wanted.item()}, rel=1e-5)
    torch.testing.assert_close(step.kept["stylized"], stylized)


@every_generator
@pytest.mark.parametrize("phase", PHASES)
def test_who_moves_in_which_phase(name, phase):
    method = build(GENERATORS[name])
    generator = PARTS.get(name, {"generator"})
    assert set(method.networks) == generator | {"critic"}
    optimizers = method.build_optimizers(method.networks)
    before = {key: [w.clone() for w in network.parameters()] for key, network in method.networks.items()}
    take_step(method, method.networks, optimizers, make_step(method, phase))
    moved = {
        key
        for key, network in method.networks.items()
        if any(not torch.equal(new, old) for new, old in zip(network.parameters(), before[key], strict=True))
    }
    # an image has its own code in phase 1, so nothing is invented out of noise
    movers = {"pretrain": generator - {"mapping"}, "critic": {"critic"}, "joint": generator | {"critic"}}
    assert moved == movers[phase]


def test_phases_and_weights():
    method = build(content_weight=3.0, style_weight=2.0, adversarial_weight=0.5, tv_weight=0.1)
    assert tuple(phase.name for phase in method.phases) == PHASES
    assert [phase.share for phase in method.phases] == list(SHARES)
    assert [phase.players for phase in method.phases] == [("generator",), ("critic",), ("generator", "critic")]
    weights = {
        phase: [method.weight(name, make_step(method, phase).moment) for name in method.weights]
        for phase in ("pretrain", "joint")
    }
    assert list(method.weights) == ["reconstruction", "content", "style", "adversarial", "tv", "critic"]
    assert weights == {"pretrain": [10.0, 0.0, 0.0, 0.0, 0.0, 1.0], "joint": [0.0, 3.0, 2.0, 0.5, 0.1, 1.0]}


def test_rates():
    method = build(learning_rate=1e-3, critic_learning_rate=4e-3, beta1=0.3, decay_from=0.6)
    rates = {name: (player.learning_rate, player.is_critic) for name, player in method.players.items()}
    assert rates == {"generator": (1e-3, False), "critic": (4e-3, True)}
    for player in method.players.values():
        assert player.betas == (0.3, 0.999)
        assert [player.schedule.at(share) for share in (0.6, 0.8, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
    assert build().players["critic"].learning_rate == 2e-4


@every_generator
def test_each_phase_lowers_its_objective(name):
    method = build(GENERATORS[name], learning_rate=2e-3, adversarial_weight=0.0)
    optimizers = method.build_optimizers(method.networks)
    for phase in PHASES:
        player = "critic" if phase == "critic" else "generator"
        found = [
            take_step(method, method.networks, optimizers, make_step(method, phase)).losses[f"total/{player}"].item()
            for _ in range(20)
        ]
        assert found[-1] < 0.9 * found[0], phase


@pytest.mark.parametrize(
    "kinds",
    [
        *({"content_kind": kind} for kind in CONTENT_KINDS if kind != "fc6_fc7"),
        *({"style_kind": kind} for kind in STYLE_KINDS),
        *({"gan": gan} for gan in ("vanilla", "hinge")),
    ],
    ids=lambda kinds: "=".join(*kinds.items()),
)
def test_every_kind_of_loss_trains(kinds):
    method = build(**kinds)
    taken = take_step(method, method.networks, method.build_optimizers(method.networks), make_step(method, "joint"))
    assert taken.non_finite is None
    assert all(norm > 0.0 for norm in taken.gradient_norms.values())
    assert set(taken.gradient_norms) == {"generator", "critic"}


def test_the_critic_sees_augmented_images():
    method, seen = build(), []
    method.networks["critic"].register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach()))
    step = make_step(method, "joint", augment=1.0)
    for player in ("generator", "critic"):
        method.take_turn(player, method.networks, step)
    both = torch.cat([step.batch["style"], step.kept["stylized"].detach()])
    for found, original in zip(seen, (step.kept["stylized"], both), strict=True):
        assert not any(torch.equal(a, b) for a, b in zip(found, original, strict=True))


def test_styles_of_each_generator():
    resnet, labels, styled = (build(generator).styles() for generator in GENERATORS.values())
    assert {name: code.shape for name, code in resnet.items()} == {"waves": (0,), "dots": (0,)}
    assert {name: code.tolist() for name, code in labels.items()} == {"waves": [0.0, 1.0, 0.0], "dots": [0.0, 0.0, 1.0]}
    method = build(GENERATORS["style_modulated"])
    for (name, code), seed, size in zip(styled.items(), (8, 9), (40, 36), strict=True):
        torch.testing.assert_close(code, method.generator.encode_style(draw(1, seed, size))[0].detach(), msg=name)


def test_the_label_conditioned_generator_knows_all_domains():
    method = build(GENERATORS["label_conditioned"])
    assert method.generator_options == {"width": 4, "blocks": 1, "domains": 3}
    assert method.generator_name == "label_conditioned"
    assert build({"width": 4, "blocks": 1}).generator_name == "resnet"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phases": (0.5, 0.5)}, r"3 shares \(pretrain, critic, joint\).*got \(0.5, 0.5\)"),
        ({"phases": (0.5, 0.5, 0.0)}, "the last above 0"),
        ({"gan": "wgan_gp"}, "wanted a gan of content_gan"),
        ({"reconstruction_weight": 0.0}, "wanted reconstruction_weight > 0"),
        ({"content_weight": 0.0, "style_weight": 0.0, "adversarial_weight": 0.0}, "got none"),
        ({"beta1": 1.0}, "got beta1=1.0"),
        ({"decay_from": -0.1}, "got decay_from=-0.1"),
        ({"critic_learning_rate": 0.0}, "got critic_learning_rate=0.0"),
        ({"style_weight": -1.0}, "got style_weight=-1.0"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        ContentGanOptions(**options)


def test_without_a_first_phase_nothing_is_rebuilt():
    method = build(phases=(0.0, 0.25, 0.75), reconstruction_weight=0.0)
    moment = moment_at(method.phases, 1, 0, 100, Draws(torch.Generator()))
    assert moment.phase.name == "critic"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"generator": {"name": "resnett"}}, "did you mean 'resnet'"),
        ({"generator": {"name": "style_modulate"}}, "did you mean 'style_modulated'"),
        ({"generator": {"name": "johnson"}}, "wanted a generator of content_gan out of resnet, label_conditioned"),
        ({"critic": {"name": "patches"}}, "did you mean 'patch'"),
        ({"critic": {"name": "patch_domain"}}, "content_gan: wanted a critic of one domain"),
        ({"content_kind": "perceptuel"}, "did you mean 'perceptual'"),
        ({"style_kind": "grams"}, "did you mean 'gram'"),
        ({"pool": 3}, "cannot be built"),
    ],
)
def test_what_it_refuses(given, words):
    with pytest.raises(ValueError, match=words):
        build(**given)
