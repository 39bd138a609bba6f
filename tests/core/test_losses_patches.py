"""Style losses on single features and patches: sliced transport and nearest patches."""

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.losses import gaussian_wasserstein, mrf_loss
from stylejobs.core.losses import style as style_module
from tests.core.features import draw, points, rng, seeds, sizes, sliced


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 7), st.integers(1, 7))
def test_on_a_line_it_is_the_cheapest_transport(seed, num, num_target):
    features, target = draw((1, 1, 1, num), seed), draw((1, 1, 1, num_target), seed + 1)
    # Each pixel repeated until both sets are of one size, then the cheapest one-to-one assignment.
    a, b = np.repeat(features.numpy().ravel(), num_target), np.repeat(target.numpy().ravel(), num)
    cost = (a[:, None] - b[None]) ** 2
    expected = cost[scipy.optimize.linear_sum_assignment(cost)].mean()
    assert sliced(features, target, 3, seed).item() == pytest.approx(expected, rel=1e-9)
    # W_1 <= W_2, and both are |shift| for a shifted set.
    one = scipy.stats.wasserstein_distance(features.numpy().ravel(), target.numpy().ravel())
    assert one**2 <= expected + 1e-12
    shifted = features + 2.5
    one = scipy.stats.wasserstein_distance(features.numpy().ravel(), shifted.numpy().ravel())
    assert sliced(features, shifted).item() == pytest.approx(one**2)


def test_sliced_is_the_mean_over_its_directions():
    features, target = draw((2, 3, 4, 4)), draw((2, 3, 4, 4), 1)
    directions = torch.randn(6, 3, generator=rng(5)).double().numpy()
    expected = []
    for a, b in zip(features, target, strict=True):
        for direction in directions:
            on_line = [np.sort(direction @ points(x)) / np.linalg.norm(direction) for x in (a, b)]
            expected.append(np.mean((on_line[0] - on_line[1]) ** 2))
    assert sliced(features, target, 6, 5).item() == pytest.approx(np.mean(expected), rel=1e-7)


def test_sliced_draws_from_its_generator_alone():
    features, target = draw((2, 3, 4, 4)), draw((2, 3, 4, 4), 1)
    before = torch.get_rng_state()
    assert sliced(features, target, seed=1) == sliced(features, target, seed=1)
    assert sliced(features, target, seed=1) != sliced(features, target, seed=2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_shift_costs_its_square_over_the_channels():
    features, shift = draw((1, 4, 3, 3)), draw((1, 4, 1, 1), 1)
    result = sliced(features + shift, features, 20_000).item()
    assert result == pytest.approx(shift.square().mean().item(), rel=0.03)
    with pytest.raises(ValueError, match="at least one projection"):
        sliced(features, features, 0)


def test_sliced_sees_what_gaussians_do_not():
    # Two shapes of one mean and one variance: a coin's two sides, and a bell.
    quantiles = scipy.stats.norm.ppf((np.arange(64) + 0.5) / 64)
    bell = torch.from_numpy(quantiles / quantiles.std()).reshape(1, 1, 8, 8)
    coin = bell.sign()
    assert abs(gaussian_wasserstein(bell, coin).item()) < 1e-9
    assert sliced(bell, coin).item() > 0.3


def reference_mrf(features_CHW, target_CHW, patch_px, stride):
    def patches(array):
        rows = range(0, array.shape[1] - patch_px + 1, stride)
        columns = range(0, array.shape[2] - patch_px + 1, stride)
        return [array[:, r : r + patch_px, c : c + patch_px].ravel() for r in rows for c in columns]

    losses = []
    for patch in patches(features_CHW.numpy()):
        cosines = [(patch @ other / np.linalg.norm(other), n) for n, other in enumerate(patches(target_CHW.numpy()))]
        nearest = patches(target_CHW.numpy())[max(cosines)[1]]
        losses.append(np.mean((patch - nearest) ** 2))
    return np.mean(losses)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 3), st.integers(1, 2), sizes)
def test_mrf_against_loops(seed, patch_px, stride, size):
    features, target = draw((2, 2, 5, 4), seed), draw((2, 2, size[0] + 1, size[1] + 1), seed + 1)
    rows = zip(features, target, strict=True)
    expected = np.mean([reference_mrf(a, b, patch_px, stride) for a, b in rows])
    assert mrf_loss(features, target, patch_px, stride).item() == pytest.approx(expected, rel=1e-9)


def test_mrf_matches_in_parts_as_in_one_piece(monkeypatch):
    features, target = draw((2, 3, 6, 7)), draw((1, 3, 6, 5), 1)
    whole = mrf_loss(features, target)
    monkeypatch.setattr(style_module, "_MATCH_ROWS", 3)
    torch.testing.assert_close(mrf_loss(features, target), whole, rtol=0, atol=0)


def test_mrf_finds_pieces_of_the_style_wherever_they_are():
    target = draw((1, 3, 8, 8))
    assert mrf_loss(target[:, :, 2:7, 1:6], target).item() == 0.0
    # The match is by direction, the price by distance: twice the style is matched with itself.
    everywhere = torch.nn.functional.unfold(target, 3)
    torch.testing.assert_close(mrf_loss(2 * target, target), everywhere.square().mean())
    torch.testing.assert_close(mrf_loss(target.flip(3), target.flip(3)), torch.zeros((), dtype=torch.float64))
    assert mrf_loss(target.flip(3), target) > 0.1


def test_patches_that_do_not_fit_are_refused():
    features, target = torch.ones(1, 2, 5, 5), torch.ones(1, 2, 2, 5)
    for patch_px, stride in ((3, 1), (0, 1), (2, 0)):
        with pytest.raises(ValueError, match="patches of 1 to 2 cells"):
            mrf_loss(features, target, patch_px, stride)
