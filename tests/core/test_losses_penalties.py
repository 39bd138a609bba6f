"""What is added to a critic's loss: penalties on gradients, domains told apart, entropy of labels."""

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
    domain_classification,
    gradient_penalty,
    marginal_entropy,
    r1_penalty,
)
from tests.core.features import draw, rng, seeds


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.1, 5))
def test_gradient_penalty_of_a_linear_critic(seed, norm):
    weight = draw((3, 4, 4), seed)
    weight = (norm * weight / weight.norm()).requires_grad_()
    real, fake = draw((2, 3, 4, 4), seed + 1), draw((2, 3, 4, 4), seed + 2)
    penalty = gradient_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3))[:, None] + 5.0, real, fake, Draws(rng(seed)))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-12)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * (norm - 1) * weight.detach() / norm, rtol=1e-9, atol=1e-12)


def test_gradient_penalty_is_taken_between_the_pairs():
    real, fake = draw((5, 2, 3, 3), 1), draw((5, 2, 3, 3), 2)
    shares = torch.rand(5, generator=rng(3)).double().numpy()
    points = [e * r + (1 - e) * f for e, r, f in zip(shares, real.numpy(), fake.numpy(), strict=True)]
    # The slope of |x|^2 / 2 is x itself.
    expected = np.mean([(np.linalg.norm(point) - 1) ** 2 for point in points])
    penalty = gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, real, fake, Draws(rng(3)))
    assert penalty.item() == pytest.approx(expected, rel=1e-12)
    assert gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, real, fake, Draws(rng(4))) != penalty


def test_penalties_of_patches_scales_and_heads():
    weight, image = draw((3,)), draw((2, 3, 4, 6), 1)

    def patches(x):  # each logit sees one pixel: the slope of their mean is the weight / 24 at each of 24 pixels
        return torch.einsum("bchw,c->bhw", x, weight)[:, None]

    norm = weight.norm().item() / math.sqrt(24)
    for critic, slope in (
        (patches, norm),
        (lambda x: (patches(x), x.mean(dim=(2, 3))), norm),
        (lambda x: [patches(x), 3 * patches(x)], 2 * norm),
        (lambda x: ([patches(x), 3 * patches(x)], x.mean(dim=(2, 3))), 2 * norm),
    ):
        assert gradient_penalty(critic, image, image + 1, Draws(rng())).item() == pytest.approx((slope - 1) ** 2)
    real = image.clone().requires_grad_()
    assert r1_penalty(patches(real), real).item() == pytest.approx(norm**2 / 2)
    assert r1_penalty([patches(real), 3 * patches(real)], real).item() == pytest.approx((2 * norm) ** 2 / 2)


def test_r1_of_a_quadratic_critic():
    real = draw((4, 2, 3, 3)).requires_grad_()
    expected = np.mean([np.sum(row**2) for row in real.detach().numpy()]) / 2
    assert r1_penalty(real.square().sum(dim=(1, 2, 3)) / 2, real).item() == pytest.approx(expected)


def test_penalties_second_derivatives_against_finite_differences():
    real, fake = draw((2, 1, 3, 3), 1), draw((2, 1, 3, 3), 2)

    def critic(x, weight):
        return torch.tanh(torch.nn.functional.conv2d(x, weight)).square()

    def r1(weight):
        image = real.clone().requires_grad_()
        return r1_penalty(critic(image, weight), image)

    weight = draw((2, 1, 2, 2), 3).requires_grad_()
    assert torch.autograd.gradcheck(r1, (weight,))
    assert torch.autograd.gradcheck(
        lambda w: gradient_penalty(lambda x: critic(x, w), real, fake, Draws(rng())), (weight,)
    )


def test_gradient_penalty_leaves_the_images_alone_and_survives_a_flat_critic():
    weight = torch.zeros(3, 4, 4, requires_grad=True)
    real, fake = draw((2, 3, 4, 4)).float().requires_grad_(), draw((2, 3, 4, 4), 1).float().requires_grad_()
    before = torch.get_rng_state()
    penalty = gradient_penalty(lambda x: (x.square() * weight).sum(dim=(1, 2, 3)), real, fake, Draws(rng()))
    penalty.backward()
    assert penalty.item() == 1.0
    assert weight.grad.isfinite().all()
    curved = gradient_penalty(lambda x: (x.square() * (weight + 1)).sum(dim=(1, 2, 3)), real, fake, Draws(rng()))
    curved.backward()
    assert real.grad is None
    assert fake.grad is None
    assert torch.equal(before, torch.get_rng_state())


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 5), st.integers(1, 6))
def test_domain_classification_against_scipy(seed, batch, domains):
    logits = 3 * draw((batch, domains), seed)
    domain = torch.randint(domains, (batch,), generator=rng(seed))
    chosen = [scipy.special.log_softmax(row)[k] for row, k in zip(logits.numpy(), domain.tolist(), strict=True)]
    assert domain_classification(logits, domain).item() == pytest.approx(-np.mean(chosen), abs=1e-12)
    assert domain_classification(0 * logits, domain).item() == pytest.approx(math.log(domains), abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: domain_classification(x, domain), logits.requires_grad_())


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 5), st.integers(2, 6), st.floats(0, 50))
def test_entropy_against_scipy_and_its_bounds(seed, batch, classes, scale):
    logits = scale * draw((batch, classes), seed)
    mean = np.mean([scipy.special.softmax(row) for row in logits.numpy()], axis=0)
    entropy = marginal_entropy(logits).item()
    assert entropy == pytest.approx(scipy.stats.entropy(mean), abs=1e-9)
    assert -1e-12 <= entropy <= math.log(classes) + 1e-12


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_entropy_of_the_rows_of_several_workers(seed, rows, classes, num_workers):
    """Each finds the entropy of all rows; the mean of their gradients is that of all rows."""
    logits = (3 * draw((rows * num_workers, classes), seed)).requires_grad_()
    whole = marginal_entropy(logits)
    (wanted,) = torch.autograd.grad(whole, logits)
    own: list[torch.Tensor] = []
    for rank in range(num_workers):
        marginal_entropy(logits[rank::num_workers], lambda p_K: own.append(p_K) or p_K)
    of_all = torch.stack(own).mean(dim=0)
    entropies = [marginal_entropy(logits[rank::num_workers], lambda p_K: of_all) for rank in range(num_workers)]
    torch.testing.assert_close(torch.stack(entropies), whole.expand(num_workers), rtol=0.0, atol=1e-12)
    (found,) = torch.autograd.grad(sum(entropies) / num_workers, logits)
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-12)
    assert not any(p_K.requires_grad for p_K in own)


def test_entropy_at_its_ends():
    one_hot = 200 * torch.eye(4)
    assert marginal_entropy(one_hot).item() == pytest.approx(math.log(4))  # each sure, together diverse
    assert marginal_entropy(one_hot[:1].expand(4, 4)).item() == 0.0  # collapsed
    collapsed = (1000 * torch.eye(4)[:1].expand(4, 4)).clone().requires_grad_()
    marginal_entropy(collapsed).backward()
    assert collapsed.grad.isfinite().all()


def test_entropy_of_yes_or_no():
    logits = draw((6, 1))
    share = scipy.special.expit(logits.numpy()).mean()
    assert marginal_entropy(logits).item() == pytest.approx(scipy.stats.entropy([share, 1 - share]))
    assert marginal_entropy(torch.zeros(3, 1)).item() == pytest.approx(math.log(2))
    for shape in ((3, 4), (3, 1)):
        assert torch.autograd.gradcheck(marginal_entropy, draw(shape).requires_grad_())
