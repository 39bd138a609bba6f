"""Intervals of quantiles and ratios against numpy's resampling, and that pairs are paired."""

import numpy as np
import pytest
import torch

from stylejobs.core.bootstrap import count_draws, mean_of_pairs
from stylejobs.core.metrics import paired_ratio, quantile_gain, quantile_interval, ratio_interval
from tests.core.features import draw


def test_a_quantile_by_numpy():
    values = draw((250,)).exp()
    found = quantile_interval(values, 0.05)
    rng = np.random.default_rng(0)
    again = [np.quantile(rng.choice(values.numpy(), 250), 0.05) for _ in range(2000)]
    assert found.value == pytest.approx(np.quantile(values.numpy(), 0.05))
    assert [found.low, found.high] == pytest.approx(np.quantile(again, [0.025, 0.975]), rel=0.1)
    assert quantile_interval(values, 0.05, confidence=0.8).low > found.low


def test_a_ratio_of_means_by_numpy():
    values, reference = draw((120,)).exp(), draw((90,), 1).exp() * 2
    found = ratio_interval(values, reference)
    rng = np.random.default_rng(0)
    again = [rng.choice(values.numpy(), 120).mean() / rng.choice(reference.numpy(), 90).mean() for _ in range(2000)]
    assert found.value == pytest.approx((values.mean() / reference.mean()).item())
    assert [found.low, found.high] == pytest.approx(np.quantile(again, [0.025, 0.975]), rel=0.06)


def test_pairs_are_sharper_than_two_samples():
    baseline = draw((100,)).exp()
    values = 1.1 * baseline + 0.01 * draw((100,), 1)
    paired, apart = paired_ratio(values, baseline), ratio_interval(values, baseline)
    assert paired.value == pytest.approx(apart.value) and paired.low > 1.05
    assert paired.high - paired.low < 0.1 * (apart.high - apart.low)
    assert paired_ratio(baseline, baseline) == (1.0, 1.0, 1.0)
    gain = quantile_gain(values + 0.5, values, 0.1)
    assert tuple(gain) == pytest.approx((0.5, 0.5, 0.5))
    for function in (paired_ratio, quantile_gain):
        with pytest.raises(ValueError, match="the same images"):
            function(values, baseline[1:])


def test_a_reference_of_zeros_is_no_ratio():
    with pytest.raises(ValueError, match="not a number"):
        ratio_interval(torch.ones(10), torch.zeros(10))


def test_counts_and_pairs():
    rows = torch.randint(7, (5, 9), generator=torch.Generator().manual_seed(0))
    expected = np.stack([np.bincount(row, minlength=7) for row in rows.numpy()])
    np.testing.assert_array_equal(count_draws(rows, 7).numpy(), expected)
    assert torch.equal(count_draws(None, 3), torch.ones(1, 3).double())
    value = draw((7, 7)) + draw((7, 7)).T
    for row, counts in zip(rows, count_draws(rows, 7), strict=True):
        pairs = [value[a, b].item() for n, a in enumerate(row) for m, b in enumerate(row) if a != b and n != m]
        assert mean_of_pairs(value, counts[None]).item() == pytest.approx(np.mean(pairs))
    assert mean_of_pairs(value, count_draws(torch.tensor([[2, 2]]), 7), alone=1.0).item() == 1.0
