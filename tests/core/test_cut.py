import numpy as np
import pytest
import torch
from torch import Tensor

from stylejobs.core.draws import Draws
from stylejobs.core.methods import Cut, Ingredients, Step, build_method, moment_at, take_step
from stylejobs.core.methods.cut import PatchProjection

NETWORKS = {"width": 4, "blocks": 2}
PATCH = {"width": 4, "layers": 1}
SMALL = {"num_patches": 16}


def build(name: str = "cut", generator: dict | None = None, critic: dict | None = None, **options) -> Cut:
    torch.manual_seed(0)
    ingredients = Ingredients(generator or NETWORKS, critic or PATCH, domains=("photo", "monet"))
    return build_method(name, ingredients, **{**SMALL, **options})


def draw(batch: int, seed: int, size_px: int = 32) -> Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make_step(method, num_x: int = 2, num_y: int = 3, seed: int = 0, augment: float = 0.0) -> Step:
    rng = torch.Generator().manual_seed(seed)
    moment = moment_at(method.phases, 1, 0, 100, Draws(rng), augment)
    return Step({"content": draw(num_x, 1), "style": draw(num_y, 2)}, moment)


def stylize(method, image: Tensor) -> Tensor:
    return method.networks["generator"](image, torch.zeros(len(image), 0))


def encode(method, image: Tensor) -> list[Tensor]:
    codes = torch.zeros(len(image), 0)
    return method.networks["generator"](image, codes, layers=method.generator.nce_layers)[1]


def nce_by_hand(method, results: list[Tensor], sources: list[Tensor], rng: torch.Generator) -> float:
    """PatchNCE in numpy, image by image and place by place; `rng` stands where the turn's places are drawn."""
    by_layer = []
    for layer, (result, source) in enumerate(zip(results, sources, strict=True)):
        height, width = source.shape[2:]
        places = torch.randperm(height * width, generator=rng).numpy()[: method._o.num_patches]
        embed = method.networks["projection"].perceptrons[layer]
        losses = []
        for row in range(len(source)):
            patches = [image[row][:, places // width, places % width].T for image in (result, source)]
            query, key = (embed(patch).detach().double().numpy() for patch in patches)
            query, key = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-6) for v in (query, key))
            scores = np.exp(query @ key.T / method._o.temperature)
            losses += [-np.log(scores[n, n] / scores[n].sum()) for n in range(len(places))]
        by_layer.append(np.mean(losses))
    return float(np.mean(by_layer))


def test_the_losses_are_their_formulas():
    method = build(temperature=0.1)
    step = make_step(method)
    state = step.moment.draws.shared.get_state()
    generator = method.take_turn("generator", method.networks, step)
    critic = method.take_turn("critic", method.networks, step)
    x, y = step.batch["content"], step.batch["style"]
    judge, fake = method.networks["critic"], stylize(method, step.batch["content"])
    expected = {"adversarial": (judge(fake) - 1).pow(2).mean().item()}
    for name, source in (("nce", x), ("identity", y)):
        rng = torch.Generator()
        rng.set_state(state)
        expected[name] = nce_by_hand(method, encode(method, stylize(method, source)), encode(method, source), rng)
    assert {name: term.item() for name, term in generator.terms.items()} == pytest.approx(expected, rel=1e-4)
    wanted = 0.5 * ((judge(y) - 1).pow(2).mean() + judge(fake).pow(2).mean())
    assert critic.terms["critic"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert set(critic.signals) == {"accuracy"}
    torch.testing.assert_close(step.kept["stylized"], fake.detach())


def test_fastcut_looks_into_a_mirror_in_half_of_its_steps():
    method, num_mirrored = build("fastcut"), 0
    for seed in range(12):
        step = make_step(method, seed=seed)
        rng = torch.Generator().manual_seed(seed)
        mirrored = torch.rand((), generator=rng).item() < 0.5
        turn = method.take_turn("generator", method.networks, step)
        x = step.batch["content"]
        result = stylize(method, x.flip(3) if mirrored else x)
        queries = [features.flip(3) if mirrored else features for features in encode(method, result)]
        assert set(turn.terms) == {"adversarial", "nce"}
        assert turn.terms["nce"].item() == pytest.approx(nce_by_hand(method, queries, encode(method, x), rng), rel=1e-4)
        num_mirrored += mirrored
    assert 2 <= num_mirrored <= 10


def test_targets_get_no_gradient():
    """The loss pulls the features of the result to those of the source, and not the other way."""
    method = build(adversarial_weight=0.0, identity_weight=0.0)
    step = make_step(method)
    step.batch["content"].requires_grad_()
    found = []
    method.networks["projection"].register_forward_hook(lambda _module, _args, embedded: found.append(embedded))
    method.take_turn("generator", method.networks, step)
    queries, keys = found
    assert all(query.requires_grad for query in queries)
    assert not any(key.requires_grad for key in keys)


def test_the_projection_has_a_perceptron_for_each_of_five_layers():
    method = build(generator={"width": 4, "blocks": 9})
    assert [part[0].in_features for part in method.networks["projection"].perceptrons] == [3, 8, 16, 16, 16]
    stages = [method.generator.stages[layer] for layer in method.generator.nce_layers]
    assert stages == ["input", "down1", "down2", "block1", "block5"]
    with_adapter = build(generator={**NETWORKS, "adapter": True})
    for name, generator in (("whole", method), ("adapter", with_adapter)):
        shapes = [features.shape[1] for features in encode(generator, draw(1, 0))]
        assert shapes == [part[0].in_features for part in generator.networks["projection"].perceptrons], name


def test_the_projection_embeds_the_places_that_it_is_told():
    torch.manual_seed(0)
    projection, features, places = PatchProjection([3], width=8), draw(2, 0, 5), torch.tensor([7, 24, 7])
    (embedded,) = projection([features], [places])
    rows, columns = (1, 4, 1), (2, 4, 2)
    for index, (row, column) in enumerate(zip(rows, columns, strict=True)):
        torch.testing.assert_close(embedded[:, index], projection.perceptrons[0](features[:, :, row, column]))


def test_few_places_are_all_taken():
    method = build(num_patches=4096)
    sizes = []
    method.networks["projection"].register_forward_pre_hook(lambda _m, args: sizes.append([len(p) for p in args[1]]))
    method.take_turn("generator", method.networks, make_step(method))
    assert sizes == [[1024, 256, 64, 64, 64]] * 2


@pytest.mark.parametrize("name", ["cut", "fastcut"])
def test_twenty_steps_lower_the_objective(name):
    method, rng = build(name, learning_rate=2e-3), torch.Generator().manual_seed(0)
    optimizers = method.build_optimizers(method.networks)
    batch = {"content": draw(1, 1) * 0.5 - 0.3, "style": draw(1, 2) * 0.5 + 0.3}
    found = []
    for number in range(1, 21):
        step = Step(batch, moment_at(method.phases, number, 0, 100, Draws(rng)))
        found.append(take_step(method, method.networks, optimizers, step).losses)
    for term in ("nce", "total/generator", *(["identity"] if name == "cut" else [])):
        assert found[-1][term] < 0.9 * found[0][term], term
    assert found[-1]["critic"] < found[0]["critic"]


def test_critics_see_all_images_augmented():
    method, seen = build(), []
    method.networks["critic"].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    step = make_step(method, augment=1.0)
    for player in ("generator", "critic"):
        method.take_turn(player, method.networks, step)
    originals = (step.kept["stylized"], torch.cat([step.batch["style"], step.kept["stylized"]]))
    for found, original in zip(seen, originals, strict=True):
        assert not any(torch.equal(a, b) for a, b in zip(found, original, strict=True))


def test_published_numbers():
    cut, fastcut = build(num_patches=256), build("fastcut")
    assert (cut.weights["nce"], cut.weights["identity"]) == (1.0, 1.0)
    assert (cut._o.temperature, cut._o.gan, cut._o.flip_equivariance) == (0.07, "lsgan", False)
    assert (fastcut.weights["nce"], fastcut.weights["identity"], fastcut._o.flip_equivariance) == (10.0, 0.0, True)
    assert [cut.players["critic"].schedule.at(share) for share in (0.5, 0.75)] == [1.0, 0.5]
    assert [fastcut.players["critic"].schedule.at(share) for share in (0.75, 0.875)] == [1.0, 0.5]
    assert {player.learning_rate for player in cut.players.values()} == {2e-4}
    assert build("fastcut", nce_weight=3.0).weights["nce"] == 3.0  # a preset's numbers are defaults
    assert cut.styles().keys() == {"monet"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gan": "wgan_gp"}, "wanted a gan of cut"),
        ({"nce_weight": 0.0}, "nce_weight > 0"),
        ({"num_patches": 1}, "num_patches >= 2"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"identity_weight": -1.0}, "identity_weight=-1.0"),
        ({"generator": {"name": "johnson"}}, "whose encoder it reads; got 'johnson'"),
        ({"critic": {"name": "patch_domain"}}, "a critic of one domain"),
        ({"pool": 3}, "cannot be built"),
    ],
)
def test_what_it_refuses(given, words):
    with pytest.raises(ValueError, match=words):
        build(**given)
