"""Sanity rows against scipy and their laws: what is spoilt, by how much, and whose place is taken."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from stylejobs.core.metrics import blur, checkerboard, collapsed, copies, noise, shuffled
from tests.core.features import draw


@pytest.mark.parametrize(("height", "width", "sigma_px"), [(20, 31, 2.0), (9, 40, 1.0), (40, 41, 3.3)])
def test_blur_is_scipys(height, width, sigma_px):
    image = draw((2, 3, height, width))
    expected = ndimage.gaussian_filter(
        image.numpy(), (0, 0, sigma_px, sigma_px), mode="mirror", radius=(0, 0, *2 * (round(3 * sigma_px),))
    )
    np.testing.assert_allclose(blur(image, sigma_px).numpy(), expected, atol=1e-12)
    with pytest.raises(ValueError, match="sides above 6 px"):
        blur(torch.zeros(1, 3, 6, 9))


def test_noise_is_a_rows_own_and_clipped():
    image = torch.zeros(40, 3, 32, 32)
    made = noise(image, std=0.1, seed=5)
    assert made.mean().abs() < 1e-3 and made.std().item() == pytest.approx(0.1, rel=0.01)
    assert torch.equal(torch.cat([noise(image[:7], seed=5), noise(image[7:], seed=12)]), made)
    assert not torch.equal(made[0], made[1])
    assert noise(image + 0.95).max() == 1.0


def test_checkerboard_is_the_highest_frequency_in_both_axes():
    made = checkerboard(torch.full((1, 3, 6, 8), 0.5), amplitude=0.06)
    assert torch.equal(made[:, :, 1:], made[:, :, :-1].flip(3)), "every other pixel"
    spectrum = torch.fft.fft2(made - 0.5)[0, 0].abs()
    assert spectrum[3, 4].item() == pytest.approx(0.06 * 48, rel=1e-4)
    assert (spectrum > 1e-4).sum() == 1
    assert checkerboard(torch.ones(1, 3, 4, 4)).max() == 1.0


@given(num=st.integers(2, 300), seed=st.integers(0, 999))
def test_no_image_keeps_its_place(num, seed):
    rows = shuffled(num, seed)
    assert sorted(rows.tolist()) == list(range(num))
    assert not (rows == torch.arange(num)).any()
    assert torch.equal(rows, shuffled(num, seed))


@given(num=st.integers(1, 50), styles=st.integers(1, 20), seed=st.integers(0, 99))
def test_copies_take_all_style_images_alike(num, styles, seed):
    counts = np.bincount(copies(num, styles, seed), minlength=styles)
    assert len(counts) == styles and counts.sum() == num and np.ptp(counts) <= 1


def test_a_collapse_is_one_image_with_little_noise():
    style = draw((3, 16, 16)).clamp(-0.9, 0.9).float()
    made = collapsed(style, 30)
    assert made.shape == (30, 3, 16, 16)
    assert (made - style).std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(made[0], made[1])


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="at least 2 images"):
        shuffled(1)
    with pytest.raises(ValueError, match="one style image; got 3 and 0"):
        copies(3, 0)
