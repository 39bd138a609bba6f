"""The classifier: its network, its method, its answers, and how often they stay the same."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from stylejobs.core.agreement import agreement, class_probabilities, classify
from stylejobs.core.draws import Draws
from stylejobs.core.methods import Classification, Ingredients, Step, build_method, moment_at, take_step
from stylejobs.core.networks.classifier import Classifier

CLASSES = ("stripes", "columns", "dots")


def build(**options: float) -> Classification:
    torch.manual_seed(0)
    return build_method("classifier", Ingredients({"width": 8, "size_px": 32}, domains=CLASSES), **options)


def patterns(batch: int, seed: int, side_px: int = 32) -> tuple[Tensor, Tensor]:
    """Pictures of three kinds, of any phase, colour and noise: (image_BCHW, class_B)."""
    rng = torch.Generator().manual_seed(seed)
    class_B = torch.arange(batch) % 3
    phase_B11 = torch.rand((batch, 1, 1), generator=rng) * 6.3
    rows, columns = torch.meshgrid(torch.arange(side_px) / 2.0, torch.arange(side_px) / 2.0, indexing="ij")
    kinds = [torch.sin(rows + phase_B11), torch.sin(columns + phase_B11)]
    kinds.append(kinds[0] * kinds[1])
    wave_BHW = torch.stack(kinds)[class_B, torch.arange(batch)]
    colour_BC11 = torch.rand((batch, 3, 1, 1), generator=rng) - 0.5
    noise_BCHW = 0.2 * torch.randn((batch, 3, side_px, side_px), generator=rng)
    return (0.5 * wave_BHW[:, None] + colour_BC11 + noise_BCHW).clamp(-1, 1), class_B


def train(steps: int) -> Classification:
    method, rng = build(learning_rate=3e-3), torch.Generator().manual_seed(0)
    optimizers = method.build_optimizers(method.networks)
    for number in range(steps):
        image_BCHW, class_B = patterns(24, number)
        moment = moment_at(method.phases, number + 1, number, steps, Draws(rng))
        take_step(method, method.networks, optimizers, Step({"content": image_BCHW, "content_domain": class_B}, moment))
    return method


def test_it_learns_what_can_be_told_apart_and_the_same_way_each_time():
    image_BCHW, class_B = patterns(300, 10_000)
    before = (classify(build().generator.eval(), image_BCHW) == class_B).float().mean().item()
    method, again = train(40), train(40)
    share = (classify(method.generator.eval(), image_BCHW) == class_B).float().mean().item()
    assert before < 0.7 and share > 0.95
    torch.testing.assert_close(method.generator.state_dict(), again.generator.state_dict(), rtol=0.0, atol=0.0)


def test_the_loss_is_the_surprise_and_the_signal_the_share_of_right_answers():
    method = build()
    image_BCHW, class_B = patterns(7, 0)
    step = Step(
        {"content": image_BCHW, "content_domain": class_B}, moment_at(method.phases, 1, 0, 9, Draws(torch.Generator()))
    )
    turn = method.take_turn("classifier", method.networks, step)
    logits = method.generator(image_BCHW).detach().double().numpy()
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    surprise = -np.log(chances[np.arange(7), class_B.numpy()]).mean()
    assert turn.terms.keys() == {"classification"} and turn.terms["classification"].item() == pytest.approx(surprise)
    right = (logits.argmax(axis=1) == class_B.numpy()).mean()
    assert turn.signals["correct"].item() == pytest.approx(right)
    assert not turn.signals["correct"].requires_grad


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (128, 70)])
def test_any_size_is_taken_and_a_row_depends_on_that_row_alone(size):
    torch.manual_seed(0)
    network = Classifier(CLASSES, width=8)
    image = torch.rand(3, 3, *size, dtype=torch.float32) * 2 - 1
    logits = network(image)
    assert logits.shape == (3, 3)
    torch.testing.assert_close(network(image[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.eval()(image), logits)
    logits.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


def test_it_has_as_many_weights_as_its_layers():
    def block(before: int, after: int) -> int:
        shortcut = 0 if before == after else before * after + 2 * after
        return 9 * before * after + 9 * after * after + 4 * after + shortcut

    expected = 27 * 16 + 32 + block(16, 16) + block(16, 32) + block(32, 64) + block(64, 128) + 128 * 10 + 10
    network = Classifier([str(number) for number in range(10)])
    assert sum(weight.numel() for weight in network.parameters()) == expected
    assert 0.2e6 < expected < 0.5e6


def test_pictures_are_shown_at_the_size_of_the_training():
    torch.manual_seed(0)
    network, seen = Classifier(CLASSES, width=4, size_px=40), []
    network.register_forward_pre_hook(lambda _module, args: seen.append(tuple(args[0].shape[-2:])))
    sizes = [(40, 40), (80, 120), (21, 20), (40, 400), (1000, 41)]
    for size in sizes:
        chances = class_probabilities(network, torch.rand(2, 3, *size) * 2 - 1)
        torch.testing.assert_close(chances.sum(dim=1), torch.ones(2))
    assert seen == [(40, 40), (40, 60), (42, 40), (40, 400), (976, 40)]
    exact = torch.rand(2, 3, 40, 50) * 2 - 1
    assert torch.equal(classify(network, exact), network(exact).argmax(dim=1))


def test_agreement_is_counted_by_the_class_of_the_source():
    source = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    made = torch.tensor([0, 0, 0, 1, 0, 0, 2, 2, 0, 1])
    found = agreement(source, made, ("cat", "dog", "bird", "never seen"))
    assert found.counts == {"cat": 4, "dog": 2, "bird": 4}
    assert {name: interval.value for name, interval in found.by_class.items()} == {"cat": 0.75, "dog": 0.0, "bird": 0.5}
    assert found.worst == ("dog", "bird", "cat")
    assert found.overall.value == 0.5
    wilson = stats.binomtest(5, 10).proportion_ci(method="wilson")
    assert (found.overall.low, found.overall.high) == pytest.approx((wilson.low, wilson.high))
    wilson = stats.binomtest(3, 4).proportion_ci(0.9, method="wilson")
    cat = agreement(source, made, ("cat", "dog", "bird"), confidence=0.9).by_class["cat"]
    assert (cat.low, cat.high) == pytest.approx((wilson.low, wilson.high))


def test_of_many_classes_the_three_worst_are_named():
    source = torch.arange(5).repeat_interleave(10)
    made = torch.where(torch.arange(50) % 10 < 2 * source, (source + 1) % 5, source)
    assert agreement(source, made, tuple("abcde")).worst == ("e", "d", "c")


@pytest.mark.parametrize(
    ("source", "made", "said"),
    [
        (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), "for each image"),
        (torch.tensor([0, 1]), torch.tensor([0]), "for each image"),
        (torch.tensor([0, 3]), torch.tensor([0, 1]), "answers in 0 .. 2"),
        (torch.tensor([0, 1]), torch.tensor([0, -1]), "answers in 0 .. 2"),
    ],
)
def test_answers_that_do_not_fit_are_refused(source, made, said):
    with pytest.raises(ValueError, match=said):
        agreement(source, made, CLASSES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": ("one",)}, "at least two classes"),
        ({"classes": ("one", "one")}, "no two of one name"),
        ({"classes": CLASSES, "width": 0}, "width >= 1"),
        ({"classes": CLASSES, "size_px": 16}, "size_px >= 32"),
    ],
)
def test_a_network_that_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Classifier(**options)


@pytest.mark.parametrize("image", [torch.zeros(1, 3, 31, 64), torch.zeros(1, 1, 64, 64), torch.zeros(3, 64, 64)])
def test_images_that_cannot_be_named_are_refused(image):
    with pytest.raises(ValueError, match="wanted"):
        Classifier(CLASSES)(image)


def test_a_generator_is_no_classifier():
    with pytest.raises(ValueError, match="wanted the network 'classifier'; got 'resnet'"):
        build_method("classifier", Ingredients({"name": "resnet"}, domains=CLASSES))
    with pytest.raises(ValueError, match="at least two classes"):
        build_method("classifier", Ingredients(domains=("only",)))
