import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.augment import patch_mosaic
from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.draws import Draws
from stylejobs.core.methods import Fst, FstOptions, Ingredients, Step, build_method, moment_at, take_step
from stylejobs.core.methods.judges import CONTENT_KINDS, STYLE_KINDS, ContentJudge, StyleJudge

GENERATOR = {"width": 4, "steps": 3}
PATCH = {"width": 4, "layers": 1}
STAGES = ("encoder", "decoder", "interpolation")
LAYERS = ("content", "style", "all")
PHASES = tuple(f"{stage}/{layer}" for stage in STAGES for layer in LAYERS)
JUDGES = {"content_layer": "fire3", "style_layers": ("fire2", "fire3")}


def build(critic: dict | None = None, styles: dict[str, Tensor] | None = None, **options) -> Fst:
    torch.manual_seed(0)
    styles = {"waves": draw(1, 8, 40), "dots": draw(1, 9, 36)} if styles is None else styles
    ingredients = Ingredients(GENERATOR, critic or PATCH, build_random_backbone(0), styles, ("photo", "art"))
    return build_method("fst", ingredients, **{**JUDGES, **options})


def draw(batch: int, seed: int, size_px: int = 32) -> Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make_step(method, phase: str, seed: int = 0, augment: float = 0.0) -> Step:
    """In the middle of a phase."""
    index = PHASES.index(phase)
    images_seen = 10_000 * (sum(p.share for p in method.phases[:index]) + method.phases[index].share / 2)
    rng = torch.Generator().manual_seed(seed)
    moment = moment_at(method.phases, 1, int(images_seen), 10_000, Draws(rng), augment)
    assert moment.phase.name == phase
    return Step({"content": draw(2, 1), "style": draw(2, 2) * 0.4 + 0.5}, moment)


def judge(image: Tensor, content: Tensor, style: Tensor) -> dict[str, float]:
    backbone = build_random_backbone(0)
    found = {
        "content": ContentJudge("perceptual", backbone, "fire3")(image, content),
        "style": StyleJudge("gram", backbone, ("fire2", "fire3"))(image, style, torch.Generator()),
    }
    return {name: loss.item() for name, loss in found.items()}


def fool(method, image: Tensor) -> float:
    return (method.networks["critic"](image) - 1).square().mean().item()


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def test_the_encoder_gives_images_of_both_domains_back():
    method = build()
    step = make_step(method, "encoder/all")
    terms = method.take_turn("encoder", method.networks, step).terms
    images = torch.cat([step.batch["content"], step.batch["style"]])
    rebuilt = method.networks["reconstruction"](method.networks["encoder"](images), (32, 32)).detach()
    expected = judge(rebuilt, images, images)
    expected |= {"reconstruction": (rebuilt - images).abs().mean().item(), "adversarial": fool(method, rebuilt)}
    assert values(terms) == pytest.approx(expected, rel=1e-4)
    assert torch.equal(step.kept["real"], images)
    torch.testing.assert_close(step.kept["fake"], rebuilt)


def test_the_decoder_is_judged_after_each_refinement_step_and_later_ones_count_more():
    method = build()
    step = make_step(method, "decoder/all")
    terms = method.take_turn("decoder", method.networks, step).terms
    content, style = step.batch["content"], step.batch["style"]
    with torch.no_grad():
        levels, code = method.networks["encoder"](content), method.generator.encode_style(style)
        _, small = method.networks["decoder"](levels, code)
        images = [F.interpolate(image, (32, 32), mode="bilinear", align_corners=False) for image in small]
    assert [tuple(image.shape[-2:]) for image in small] == [(8, 8)] * 3
    by_step = [judge(image, content, style) for image in images]
    shares = np.array([0.8**2, 0.8, 1.0]) / (0.8**2 + 0.8 + 1.0)
    expected = {name: np.dot(shares, [found[name] for found in by_step]) for name in ("content", "style")}
    expected["adversarial"] = fool(method, images[-1])
    assert values(terms) == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(step.kept["fake"], images[-1])


def test_the_interpolation_is_judged_at_full_size():
    method = build()
    step = make_step(method, "interpolation/all")
    terms = method.take_turn("interpolation", method.networks, step).terms
    content, style = step.batch["content"], step.batch["style"]
    with torch.no_grad():
        stylized = method.generator(content, method.generator.encode_style(style))
    expected = {**judge(stylized, content, style), "adversarial": fool(method, stylized)}
    assert values(terms) == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(step.kept["stylized"], stylized)


@pytest.mark.parametrize("stage", STAGES)
def test_the_critic_tells_the_batch_from_what_the_stage_made(stage):
    method = build()
    step = make_step(method, f"{stage}/all")
    method.take_turn(stage, method.networks, step)
    turn = method.take_turn("critic", method.networks, step)
    content, style = step.batch["content"], step.batch["style"]
    real = torch.cat([content, style]) if stage == "encoder" else style
    critic = method.networks["critic"]
    wanted = 0.5 * ((critic(real) - 1).square().mean() + critic(step.kept["fake"]).square().mean())
    assert values(turn.terms) == pytest.approx({"critic": wanted.item()}, rel=1e-5)
    assert set(turn.signals) == {"accuracy"}


def test_the_layered_schedule():
    """Content, then style, then all with the adversarial term, within each stage."""
    method = build(phases=(0.5, 0.3, 0.2), content_weight=2.0, style_weight=3.0, adversarial_weight=0.1)
    assert tuple(phase.name for phase in method.phases) == PHASES
    assert sum(phase.share for phase in method.phases) == pytest.approx(1.0)
    for stage, share in zip(STAGES, (0.5, 0.3, 0.2), strict=True):
        of_stage = [phase for phase in method.phases if phase.name.startswith(stage)]
        assert [phase.share for phase in of_stage] == pytest.approx([0.1 * share, 0.1 * share, 0.8 * share])
        assert [phase.players for phase in of_stage] == [(stage,), (stage,), (stage, "critic")]
        found = [
            {name: method.weight(name, make_step(method, phase.name).moment) for name in method.weights}
            for phase in of_stage
        ]
        assert [(w["content"], w["style"], w["adversarial"]) for w in found] == [
            (2.0, 0.0, 0.0),
            (0.0, 3.0, 0.0),
            (2.0, 3.0, 0.1),
        ]
        assert [w["reconstruction"] for w in found] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("phase", PHASES)
def test_who_moves_in_which_phase_and_for_what(phase):
    method, (stage, layer) = build(), phase.split("/")
    step, optimizers = make_step(method, phase), method.build_optimizers(method.networks)
    before = {name: [w.clone() for w in network.parameters()] for name, network in method.networks.items()}
    losses = take_step(method, method.networks, optimizers, step).losses
    moved = {
        name
        for name, network in method.networks.items()
        if any(not torch.equal(new, old) for new, old in zip(network.parameters(), before[name], strict=True))
    }
    movers = {stage, *(["reconstruction"] if stage == "encoder" else []), *(["critic"] if layer == "all" else [])}
    assert moved == movers
    pressing = {name for name, loss in losses.items() if "/" not in name and loss.item() != 0.0}
    wanted = {"content", "style", "adversarial", "critic"} if layer == "all" else {layer}
    assert pressing == wanted | ({"reconstruction"} if stage == "encoder" and layer != "style" else set())


@pytest.mark.parametrize(
    "phase", ["encoder/all", "decoder/content", "decoder/style", "decoder/all", "interpolation/all"]
)
def test_the_objective_falls(phase):
    method = build(learning_rate=3e-3, adversarial_weight=0.0)
    optimizers, stage = method.build_optimizers(method.networks), phase.split("/")[0]
    found = []
    for _ in range(25):
        step = make_step(method, phase)
        found.append(take_step(method, method.networks, optimizers, step).losses[f"total/{stage}"].item())
    assert found[-1] < 0.9 * found[0]


@pytest.mark.parametrize(
    "kinds",
    [{"content_kind": kind} for kind in CONTENT_KINDS if kind != "fc6_fc7"]
    + [{"style_kind": kind} for kind in STYLE_KINDS],
    ids=lambda kinds: "=".join(*kinds.items()),
)
def test_every_kind_of_loss_trains_every_stage(kinds):
    method = build(**kinds)
    for stage in STAGES:
        step = make_step(method, f"{stage}/all")
        taken = take_step(method, method.networks, method.build_optimizers(method.networks), step)
        assert taken.non_finite is None
        assert taken.gradient_norms[stage] > 0.0


def test_a_mosaic_is_cut_out_of_the_content():
    method, seen = build(mosaic=2), []
    method.networks["encoder"].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    step = make_step(method, "interpolation/all", seed=5)
    method.take_turn("interpolation", method.networks, step)
    content = step.batch["content"]
    seeds = torch.randint(2**31, (2,), generator=torch.Generator().manual_seed(5)).tolist()
    for row, seed in enumerate(seeds):
        mixed = patch_mosaic(content[row : row + 1], 2, torch.Generator().manual_seed(seed))
        assert torch.equal(seen[0][row : row + 1], mixed)
        assert not torch.equal(mixed, content[row : row + 1])
    assert torch.equal(seen[1], step.batch["style"])


def test_the_critic_sees_augmented_images():
    method, seen = build(), []
    method.networks["critic"].register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach()))
    step = make_step(method, "interpolation/all", augment=1.0)
    for player in ("interpolation", "critic"):
        method.take_turn(player, method.networks, step)
    both = torch.cat([step.kept["real"], step.kept["fake"].detach()])
    for found, original in zip(seen, (step.kept["fake"], both), strict=True):
        assert not any(torch.equal(a, b) for a, b in zip(found, original, strict=True))


def test_styles_are_codes_of_the_style_images():
    method = build()
    codes = method.styles()
    assert list(codes) == ["waves", "dots"]
    levels = [level[0].double().detach().numpy() for level in method.networks["encoder"](draw(1, 8, 40))]
    wanted = [m for f in levels for m in (f.mean((1, 2)), np.sqrt(f.var((1, 2)) + 1e-5))]
    np.testing.assert_allclose(codes["waves"].numpy(), np.concatenate(wanted), rtol=1e-4, atol=1e-5)
    assert codes["dots"].shape == (method.generator.style_dim,)
    assert not hasattr(method.generator, "reconstruction")


def test_defaults():
    method = build(phases=(0.2, 0.4, 0.4))
    assert method.weights["adversarial"] == 0.05
    assert {player.learning_rate for player in method.players.values()} == {1e-3}
    assert build(critic_learning_rate=2e-4).players["critic"].learning_rate == 2e-4
    assert [name for name, player in method.players.items() if player.is_critic] == ["critic"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phases": (0.5, 0.5)}, r"3 shares \(encoder, decoder, interpolation\).*got \(0.5, 0.5\)"),
        ({"phases": (0.5, 0.7, -0.2)}, "add up to 1"),
        ({"gan": "wgan_gp"}, "wanted a gan of fst"),
        ({"mosaic": 0}, "got mosaic=0"),
        ({"style_weight": 0.0}, "content_weight > 0 and style_weight > 0"),
        ({"reconstruction_weight": -1.0}, "got reconstruction_weight=-1.0"),
        ({"learning_rate": float("nan")}, "got learning_rate=nan"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        FstOptions(**options)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"styles": {}}, "at least one style image"),
        ({"critic": {"name": "patch_domain"}}, "fst: wanted a critic of one domain"),
        ({"content_kind": "perceptuel"}, "did you mean 'perceptual'"),
        ({"content_kind": "fc6_fc7"}, "got 'fc6'"),
        ({"style_kind": "grams"}, "did you mean 'gram'"),
    ],
)
def test_what_it_refuses(given, words):
    with pytest.raises(ValueError, match=words):
        build(**given)
