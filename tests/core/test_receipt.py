"""The downstream receipt's numbers: against plain numpy, and whether the interval holds what it says."""

import numpy as np
import pytest
import torch

from stylejobs.core.receipt import Hits, compare_arms, gain_interval, read_receipt

NAMES = ("fog", "snow")


def draw(seeds: int, images: int, clean: float, corrupted: float, seed: int = 0) -> Hits:
    rng = np.random.default_rng(seed)
    return Hits(
        torch.from_numpy(rng.random((seeds, images)) < clean),
        torch.from_numpy(rng.random((seeds, len(NAMES), 5, images)) < corrupted),
    )


def test_the_numbers_are_plain_means():
    before, after = draw(3, 40, 0.8, 0.4), draw(3, 40, 0.7, 0.6, seed=1)
    receipt = compare_arms(before, after, NAMES)
    clean, corrupted = after.clean_SN.double().numpy(), after.corrupted_SCVN.double().numpy()
    assert receipt.mixed.clean.value == pytest.approx(clean.mean())
    assert receipt.mixed.corrupted.value == pytest.approx(corrupted.mean())
    np.testing.assert_allclose(receipt.mixed.clean_by_seed, clean.mean(axis=1))
    np.testing.assert_allclose(receipt.mixed.corrupted_by_seed, corrupted.mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(list(receipt.mixed.by_corruption.values()), corrupted.mean(axis=(0, 2, 3)))
    assert tuple(receipt.mixed.by_corruption) == NAMES
    then = before.corrupted_SCVN.double().numpy()
    assert receipt.corrupted_gain.value == pytest.approx(corrupted.mean() - then.mean())
    assert receipt.clean_gain.value == pytest.approx(clean.mean() - before.clean_SN.double().numpy().mean())
    ratios = (1 - corrupted.mean(axis=(0, 2, 3))) / (1 - then.mean(axis=(0, 2, 3)))
    assert receipt.error_ratio == pytest.approx(ratios.mean())
    assert receipt.num_images == 40


def test_the_interval_covers_images_and_seeds():
    """Normal numbers: variance of the gain = 2 * seed part / S * (S - 1) / S, and the image part / N."""
    rng, seeds, images = np.random.default_rng(0), 6, 400
    seed_sd, image_sd = 0.05, 0.5
    before = rng.normal(0.0, seed_sd, (seeds, 1)) + np.zeros((seeds, images))
    after = rng.normal(0.0, seed_sd, (seeds, 1)) + rng.normal(0.0, image_sd, (1, images))
    found = gain_interval(torch.from_numpy(before), torch.from_numpy(after))
    of_seeds = sum(arm.mean(axis=1).var() / seeds for arm in (before, after))
    of_images = (after - before).mean(axis=0).var() / images
    half = 1.96 * np.sqrt(of_seeds + of_images)
    assert found.value == pytest.approx(after.mean() - before.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    only_images = gain_interval(torch.from_numpy(before[:1].repeat(2, 0)), torch.from_numpy(after[:1].repeat(2, 0)))
    assert (only_images.high - only_images.low) / 2 == pytest.approx(1.96 * np.sqrt(of_images), rel=0.1)


def test_no_difference_is_found_where_there_is_none_and_a_large_one_is_found():
    found = [
        gain_interval(
            draw(3, 200, 0.7, 0.5, seed).clean_SN.float(), draw(3, 200, 0.7, 0.5, 100 + seed).clean_SN.float()
        )
        for seed in range(40)
    ]
    assert sum(interval.low > 0.0 or interval.high < 0.0 for interval in found) <= 6  # 2 expected; 6 has p < 0.02
    better = gain_interval(draw(3, 200, 0.5, 0.5).clean_SN.float(), draw(3, 200, 0.7, 0.5, 1).clean_SN.float())
    assert better.low > 0.0


@pytest.mark.parametrize(
    ("clean", "corrupted", "said"),
    [
        ((0.8, 0.8), (0.4, 0.6), "The stylized images help under corruption"),
        ((0.8, 0.8), (0.6, 0.4), "hurt under corruption"),
        ((0.8, 0.8), (0.5, 0.5), "No gain under corruption is shown"),
        ((0.9, 0.5), (0.4, 0.6), "more than the one that may be lost."),
    ],
)
def test_the_reading_says_what_the_intervals_say(clean, corrupted, said):
    arms = [draw(3, 300, clean[arm], corrupted[arm], seed=arm) for arm in (0, 1)]
    words = " ".join(read_receipt(compare_arms(*arms, NAMES)))
    assert said in words and "3 seeds an arm and 300 test images" in words


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="2 or more seeds"):
        draw(1, 40, 0.5, 0.5)
    with pytest.raises(ValueError, match="C names"):
        compare_arms(draw(2, 40, 0.5, 0.5), draw(2, 40, 0.5, 0.5), ("fog",))
    with pytest.raises(ValueError, match="C names"):
        compare_arms(draw(2, 40, 0.5, 0.5), draw(2, 41, 0.5, 0.5), NAMES)
    with pytest.raises(ValueError, match="the same images"):
        gain_interval(torch.zeros(2, 3), torch.zeros(2, 4))
