"""Intervals against formulas and numpy, their coverage on known distributions, and the bounds of every argument."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stylejobs.core.bootstrap import Interval, bootstrap_interval, mean_interval, share_interval


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_interval_of_a_mean_is_the_textbooks():
    values = draws(400).exp()
    found = bootstrap_interval(lambda rows: values[rows].mean(dim=1), (400,), num_resamples=4000)
    assert found.value == pytest.approx(values.mean().item())
    half = 1.96 * values.std().item() / 20
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.15 * half)


@pytest.mark.parametrize(("confidence", "lowest", "highest"), [(0.95, 0.92, 0.97), (0.8, 0.75, 0.84)])
def test_coverage_is_the_nominal_one(confidence, lowest, highest):
    """400 panels of 80 draws from a skewed distribution of mean 1: the intervals hold 1 as often as they say."""
    panels = -torch.log(torch.rand(400, 80, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    held = 0
    for seed, panel in enumerate(panels):
        found = mean_interval(panel, confidence, num_resamples=400, seed=seed)
        held += found.low <= 1.0 <= found.high
    assert lowest <= held / 400 <= highest


def test_a_quantile_and_two_samples_by_numpy_resampling():
    first, second = draws(60), draws(40, seed=1) + 1
    found = bootstrap_interval(
        lambda x, y: first[x].quantile(0.05, dim=1) - second[y].mean(dim=1), (60, 40), num_resamples=2000
    )
    rng = np.random.default_rng(0)
    again = [
        np.quantile(rng.choice(first.numpy(), 60), 0.05) - rng.choice(second.numpy(), 40).mean() for _ in range(2000)
    ]
    assert found.value == pytest.approx(np.quantile(first.numpy(), 0.05) - second.mean().item())
    assert [found.low, found.high] == pytest.approx(np.quantile(again, [0.025, 0.975]), abs=0.12)


def test_a_difference_inside_the_statistic_is_paired():
    image_effect = 5 * draws(50)
    a, b = image_effect + 0.1 * draws(50, seed=1), image_effect + 0.2 + 0.1 * draws(50, seed=2)
    paired = bootstrap_interval(lambda rows: (b[rows] - a[rows]).mean(dim=1), (50,))
    alone = mean_interval(b)
    assert paired.low > 0 and paired.high - paired.low < 0.1 * (alone.high - alone.low)


def test_seeds_share_the_images_of_a_resample():
    """Three trainings that differ by a constant say no more about the images than one does."""
    one = draws(64)
    three = torch.stack([one - 1, one, one + 1])
    assert mean_interval(three) == pytest.approx(mean_interval(one))
    assert mean_interval(three, seed=1) != mean_interval(three) == mean_interval(three)


def test_many_images_are_resampled_in_parts():
    values, calls = draws(100_000), []
    found = bootstrap_interval(
        lambda rows: calls.append(rows.numel()) or values[rows].mean(dim=1), (100_000,), num_resamples=100
    )
    assert max(calls) <= 2**22 and sum(calls) == 101 * 100_000
    assert found.low < found.value < found.high


@settings(max_examples=40, deadline=None)
@given(num=st.integers(1, 400), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_share_is_scipys_wilson(num, share, confidence):
    hits = round(num * share)
    found = share_interval(torch.arange(num) < hits, confidence)
    expected = stats.binomtest(hits, num).proportion_ci(confidence, method="wilson")
    assert found.value == pytest.approx(hits / num)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_wrong_arguments_are_named():
    def mean(rows: torch.Tensor) -> torch.Tensor:
        return rows.double().mean(dim=1)

    for wrong in ({"sizes": ()}, {"sizes": (1,)}, {"confidence": 1.0}, {"num_resamples": 99}):
        with pytest.raises(ValueError, match="at least 100 resamples"):
            bootstrap_interval(mean, **{"sizes": (5,), **wrong})
    with pytest.raises(ValueError, match="one number a resample"):
        bootstrap_interval(lambda rows: rows.double(), (5,))
    with pytest.raises(ValueError, match="not a number"):
        bootstrap_interval(lambda rows: 1.0 / rows.double().var(dim=1), (2,))
    with pytest.raises(ValueError, match="training seeds"):
        mean_interval(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="bool"):
        share_interval(torch.ones(3))
    assert Interval(1.0, 0.5, 2.0)._fields == ("value", "low", "high")


def test_a_centred_interval_is_the_other_one_moved_onto_its_value():
    values = draws(50)

    def distance(rows: torch.Tensor) -> torch.Tensor:
        return values[rows].mean(dim=1).abs()

    plain, moved = (bootstrap_interval(distance, (50,), centred=centred) for centred in (False, True))
    rng = torch.Generator().manual_seed(0)
    middle = distance(torch.randint(50, (1000, 50), generator=rng)).median().item()
    assert moved.value == plain.value and moved.low < moved.value < moved.high
    assert moved.low - plain.low == pytest.approx(moved.high - plain.high)
    assert moved.low - plain.low == pytest.approx(plain.value - middle, abs=1e-3)
