"""Statistics of features beyond the Gram matrix: moments, Wasserstein distances, and what all such losses promise."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.losses import gaussian_wasserstein, moments_loss, mrf_loss
from tests.core.features import draw, points, rng, seeds, sizes, sliced

LOSSES = {"moments": moments_loss, "gaussian": gaussian_wasserstein, "sliced": sliced, "mrf": mrf_loss}


STATISTICS = {name: loss for name, loss in LOSSES.items() if name != "mrf"}


every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


every_statistic = pytest.mark.parametrize("loss", STATISTICS.values(), ids=STATISTICS)


def reference_gaussian(a_CHW, b_CHW, floor=1e-6):
    """With scipy's matrix square roots, of the covariances with the documented floor."""
    (mean_a, cov_a), (mean_b, cov_b) = (
        (p.mean(1), np.atleast_2d(np.cov(p, bias=True))) for p in map(points, (a_CHW, b_CHW))
    )
    floor = floor * (np.trace(cov_a) + np.trace(cov_b)) / (2 * len(cov_a)) * np.eye(len(cov_a))
    cov_a, cov_b = cov_a + floor, cov_b + floor
    root_b = scipy.linalg.sqrtm(cov_b)
    cross = scipy.linalg.sqrtm(root_b @ cov_a @ root_b)
    return (np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * cross).real) / len(cov_a)


@every_loss
@settings(max_examples=15, deadline=None)
@given(seed=seeds, size=st.tuples(st.integers(3, 6), st.integers(3, 6)))
def test_the_style_itself_costs_nothing_and_nothing_costs_less(loss, seed, size):
    features, target = draw((2, 3, *size), seed), draw((2, 3, 4, 5), seed + 1)
    assert abs(loss(features, features).item()) < 1e-9
    assert loss(features, target).item() > 1e-4


@every_loss
def test_gradients_against_finite_differences(loss):
    for size, target_size in (((3, 4), (4, 3)), ((3, 3), (3, 5))):
        features, target = draw((2, 3, *size)).requires_grad_(), draw((1, 3, *target_size), 1).requires_grad_()
        assert torch.autograd.gradcheck(loss, (features, target))


@every_loss
def test_rows_count_alike_and_one_target_serves_all(loss):
    features, target = draw((4, 3, 4, 5)), draw((4, 3, 5, 3), 1)
    rows = torch.stack([loss(features[i : i + 1], target[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(loss(features, target), rows.mean())
    torch.testing.assert_close(loss(features, target[:1]), loss(features, target[:1].expand(4, -1, -1, -1)))


@every_loss
def test_float32_under_autocast_and_near_float64(loss):
    features, target = draw((2, 16, 5, 6)).bfloat16(), draw((1, 16, 7, 7), 1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = loss(features, target)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(loss(features.double(), target.double()).item(), rel=1e-5)
    assert loss(features.double(), target.double()).dtype == torch.float64


@every_loss
@pytest.mark.parametrize("level", [0.0, 3.0])
def test_flat_and_equal_features_have_finite_gradients(loss, level):
    flat = torch.full((1, 8, 3, 3), level)
    for features, target in ((flat, draw((1, 8, 4, 4)).float()), (flat, flat), (draw((1, 8, 3, 3)).float(), flat)):
        features = features.clone().requires_grad_()
        result = loss(features, target)
        result.backward()
        assert result.isfinite()
        assert features.grad.isfinite().all()
        assert features.grad.abs().max() < 100


@every_loss
def test_wrong_shapes_are_refused(loss):
    features = torch.ones(3, 4, 5, 5)
    for target in (torch.ones(3, 5, 5, 5), torch.ones(2, 4, 5, 5), torch.ones(4, 5, 5), torch.ones(1, 4, 0, 5)):
        with pytest.raises(ValueError, match="one target or one for every row"):
            loss(features, target)


@every_statistic
@settings(max_examples=15, deadline=None)
@given(seed=seeds, size=sizes, target_size=sizes)
def test_statistics_are_symmetric_and_forget_places(loss, seed, size, target_size):
    features, target = draw((1, 3, *size), seed), draw((1, 3, *target_size), seed + 1)
    torch.testing.assert_close(loss(features, target), loss(target, features), rtol=1e-7, atol=1e-9)
    order = torch.randperm(math.prod(size), generator=rng(seed))
    shuffled = features.flatten(2)[:, :, order].reshape(features.shape)
    torch.testing.assert_close(loss(shuffled, target), loss(features, target), rtol=1e-7, atol=1e-9)


@every_statistic
@settings(max_examples=15, deadline=None)
@given(seeds)
def test_roots_of_statistics_obey_the_triangle_inequality(loss, seed):
    a, b, c = (draw((1, 3, 4, 4), seed + n) * (n + 1) for n in range(3))
    root = {pair: loss(*pair).sqrt().item() for pair in ((a, b), (b, c), (a, c))}
    assert root[a, c] <= root[a, b] + root[b, c] + 1e-5


@settings(max_examples=25, deadline=None)
@given(seeds, sizes, sizes)
def test_moments_against_numpy(seed, size, target_size):
    features, target = draw((2, 3, *size), seed), draw((1, 3, *target_size), seed + 1)
    expected = []
    for row in features:
        a, b = points(row), points(target[0])
        stds = [np.sqrt(((p - p.mean(1, keepdims=True)) ** 2).mean(1) + 1e-5) for p in (a, b)]
        expected.append(np.mean((a.mean(1) - b.mean(1)) ** 2 + (stds[0] - stds[1]) ** 2))
    assert moments_loss(features, target).item() == pytest.approx(np.mean(expected), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(3, 6), st.integers(3, 6))
def test_gaussian_against_scipys_matrix_roots(seed, channels, height, width):
    features, target = draw((2, channels, height, width), seed), 2 * draw((2, channels, 5, 4), seed + 1) + 1
    expected = np.mean([reference_gaussian(a, b) for a, b in zip(features, target, strict=True)])
    assert gaussian_wasserstein(features, target).item() == pytest.approx(expected, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(0.2, 4))
def test_gaussian_in_closed_form(seed, factor):
    target = draw((1, 4, 5, 6), seed)
    cloud, shift = points(target[0]), draw((1, 4, 1, 1), seed + 1)
    # A shift costs its square; a scaling by a costs (a - 1)^2 times the mean square.
    shifted = gaussian_wasserstein(target + shift, target).item()
    assert shifted == pytest.approx(shift.square().mean().item(), abs=1e-9)
    scaled = gaussian_wasserstein(factor * target, target).item()
    assert scaled == pytest.approx((factor - 1) ** 2 * np.mean(cloud**2), rel=1e-4, abs=1e-9)
    # Turning both changes nothing.
    turn, other = scipy.stats.special_ortho_group.rvs(4, random_state=seed), draw((1, 4, 4, 4), seed + 2)
    turned = [torch.einsum("dc,bchw->bdhw", torch.from_numpy(turn), x) for x in (target, other)]
    torch.testing.assert_close(gaussian_wasserstein(*turned), gaussian_wasserstein(target, other))


def test_gaussian_without_correlations_is_the_moments_loss():
    # Rows of a Hadamard matrix have mean 0 and are orthogonal.
    signs = torch.from_numpy(scipy.linalg.hadamard(8)[1:5].astype(np.float64)).reshape(1, 4, 2, 4)
    scale, shift = draw((2, 1, 4, 1, 1)).abs() + 0.5, draw((2, 1, 4, 1, 1), 1)
    features, target = scale[0] * signs + shift[0], scale[1] * signs.flip(1) + shift[1]
    torch.testing.assert_close(
        gaussian_wasserstein(features, target), moments_loss(features, target), rtol=1e-4, atol=1e-5
    )


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(2, 12), st.integers(2, 12))
def test_the_floor_of_the_covariances_costs_little(seed, num, num_target):
    # 12 channels of a few pixels: neither covariance has full rank. The reference has no floor and no inverse.
    features, target = draw((1, 12, 1, num), seed), draw((1, 12, 1, num_target), seed + 1)
    centred = [p - p.mean(1, keepdims=True) for p in (points(features[0]), points(target[0]))]
    cross = np.linalg.svd(centred[0].T @ centred[1], compute_uv=False).sum() / math.sqrt(num * num_target)
    shift = points(features[0]).mean(1) - points(target[0]).mean(1)
    traces = [np.sum(p**2) / p.shape[1] for p in centred]
    exact = (shift @ shift + sum(traces) - 2 * cross) / 12
    mean_variance = sum(traces) / 24
    assert exact - 2e-3 * mean_variance <= gaussian_wasserstein(features, target).item() <= exact + 1e-5 * mean_variance


@pytest.mark.parametrize("rounding", [0.0, 1e-14])
def test_a_covariance_of_rank_one_is_safe(monkeypatch, rounding):
    # One direction holds everything: the other eigenvalues may drown in the rounding of the largest. LAPACK happens to
    # be better than its bound; other solvers need not be.
    exact, seen = torch.linalg.eigvalsh, []

    def rounded(matrix):
        values = exact(matrix)
        seen.append((values - rounding * values.max()).min().item())
        return values - rounding * values.max()

    monkeypatch.setattr(torch.linalg, "eigvalsh", rounded)
    features = (draw((1, 256, 1, 1)) * draw((1, 1, 6, 6), 1)).requires_grad_()
    target = 2 * features.detach()
    loss = gaussian_wasserstein(features, target)
    loss.backward()
    assert (seen[0] < 0) == (rounding > 0)
    assert loss.item() == pytest.approx(np.mean(points(features[0]) ** 2), rel=1e-2)
    expected = 2 * (features - target).detach() / features.numel()
    torch.testing.assert_close(features.grad, expected, rtol=1e-2, atol=1e-6)


def test_the_gaussian_gradient_is_the_way_to_the_transported_point():
    features, target = draw((1, 4, 6, 6)).requires_grad_(), 1.5 * draw((1, 4, 5, 7), 1) + 0.5
    gaussian_wasserstein(features, target).backward()
    a, b = points(features[0]), points(target[0])
    cov_a, cov_b = np.cov(a, bias=True), np.cov(b, bias=True)
    root_a = scipy.linalg.sqrtm(cov_a)
    back = np.linalg.inv(root_a)
    transport = back @ scipy.linalg.sqrtm(root_a @ cov_b @ root_a) @ back
    moved = b.mean(1, keepdims=True) + transport @ (a - a.mean(1, keepdims=True))
    expected = 2 * (a - moved) / (4 * 36)
    np.testing.assert_allclose(features.grad[0].reshape(4, -1).numpy(), expected, rtol=1e-3, atol=1e-6)


def test_descending_the_gaussian_distance_arrives():
    features = draw((1, 16, 3, 3)).float().requires_grad_()  # fewer pixels than channels
    target = 2 * draw((1, 16, 3, 3), 1).float() + 1
    optimizer = torch.optim.Adam([features], lr=0.05)
    first = gaussian_wasserstein(features, target).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss = gaussian_wasserstein(features, target)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01 * first
