"""PatchNCE against loops, and its laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.losses import patch_nce
from tests.core.features import draw

shapes = st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(1, 5))


def reference(query_BND, key_BND, temperature):
    """One place at a time: the probability of choosing the right key among those of the image."""
    losses = []
    for queries, keys in zip(query_BND.numpy(), key_BND.numpy(), strict=True):
        for place, query in enumerate(queries):
            cosines = [query @ key / np.sqrt((query @ query) * (key @ key)) for key in keys]
            chances = np.exp(np.array(cosines) / temperature)
            losses.append(-np.log(chances[place] / chances.sum()))
    return np.mean(losses)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 10_000), st.floats(0.05, 2))
def test_against_loops(shape, seed, temperature):
    query, key = draw(shape, seed), draw(shape, seed + 1)
    assert patch_nce(query, key, temperature).item() == pytest.approx(reference(query, key, temperature), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_a_perfect_match_goes_to_zero_with_the_temperature(seed, places):
    features = draw((2, places, 16), seed)
    losses = [patch_nce(features, 3 * features, temperature).item() for temperature in (1.0, 0.07, 1e-3)]
    assert losses[0] > losses[1] >= losses[2] >= 0
    assert losses[2] < 1e-9
    # matched with the wrong place it costs the more the colder it is
    wrong = features.roll(1, dims=1)
    assert patch_nce(features, wrong, 0.01) > patch_nce(features, wrong, 0.1) > math.log(places)


def test_places_that_look_alike_cost_log_n():
    alike = draw((2, 1, 4)).expand(2, 7, 4)
    assert patch_nce(alike, alike).item() == pytest.approx(math.log(7))
    zeros = torch.zeros(1, 5, 3, requires_grad=True)
    loss = patch_nce(zeros, draw((1, 5, 3)).float())
    loss.backward()
    assert loss.item() == pytest.approx(math.log(5))
    assert zeros.grad.isfinite().all()


def test_lengths_and_order_do_not_matter_and_images_do_not_mix():
    query, key = draw((4, 5, 3)), draw((4, 5, 3), 1)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(2))
    lengths = draw((4, 5, 1), 3).abs() + 0.1
    loss = patch_nce(query, key)
    torch.testing.assert_close(patch_nce(query[:, order], key[:, order]), loss)
    torch.testing.assert_close(patch_nce(lengths * query, key / lengths), loss)
    torch.testing.assert_close((patch_nce(query[:2], key[:2]) + patch_nce(query[2:], key[2:])) / 2, loss)
    # the default is the paper's
    torch.testing.assert_close(patch_nce(query, key, temperature=0.07), loss)


def test_gradients_against_finite_differences():
    query, key = draw((2, 4, 3)).requires_grad_(), draw((2, 4, 3), 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: patch_nce(q, k, 0.5), (query, key))


def test_float32_under_autocast():
    query, key = draw((2, 6, 8)).bfloat16(), draw((2, 6, 8), 1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = patch_nce(query, key)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference(query.double(), key.double(), 0.07), rel=1e-5)


def test_wrong_inputs_are_refused():
    for query, key in (
        (torch.ones(1, 3, 4), torch.ones(1, 3, 5)),
        (torch.ones(3, 4), torch.ones(3, 4)),
        (torch.ones(2, 1, 4), torch.ones(2, 1, 4)),
    ):
        with pytest.raises(ValueError, match=r"of one shape \[B, N, D\] with N >= 2"):
            patch_nce(query, key)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature above 0"):
            patch_nce(torch.ones(1, 2, 3), torch.ones(1, 2, 3), temperature)
