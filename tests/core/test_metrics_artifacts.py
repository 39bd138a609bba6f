"""Artifacts against numpy in float64, at their thresholds, and which way damage moves them on photographs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.core.luma import luma
from stylejobs.core.metrics import (
    blur,
    checkerboard,
    clipped_share,
    is_constant,
    is_identity,
    noise,
    nyquist_energy,
    ratio_interval,
)
from stylejobs.core.pixels import to_float
from tests.core.features import draw
from tests.core.squares import CONTENT, STYLE, crops, paint


@pytest.fixture(scope="module")
def content(photos) -> torch.Tensor:
    return crops(photos, CONTENT, 48)


def levels(*values: float) -> torch.Tensor:
    """Grey images of 2x2 px, one a value, in levels of 255."""
    return (torch.tensor(values) / 127.5 - 1).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_clipped_is_the_end_of_eight_bits():
    assert clipped_share(levels(0, 0.4, 0.6, 1, 128, 254, 254.4, 254.6, 255)).tolist() == [1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert clipped_share(levels(-9, 300)).tolist() == [1, 1]
    image = levels(128, 128).clone()
    image[0, 2, 0, 1], image[0, 0, 0, 1], image[1, 1, 1] = 1.0, -1.0, 1.0
    assert clipped_share(image).tolist() == [0.25, 0.5]


@given(seed=st.integers(0, 999))
def test_clipped_against_numpy_on_bytes(seed):
    pixels = np.random.default_rng(seed).choice([0, 1, 128, 254, 255], (2, 5, 7, 3), p=[0.1, 0.3, 0.2, 0.3, 0.1])
    expected = np.isin(pixels, (0, 255)).any(axis=3).mean(axis=(1, 2))
    assert clipped_share(to_float(torch.from_numpy(pixels.astype(np.uint8)))).tolist() == pytest.approx(expected)


@given(seed=st.integers(0, 999))
def test_clipped_beside_a_source_against_numpy_on_bytes(seed):
    rng = np.random.default_rng(seed)
    source, made = (rng.choice([0, 1, 128, 255], (2, 5, 7, 3), p=[0.1, 0.3, 0.5, 0.1]) for _ in range(2))
    ends = [np.isin(pixels, (0, 255)).any(axis=3) for pixels in (source, made)]
    expected = (ends[1] & ~ends[0]).mean(axis=(1, 2))
    source_BCHW, made_BCHW = (to_float(torch.from_numpy(pixels.astype(np.uint8))) for pixels in (source, made))
    assert clipped_share(made_BCHW, source_BCHW).tolist() == pytest.approx(expected)
    assert clipped_share(made_BCHW, made_BCHW).tolist() == [0, 0]
    with pytest.raises(ValueError, match="their sources' size"):
        clipped_share(made_BCHW, source_BCHW[:1])


def test_constant_is_less_than_two_levels_in_every_channel():
    flat = to_float(torch.full((1, 6, 6, 3), 77, dtype=torch.uint8))
    board = checkerboard(torch.zeros(1, 3, 6, 6), amplitude=1.0)  # its deviation is its amplitude
    rows = [flat, 1.99 / 127.5 * board, 2.01 / 127.5 * board, flat.clone()]
    rows[3][:, 2] += 2.01 / 127.5 * board[:, 2]
    assert is_constant(torch.cat(rows)).tolist() == [True, True, False, False]


def test_identity_is_at_most_one_level_on_average():
    source = to_float(torch.randint(1, 255, (4, 8, 8, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8))
    made = source.clone()
    made[1] += 1 / 127.5
    made[2] += 1.01 / 127.5
    made[3, :, :4] -= 2 / 127.5
    assert is_identity(source, made).tolist() == [True, True, False, True]
    assert is_identity(source, made, levels=0.5).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="sources' size"):
        is_identity(source, made[:, :, :7])


def nyquist_reference(image_CHW: np.ndarray) -> float:
    """The same sum from numpy's FFT, frequency by frequency."""
    grey = np.tensordot([0.299, 0.587, 0.114], image_CHW, 1)
    height, width = grey.shape
    hann_H, hann_W = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side) for side in grey.shape)
    window = hann_H[:, None] * hann_W[None]
    spectrum = np.fft.fft2((grey - np.average(grey, weights=window)) * window)
    power = np.abs(spectrum) ** 2 / (height * width * (window**2).sum())
    total = 0.0
    for y in range(height):
        for x in range(width):
            steps_y, steps_x = min(y, height - y) / height, min(x, width - x) / width
            if max(steps_y, steps_x) > 0.375:
                total += power[y, x]
    return total / (power.sum() + 1e-4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (17, 30), (9, 8)])
def test_nyquist_energy_against_numpy(height, width):
    image = draw((2, 3, height, width)) * 0.2 + 0.3
    expected = [nyquist_reference(row.numpy()) for row in image]
    assert nyquist_energy(image).tolist() == pytest.approx(expected, rel=1e-9)


def test_nyquist_energy_of_what_is_known():
    board = checkerboard(torch.full((1, 3, 64, 64), 0.2), 0.06)
    assert nyquist_energy(board).item() == pytest.approx(0.0036 / 0.0037, rel=1e-3)
    white = draw((20, 1, 64, 64)).expand(-1, 3, -1, -1) * 0.1
    of_band = 1 - (49 / 64) ** 2  # 15 of 64 frequencies along each axis are above 0.375 cycles a pixel
    assert nyquist_energy(white).mean().item() == pytest.approx(of_band * 0.01 / 0.0101, rel=0.05)
    assert nyquist_energy(torch.full((1, 3, 64, 64), 0.7)).item() < 1e-16
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    assert nyquist_energy(ramp).item() < 1e-5, "the jump from one border to the other leaks nothing"
    with pytest.raises(ValueError, match="at least 8 px; got 7x9"):
        nyquist_energy(torch.zeros(1, 3, 7, 9))


def test_nyquist_energy_forgets_brightness_and_contrast(content):
    image = content[luma(content).std(dim=(1, 2, 3)) > 0.1]
    assert len(image) > 20
    torch.testing.assert_close(nyquist_energy(0.5 * image + 0.4), nyquist_energy(image), rtol=0.1, atol=1e-5)


def test_nyquist_ratio_sees_checkerboards_noise_and_blur_and_forgives_paint(content, photos):
    reference = nyquist_energy(paint(crops(photos, STYLE, 48)))
    painted = paint(content)
    rows = {
        "painted": painted,
        "checker": checkerboard(painted),
        "noise": noise(painted),
        "blur": blur(painted),
    }
    found = {name: ratio_interval(nyquist_energy(image), reference) for name, image in rows.items()}
    assert 0.3 < found["painted"].value < 3.0
    assert found["checker"].low > 2 * found["painted"].high
    assert found["noise"].low > 2 * found["painted"].high
    assert found["blur"].high < 0.2 * found["painted"].low


def test_shares_of_photographs_move_as_they_should(content):
    clipped = [clipped_share(image.clamp(-1, 1)).mean().item() for image in (content, 1.5 * content, 3 * content)]
    assert clipped == sorted(clipped) and clipped[0] < 0.1 < clipped[2]
    assert not is_constant(content).any()
    assert is_constant(0.005 * content + 0.2).all()
    assert is_identity(content, content + 0.003).all()
    assert not is_identity(content, noise(content, 0.02)).any()
