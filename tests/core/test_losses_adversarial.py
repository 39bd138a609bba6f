"""Adversarial losses of critic and generator, and the critic's accuracy."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.draws import Draws
from stylejobs.core.losses import (
    KINDS,
    critic_accuracy,
    critic_loss,
    domain_classification,
    drift_penalty,
    generator_loss,
    gradient_penalty,
    marginal_entropy,
    r1_penalty,
)
from tests.core.features import draw, rng, seeds


def reference_critic(kind, real, fake):
    """Straight from the papers' expectations, with probabilities in place of logits for vanilla."""
    real, fake = np.ravel(real.numpy()), np.ravel(fake.numpy())
    if kind == "vanilla":
        said_real, said_fake = scipy.special.expit(real), scipy.special.expit(fake)
        return -np.log(said_real).mean() - np.log(1 - said_fake).mean()
    if kind == "lsgan":
        return (((real - 1) ** 2).mean() + (fake**2).mean()) / 2
    if kind == "hinge":
        return -np.minimum(0, real - 1).mean() - np.minimum(0, -fake - 1).mean()
    return -(real.mean() - fake.mean())


def reference_generator(kind, fake):
    fake = np.ravel(fake.numpy())
    return {
        "vanilla": -np.log(scipy.special.expit(fake)).mean(),
        "lsgan": ((1 - fake) ** 2).mean(),
        "hinge": np.mean(-fake),
        "wgan_gp": np.mean(-fake),
    }[kind]


def test_the_kinds():
    assert KINDS == ("vanilla", "lsgan", "hinge", "wgan_gp")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds, shape=st.sampled_from([(3, 1), (2, 1, 5, 4), (7,)]), batch=st.integers(1, 4))
def test_against_numpy(kind, seed, shape, batch):
    real, fake = 3 * draw(shape, seed), 3 * draw((batch, *shape[1:]), seed + 1)
    assert critic_loss(kind, real, fake).item() == pytest.approx(reference_critic(kind, real, fake), rel=1e-9, abs=1e-9)
    assert generator_loss(kind, fake).item() == pytest.approx(reference_generator(kind, fake), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_finite_differences_and_directions(kind):
    real, fake = draw((2, 1, 3, 3)).requires_grad_(), draw((2, 1, 3, 3), 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda r, f: critic_loss(kind, r, f), (real, fake))
    assert torch.autograd.gradcheck(lambda f: generator_loss(kind, f), (fake,))
    # An undecided critic is pulled up on real images and down on generated ones; a generator pulls them up.
    undecided = torch.full((2, 1), 0.25, dtype=torch.float64)
    real, fake = undecided.clone().requires_grad_(), undecided.clone().requires_grad_()
    critic_loss(kind, real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    fake.grad = None
    generator_loss(kind, fake).backward()
    assert (fake.grad < 0).all()


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_optima(seed):
    shape, margins = (2, 1, 3, 3), draw((2, 1, 3, 3), seed).abs()
    ones, zeros = torch.ones(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    assert critic_loss("lsgan", ones, zeros).item() == 0.0
    assert generator_loss("lsgan", ones).item() == 0.0
    real, fake = (ones + margins).requires_grad_(), (-ones - margins).requires_grad_()
    loss = critic_loss("hinge", real, fake)
    loss.backward()
    assert loss.item() == 0.0
    assert not real.grad.any()
    assert not fake.grad.any()
    assert critic_loss("vanilla", zeros, zeros).item() == pytest.approx(2 * math.log(2))
    for kind in ("vanilla", "lsgan", "hinge"):
        assert critic_loss(kind, draw(shape, seed), draw(shape, seed + 1)) >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_scales_count_alike_whatever_their_size(kind):
    real, fake = [draw((2, 1, 8, 8)), draw((2, 1, 2, 2), 1)], [draw((2, 1, 8, 8), 2), draw((2, 1, 2, 2), 3)]
    expected = np.mean([reference_critic(kind, r, f) for r, f in zip(real, fake, strict=True)])
    assert critic_loss(kind, real, fake).item() == pytest.approx(expected)
    assert generator_loss(kind, fake).item() == pytest.approx(np.mean([reference_generator(kind, f) for f in fake]))
    torch.testing.assert_close(critic_loss(kind, real[:1], fake[:1]), critic_loss(kind, real[0], fake[0]))
    assert drift_penalty(real).item() == pytest.approx(np.mean([(r.numpy() ** 2).mean() for r in real]))


@pytest.mark.parametrize("kind", KINDS)
def test_wild_logits_stay_finite(kind):
    real = torch.tensor([[-1e4], [1e4]]).requires_grad_()
    fake = torch.tensor([[1e4], [-1e4]]).requires_grad_()
    (critic_loss(kind, real, fake) + generator_loss(kind, fake)).backward()
    assert real.grad.isfinite().all()
    assert fake.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_two_halves_is_the_mean_of_the_whole(kind):
    real, fake, image = draw((4, 1, 3, 3)), draw((4, 1, 3, 3), 1), draw((4, 3, 3, 3), 2)

    def r1(rows):
        seen = image[rows].requires_grad_()
        return r1_penalty(seen.pow(3).sum(dim=1), seen)

    for loss in (
        lambda rows: critic_loss(kind, real[rows], fake[rows]),
        lambda rows: generator_loss(kind, fake[rows]),
        lambda rows: drift_penalty(real[rows]),
        lambda rows: domain_classification(image[rows, 0, 0], torch.tensor([0, 2, 1, 1])[rows]),
        r1,
    ):
        torch.testing.assert_close((loss(slice(0, 2)) + loss(slice(2, 4))) / 2, loss(slice(0, 4)))


def test_accuracy_in_closed_form():
    real, fake = torch.tensor([[0.4], [0.6], [3.0], [-1.0]]), torch.tensor([[0.4], [-2.0], [0.7], [0.2]])
    assert critic_accuracy("vanilla", real, fake).item() == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert critic_accuracy("hinge", real, fake).item() == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert critic_accuracy("lsgan", real, fake).item() == pytest.approx((2 / 4 + 3 / 4) / 2)
    # means 0.75 and -0.175: half-way is 0.2875
    assert critic_accuracy("wgan_gp", real, fake).item() == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert critic_accuracy("lsgan", [real, real + 9], [fake, fake - 9]).item() == pytest.approx((5 / 8 + 1) / 2)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_accuracy_of_two_workers_is_in_the_mean_that_of_all_rows(kind, seed):
    scales = torch.tensor([[1.0], [5.0]]).repeat(3, 1)  # one worker's logits are further apart
    real, fake = scales * draw((6, 1), seed), scales * draw((6, 1), seed + 1)
    threshold = (real.mean() + fake.mean()) / 2
    halves = [critic_accuracy(kind, real[rank::2], fake[rank::2], lambda own: threshold) for rank in (0, 1)]
    assert sum(halves).item() / 2 == pytest.approx(critic_accuracy(kind, real, fake).item())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds, level=st.floats(-3, 3))
def test_laws_of_accuracy(kind, seed, level):
    real, fake = draw((5, 1), seed).requires_grad_(), draw((3, 1), seed + 1)
    accuracy = critic_accuracy(kind, real, fake)
    assert 0 <= accuracy <= 1
    assert not accuracy.requires_grad
    constant = torch.full((4, 1), level, dtype=torch.float64)
    assert critic_accuracy(kind, constant, constant).item() == 0.5
    assert critic_accuracy(kind, constant + 9, constant - 9).item() == 1.0
    assert critic_accuracy(kind, constant - 9, constant + 9).item() == 0.0
    torch.testing.assert_close(
        critic_accuracy("wgan_gp", 7 * real + 50, 7 * fake + 50), critic_accuracy("wgan_gp", real, fake)
    )


def test_float32_under_autocast():
    logits, image = draw((4, 3)).bfloat16(), draw((4, 3, 8, 8)).float()
    critic, seen = torch.nn.Conv2d(3, 1, 3), []

    def watched(x):
        seen.append(critic(x).dtype)
        return critic(x)

    with torch.autocast("cpu", torch.bfloat16):
        assert critic(image).dtype == torch.bfloat16
        real = image.clone().requires_grad_()
        results = [
            *(critic_loss(kind, logits, logits) for kind in KINDS),
            *(generator_loss(kind, logits) for kind in KINDS),
            *(critic_accuracy(kind, logits, logits) for kind in KINDS),
            drift_penalty(logits),
            domain_classification(logits, torch.zeros(4, dtype=torch.int64)),
            marginal_entropy(logits),
            gradient_penalty(watched, image.bfloat16(), image.bfloat16(), Draws(rng())),
            r1_penalty(critic(real), real),
        ]
    assert {result.dtype for result in results} == {torch.float32}
    assert seen == [torch.float32]


def test_wrong_inputs_are_refused():
    one, image = torch.zeros(2, 1), torch.zeros(2, 3, 4, 4)
    for call in (lambda: critic_loss("lsgn", one, one), lambda: critic_accuracy("lsgn", one, one)):
        with pytest.raises(ValueError, match="did you mean 'lsgan'"):
            call()
    with pytest.raises(ValueError, match="out of vanilla, lsgan, hinge, wgan_gp"):
        generator_loss("bce", one)
    with pytest.raises(ValueError, match="as many scales"):
        critic_loss("lsgan", [one, one], [one])
    with pytest.raises(ValueError, match="none of them empty"):
        generator_loss("lsgan", [])
    with pytest.raises(ValueError, match="none of them empty"):
        drift_penalty(torch.zeros(0, 1))
    with pytest.raises(ValueError, match="pass the first"):
        generator_loss("wgan_gp", (torch.zeros(2, 1, 3, 3), torch.zeros(2, 5)))
    with pytest.raises(ValueError, match="of one shape"):
        gradient_penalty(lambda x: x, image, image[:1], Draws(rng()))
    with pytest.raises(ValueError, match="logits with 2 rows"):
        gradient_penalty(lambda x: x.sum(), image, image, Draws(rng()))
    with pytest.raises(ValueError, match="requires_grad_"):
        r1_penalty(one, image)
    with pytest.raises(ValueError, match="int64 domains"):
        domain_classification(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="int64 domains"):
        domain_classification(torch.zeros(2, 3, 1), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"logits \[B, K\]"):
        marginal_entropy(torch.zeros(2, 1, 3, 3))
