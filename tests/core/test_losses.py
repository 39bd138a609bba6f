import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.losses import feature_loss, gram_distance, gram_loss, gram_matrix, total_variation
from tests.core.features import draw

shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.integers(1, 7))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 1000))
def test_gram_is_numpys_symmetric_and_positive_semidefinite(shape, seed):
    features = draw(shape, seed, torch.float32)
    batch, channels, height, width = shape
    flat = features.numpy().astype(np.float64).reshape(batch, channels, -1)
    expected = np.einsum("bcn,bdn->bcd", flat, flat) / (channels * height * width)
    gram = gram_matrix(features)
    np.testing.assert_allclose(gram.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert torch.allclose(gram, gram.transpose(1, 2), atol=1e-7)
    assert torch.linalg.eigvalsh(gram.double()).min() > -1e-6


def test_gram_forgets_places():
    features = draw((2, 3, 4, 5))
    shuffled = features.flatten(2)[:, :, torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(gram_matrix(shuffled.reshape(2, 3, 4, 5)), gram_matrix(features))


def test_gram_is_float32_under_autocast_and_for_half_input():
    features = torch.full((1, 2, 64, 64), 300.0, dtype=torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        gram = gram_matrix(features)
    assert gram.dtype == torch.float32
    torch.testing.assert_close(gram, torch.full((1, 2, 2), 45_000.0))


def test_gram_loss_and_feature_loss_in_closed_form():
    assert gram_loss(torch.zeros(2, 3, 3), torch.full((1, 3, 3), 2.0)).item() == 4.0
    assert feature_loss(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0, 4.0]]]])).item() == 2.5
    assert feature_loss(draw((1, 2, 3, 3)).half(), draw((1, 2, 3, 3)).half()).dtype == torch.float32


def test_gram_distance_is_relative_and_has_a_finite_gradient_at_the_target():
    grams, target = gram_matrix(draw((3, 4, 5, 5))), gram_matrix(draw((1, 4, 5, 5), 1))
    expected = np.mean([np.linalg.norm(gram - target[0]) / np.linalg.norm(target[0]) for gram in grams])
    assert gram_distance(grams, target).item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(gram_distance(7 * grams, 7 * target), gram_distance(grams, target))
    assert gram_distance(torch.zeros_like(target), target).item() == pytest.approx(1.0)
    at_target = target.clone().requires_grad_()
    gram_distance(at_target, target).backward()
    assert at_target.grad.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(shapes, st.floats(-3, 3), st.floats(-3, 3))
def test_total_variation_of_a_ramp(shape, down, right):
    height, width = shape[2:]
    rows, columns = torch.arange(height).double()[:, None], torch.arange(width).double()[None]
    ramp = (down * rows + right * columns).expand(shape)
    steps_down, steps_right = (height - 1) * width, height * (width - 1)
    expected = (abs(down) * steps_down + abs(right) * steps_right) / (height * width)
    assert total_variation(ramp).item() == pytest.approx(expected, abs=1e-12)


def test_total_variation_is_a_seminorm_blind_to_offsets():
    a, b = draw((2, 3, 5, 6)), draw((2, 3, 5, 6), 1)
    torch.testing.assert_close(total_variation(a + 7.0), total_variation(a))
    torch.testing.assert_close(total_variation(-2.0 * a), 2.0 * total_variation(a))
    assert total_variation(a + b) <= total_variation(a) + total_variation(b)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda x: feature_loss(x, draw((2, 3, 4, 4), 9)), (2, 3, 4, 4)),
        (lambda x: gram_loss(gram_matrix(x), gram_matrix(draw((1, 3, 4, 4), 9))), (2, 3, 4, 4)),
        (lambda x: gram_distance(gram_matrix(x), gram_matrix(draw((1, 3, 4, 4), 9))), (2, 3, 4, 4)),
        (total_variation, (2, 3, 4, 5)),
    ],
)
def test_gradients_against_finite_differences(loss, shape):
    assert torch.autograd.gradcheck(loss, draw(shape).requires_grad_())


def test_the_mean_of_two_halves_is_the_mean_of_the_whole():
    # What makes N workers at batch B one worker at batch N * B.
    x, target = draw((4, 3, 5, 6)), draw((4, 3, 5, 6), 1)
    grams, gram = gram_matrix(x), gram_matrix(target[:1])
    for loss in (
        lambda rows: total_variation(x[rows]),
        lambda rows: feature_loss(x[rows], target[rows]),
        lambda rows: gram_loss(grams[rows], gram),
        lambda rows: gram_distance(grams[rows], gram),
    ):
        halves = (loss(slice(0, 2)) + loss(slice(2, 4))) / 2
        torch.testing.assert_close(halves, loss(slice(0, 4)))


def test_mismatched_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        feature_loss(draw((1, 2, 3, 3)), draw((1, 2, 3, 4)))
    with pytest.raises(ValueError, match="one target or one for every row"):
        gram_loss(torch.zeros(3, 2, 2), torch.zeros(2, 2, 2))
