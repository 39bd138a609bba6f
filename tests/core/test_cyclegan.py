import pytest
import torch
from torch import Tensor

from stylejobs.core.draws import Draws
from stylejobs.core.methods import Cyclegan, CycleganOptions, Ingredients, Step, build_method, moment_at, take_step

NETWORKS = {"width": 4, "blocks": 1}
PATCH = {"width": 4, "layers": 1}
CRITICS = {
    "patch": PATCH,
    "multiscale": {"name": "multiscale", "scales": 2, **PATCH},
    "patch_domain": {"name": "patch_domain", "width": 4, "layers": 2},
}
VARIANTS = [{}, {"adapters": True}, {"share_trunk": True}]


def build(critic: str = "patch", generator: dict | None = None, **options) -> Cyclegan:
    torch.manual_seed(0)
    ingredients = Ingredients(generator or NETWORKS, CRITICS[critic], domains=("photo", "monet"))
    return build_method("cyclegan", ingredients, **options)


def draw(batch: int, seed: int, size_px: int = 32) -> Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def moment(method, number: int = 1, augment: float = 0.0, seed: int = 0):
    return moment_at(method.phases, number, 0, 100, Draws(torch.Generator().manual_seed(seed)), augment)


def make_step(method, num_x: int = 2, num_y: int = 2, augment: float = 0.0) -> Step:
    return Step({"content": draw(num_x, 1), "style": draw(num_y, 2)}, moment(method, augment=augment))


def networks_of(method) -> tuple:
    """G and F as functions of images, whatever they are made of."""
    nets = method.networks
    if "trunk" not in nets:
        none = torch.zeros(0)
        return tuple(
            lambda image, net=nets[name]: net(image, none.expand(len(image), 0)) for name in ("generator", "inverse")
        )
    return tuple(lambda image, net=nets[name]: nets["trunk"](net(image)) for name in ("adapter", "inverse_adapter"))


def turns(method, step: Step):
    return [method.take_turn(player, method.networks, step) for player in ("generator", "critic")]


@pytest.mark.parametrize("options", VARIANTS)
def test_the_losses_are_their_formulas(options):
    method = build(**options)
    step = make_step(method)
    generator, critic = turns(method, step)
    x, y = step.batch["content"], step.batch["style"]
    forth, back = networks_of(method)
    d_x, d_y = method.networks["critic_x"], method.networks["critic_y"]
    adversarial = (d_y(forth(x)) - 1).pow(2).mean() + (d_x(back(y)) - 1).pow(2).mean()
    cycle = (back(forth(x)) - x).abs().mean() + (forth(back(y)) - y).abs().mean()
    identity = (forth(y) - y).abs().mean() + (back(x) - x).abs().mean()
    expected = {"adversarial": adversarial, "cycle": cycle, "identity": identity}
    torch.testing.assert_close(generator.terms, expected, rtol=1e-4, atol=1e-6)
    judged = [
        0.5 * ((d(real) - 1).pow(2).mean() + d(fake).pow(2).mean())
        for d, real, fake in ((d_y, y, forth(x)), (d_x, x, back(y)))
    ]  # a pool that fills gives back what comes
    torch.testing.assert_close(critic.terms, {"critic": sum(judged)}, rtol=1e-4, atol=1e-6)
    assert {name: method.weights[name] for name in expected} == {"adversarial": 1.0, "cycle": 10.0, "identity": 5.0}


def test_a_shared_critic_judges_both_domains_and_tells_them_apart():
    method = build("patch_domain", gan="hinge")
    assert set(method.networks) == {"generator", "inverse", "critic"}
    step = make_step(method, num_x=1, num_y=3)
    generator, critic = turns(method, step)
    x, y = step.batch["content"], step.batch["style"]
    forth, back = networks_of(method)
    judge = method.networks["critic"]
    (on_x, of_x), (on_y, of_y), (on_fake_x, of_fake_x), (on_fake_y, of_fake_y) = (
        judge(image) for image in (x, y, back(y), forth(x))
    )

    def surprise(x_logits: Tensor, y_logits: Tensor) -> Tensor:
        """-log of the probability of the right domain, 0 for x and 1 for y."""
        found = torch.cat([x_logits[:, 1] - x_logits[:, 0], y_logits[:, 0] - y_logits[:, 1]])
        return (1 + found.exp()).log().mean()

    torch.testing.assert_close(generator.terms["adversarial"], -on_fake_x.mean() - on_fake_y.mean())
    torch.testing.assert_close(generator.terms["classification"], surprise(of_fake_x, of_fake_y))
    torch.testing.assert_close(critic.terms["critic_classification"], surprise(of_x, of_y))
    hinge = [
        (1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean()
        for real, fake in ((on_x, on_fake_x), (on_y, on_fake_y))
    ]
    torch.testing.assert_close(critic.terms["critic"], sum(hinge))


def test_scales_are_averaged():
    method = build("multiscale")
    step = make_step(method)
    generator, critic = turns(method, step)
    x, y = step.batch["content"], step.batch["style"]
    forth, back = networks_of(method)
    fooled = sum(
        (logits - 1).pow(2).mean() / 2
        for name, fake in (("critic_y", forth(x)), ("critic_x", back(y)))
        for logits in method.networks[name](fake)
    )
    torch.testing.assert_close(generator.terms["adversarial"], fooled)
    assert set(critic.signals) == {"accuracy/x", "accuracy/y"}


def test_critics_tell_how_often_they_are_right():
    method = build()
    for name, sign in (("critic_x", 1.0), ("critic_y", -1.0)):
        head = method.networks[name].body[-1]
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, sign)
    _, critic = turns(method, make_step(method))
    # Both say the same of everything: half of that is right.
    assert {name: value.item() for name, value in critic.signals.items()} == {"accuracy/x": 0.5, "accuracy/y": 0.5}
    assert not any(value.requires_grad for value in critic.signals.values())


def test_the_main_stylized_batch_is_kept_for_the_loop():
    method = build()
    step = make_step(method)
    method.take_turn("generator", method.networks, step)
    torch.testing.assert_close(step.kept["stylized"], networks_of(method)[0](step.batch["content"]).detach())
    assert not step.kept["stylized"].requires_grad


def test_critics_meet_older_images_again():
    method, seen, rng = build(pool=1), [], torch.Generator().manual_seed(0)
    assert set(method.memory) == {"x_pool", "y_pool"}
    method.networks["critic_y"].register_forward_pre_hook(lambda _module, args: seen.append(args[0][-1]))
    made = []
    for number in range(8):
        batch = {"content": draw(1, number), "style": draw(1, 2)}
        step = Step(batch, moment_at(method.phases, 1, 0, 100, Draws(rng)))
        turns(method, step)
        made.append(step.kept["stylized"][0])
    judged = seen[1::2]  # after each of the generator's turns comes the critic's
    ages = [next(age for age in range(8) if torch.equal(judged[now], made[now - age])) for now in range(8)]
    assert 0 in ages[1:]
    assert any(age > 0 for age in ages)


def test_without_identity_the_generator_sees_fewer_images():
    rows = []

    def count(_module, args):
        rows.append(len(args[0]))

    for weight in (5.0, 0.0):
        method, total = build(identity_weight=weight), len(rows)
        method.networks["generator"].register_forward_pre_hook(count)
        turn = method.take_turn("generator", method.networks, make_step(method))
        assert ("identity" in turn.terms) == (weight > 0)
        assert rows[total:] == ([4, 2] if weight else [2, 2])


def test_critics_see_all_images_augmented():
    """Strength 1 changes every row, in both turns, and nothing but what the critics see."""
    method = build()
    plain, augmented = (turns(method, make_step(method, augment=strength)) for strength in (0.0, 1.0))
    for name in ("cycle", "identity"):
        torch.testing.assert_close(plain[0].terms[name], augmented[0].terms[name])
    seen = []
    method.networks["critic_y"].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    step = make_step(method, augment=1.0)
    turns(method, step)
    originals = (step.kept["stylized"], torch.cat([step.batch["style"], step.kept["stylized"]]))
    for found, original in zip(seen, originals, strict=True):
        assert not any(torch.equal(a, b) for a, b in zip(found, original, strict=True))


@pytest.mark.parametrize(
    ("critic", "options"), [*(("patch", options) for options in VARIANTS), ("multiscale", {}), ("patch_domain", {})]
)
def test_twenty_steps_lower_the_objective(critic, options):
    method = build(critic, learning_rate=2e-3, **options)
    optimizers = method.build_optimizers(method.networks)
    rng = torch.Generator().manual_seed(0)
    batch = {"content": draw(1, 1) * 0.5 - 0.3, "style": draw(1, 2) * 0.5 + 0.3}
    found = []
    for number in range(1, 21):
        step = Step(batch, moment_at(method.phases, number, 0, 100, Draws(rng)))
        found.append(take_step(method, method.networks, optimizers, step).losses)
    for name in ("cycle", "identity", "total/generator"):
        # Of a shared trunk another order of rounding moves these by 0.05.
        assert found[-1][name] < 0.9 * found[0][name], name
    assert found[-1]["critic"] < found[0]["critic"]


def test_a_shared_trunk_is_one_set_of_weights_in_both_directions():
    method = build(share_trunk=True)
    assert set(method.networks) == {"trunk", "adapter", "inverse_adapter", "critic_x", "critic_y"}
    assert method.generator.trunk is method.networks["trunk"]
    assert method.generator.adapter is method.networks["adapter"]
    assert method.generator_options == {**NETWORKS, "adapter": True}
    whole = sum(weight.numel() for weight in build(adapters=True).networks["inverse"].parameters())
    own = sum(weight.numel() for weight in method.networks["inverse_adapter"].parameters())
    assert own < 0.05 * whole
    forth, back = networks_of(method)
    assert (forth(draw(1, 1)) - back(draw(1, 1))).abs().max() > 1e-4
    torch.testing.assert_close(forth(draw(1, 1)), method.generator(draw(1, 1), torch.zeros(1, 0)))


def test_published_numbers():
    options = CycleganOptions()
    assert (options.gan, options.cycle_weight, options.identity_weight, options.pool) == ("lsgan", 10.0, 5.0, 50)
    method = build(critic_learning_rate=1e-4)
    players = method.players
    assert [player.learning_rate for player in players.values()] == [2e-4, 1e-4]
    assert [player.is_critic for player in players.values()] == [False, True]
    assert {player.betas for player in players.values()} == {(0.5, 0.999)}
    assert [players["generator"].schedule.at(share) for share in (0.0, 0.5, 0.75, 1.0)] == [1.0, 1.0, 0.5, 0.0]
    assert method.styles().keys() == {"monet"}


def test_any_generator_without_style_codes_will_do():
    method = build(generator={"name": "johnson", "width": 4, "blocks": 1})
    assert (method.generator_name, method.generator_options) == ("johnson", NETWORKS)
    assert turns(method, make_step(method))[0].terms["cycle"] > 0
    with pytest.raises(ValueError, match="without style codes"):
        build(generator={"name": "moments"})
    with pytest.raises(ValueError, match="cannot be built"):
        build(generator={"name": "johnson"}, share_trunk=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gan": "wgan_gp"}, "wanted a gan of cyclegan out of vanilla, lsgan, hinge"),
        ({"cycle_weight": -1.0}, "cycle_weight=-1.0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"critic_learning_rate": float("nan")}, "critic_learning_rate=nan"),
        ({"beta1": 1.0}, "beta1=1.0"),
        ({"decay_from": 1.0}, "decay_from=1.0"),
        ({"pool": -1}, "size >= 0"),
        ({"weight": 1.0}, "cannot be built"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)
