import pytest
import torch
from torch import Tensor

from stylejobs.core.draws import Draws
from stylejobs.core.methods import Ingredients, Phase, Stargan, Step, build_method, moment_at, take_step

DOMAINS = ("photo", "monet", "ukiyoe")
NETWORKS = {"width": 4, "blocks": 1}
CRITIC = {"width": 4, "layers": 2}


def build(generator: dict | None = None, critic: dict | None = None, domains=DOMAINS, **options) -> Stargan:
    torch.manual_seed(0)
    return build_method("stargan", Ingredients(generator or NETWORKS, critic or CRITIC, domains=domains), **options)


def draw(batch: int, seed: int, size_px: int = 32) -> Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make_step(method, seed: int = 0, augment: float = 0.0) -> Step:
    batch = {"content": draw(2, 1), "style": draw(3, 2), "style_domain": torch.tensor([1, 2, 1])}
    moment = moment_at(method.phases, 5, 0, 100, Draws(torch.Generator().manual_seed(seed)), augment)
    return Step(batch, moment)


def label(domains: list[int] | Tensor) -> Tensor:
    return torch.eye(3)[torch.as_tensor(domains)]


def surprise(logits: Tensor, domains) -> Tensor:
    """-log of the probability of the right domain, mean over images."""
    rows = range(len(logits))
    return torch.stack([-(logits[row].exp() / logits[row].exp().sum())[domains[row]].log() for row in rows]).mean()


def test_the_losses_are_their_formulas():
    method = build()
    step, rng = make_step(method), torch.Generator().manual_seed(0)
    generator = method.take_turn("generator", method.networks, step)
    critic = method.take_turn("critic", method.networks, step)
    net, judge = method.networks["generator"], method.networks["critic"]
    x, own = torch.cat([step.batch["content"], step.batch["style"]]), [0, 0, 1, 2, 1]
    target = torch.randint(3, (5,), generator=rng)
    fake = net(x, label(target)).detach()
    (on_x, of_x), (on_fake, of_fake) = judge(x), judge(fake)
    expected = {
        "adversarial": -on_fake.mean(),
        "classification": surprise(of_fake, target),
        "reconstruction": (net(fake, label(own)) - x).abs().mean(),
    }
    torch.testing.assert_close(generator.terms, expected, rtol=1e-4, atol=1e-6)

    share = torch.rand(5, generator=rng)[:, None, None, None]
    between = (share * x + (1 - share) * fake).requires_grad_()
    slope = torch.autograd.grad(judge(between)[0].mean(dim=(1, 2, 3)).sum(), between)[0]
    expected = {
        "critic": on_fake.mean() - on_x.mean(),
        "critic_classification": surprise(of_x, own),
        "drift": on_x.pow(2).mean(),
        "gradient_penalty": (slope.pow(2).sum(dim=(1, 2, 3)).sqrt() - 1).pow(2).mean(),
    }
    torch.testing.assert_close(critic.terms, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(step.kept["stylized"], fake[:2])


def test_the_identity_term_is_of_the_rows_that_stay_where_they_are():
    method = build(identity_weight=2.0)
    step, rng = make_step(method, seed=1), torch.Generator().manual_seed(1)
    terms = method.take_turn("generator", method.networks, step).terms
    x, own = torch.cat([step.batch["content"], step.batch["style"]]), torch.tensor([0, 0, 1, 2, 1])
    target = torch.randint(3, (5,), generator=rng)
    stay = [row for row in range(5) if target[row] == own[row]]
    assert 0 < len(stay) < 5
    rows = [(method.networks["generator"](x[[row]], label([own[row]])) - x[row]).abs().mean() for row in stay]
    torch.testing.assert_close(terms["identity"], sum(rows) / 5, rtol=1e-4, atol=1e-6)


def test_the_critic_takes_five_steps_for_one_of_the_generator():
    method, rng = build(), torch.Generator().manual_seed(0)
    optimizers = method.build_optimizers(method.networks)
    moved = []
    for number in range(1, 11):
        before = [weight.clone() for weight in method.networks["generator"].parameters()]
        step = Step(make_step(method).batch, moment_at(method.phases, number, 0, 100, Draws(rng)))
        taken = take_step(method, method.networks, optimizers, step)
        after = method.networks["generator"].parameters()
        moved.append(not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)))
        assert moved[-1] == ("total/generator" in taken.losses)
        assert "total/critic" in taken.losses
        assert "stylized" in step.kept
    assert moved == [False, False, False, False, True] * 2


def test_targets_are_drawn_from_all_domains():
    method, seen = build(), []
    method.networks["generator"].register_forward_pre_hook(lambda _module, args: seen.append(args[1]))
    for seed in range(20):
        method.take_turn("generator", method.networks, make_step(method, seed))
    targets, own = torch.cat(seen[0::2]), torch.cat(seen[1::2])
    assert (targets.sum(dim=0) > 20).all()  # of 100 rows
    assert torch.equal(own.sum(dim=0), torch.tensor([40.0, 40.0, 20.0]))


@pytest.mark.parametrize(
    ("player", "terms"),
    [("generator", ("reconstruction", "total/generator")), ("critic", ("critic_classification", "total/critic"))],
)
def test_twenty_steps_lower_the_objective(player, terms):
    """Of each player against the other as it is: together, what one wins the other loses."""
    # With more of the critic the reconstruction swings, and how far it is after 20 steps depends on rounding.
    method = build(learning_rate=2e-3, adversarial_weight=0.1)
    method.phases = (Phase("alone", 1.0, (player,)),)
    optimizers, batch = method.build_optimizers(method.networks), make_step(method).batch
    batch |= {"content": batch["content"] * 0.3 - 0.5, "style": batch["style"] * 0.3 + 0.5}
    found = []
    for number in range(1, 21):
        # The same draws in each step, so that losses can be compared.
        moment = moment_at(method.phases, number, 0, 100, Draws(torch.Generator().manual_seed(0)))
        found.append(take_step(method, method.networks, optimizers, Step(batch, moment)).losses)
    for name in terms:
        assert found[-1][name] < 0.9 * found[0][name], name


def test_without_its_weight_there_is_no_gradient_penalty():
    method = build(gradient_penalty_weight=0.0, gan="hinge")
    turn = method.take_turn("critic", method.networks, make_step(method))
    assert set(turn.terms) == {"critic", "critic_classification", "drift"}


def test_critics_see_all_images_augmented():
    method, seen = build(gradient_penalty_weight=0.0), []
    method.networks["critic"].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    step = make_step(method, augment=1.0)
    for player in ("generator", "critic"):
        method.take_turn(player, method.networks, step)
    fake, real = step.kept["fake"], torch.cat([step.batch["content"], step.batch["style"]])
    for found, original in zip(seen, (fake, torch.cat([real, fake])), strict=True):
        assert not any(torch.equal(a, b) for a, b in zip(found, original, strict=True))


def test_styles_are_labels_of_the_domains_behind_the_contents():
    styles = build().styles()
    assert {name: code.tolist() for name, code in styles.items()} == {"monet": [0, 1, 0], "ukiyoe": [0, 0, 1]}


def test_published_numbers():
    method = build()
    weights = {"adversarial": 1.0, "classification": 1.0, "reconstruction": 10.0, "identity": 0.0, "critic": 1.0}
    weights |= {"critic_classification": 1.0, "gradient_penalty": 10.0, "drift": 1e-3}
    assert method.weights == weights
    assert {(player.learning_rate, player.betas) for player in method.players.values()} == {(1e-4, (0.5, 0.999))}
    assert [method.players["critic"].schedule.at(share) for share in (0.5, 0.75, 1.0)] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gan": "wgan"}, "did you mean 'wgan_gp'"),
        ({"critic_steps": 0}, "critic_steps >= 1"),
        ({"drift_weight": -1.0}, "drift_weight=-1.0"),
        ({"generator": {"name": "resnet"}}, "wanted the generator 'label_conditioned'; got 'resnet'"),
        ({"critic": {"name": "patch"}}, "wanted the critic 'patch_domain'; got 'patch'"),
        ({"domains": ("photo",)}, "at least one more"),
    ],
)
def test_what_it_refuses(given, words):
    with pytest.raises(ValueError, match=words):
        build(**given)
