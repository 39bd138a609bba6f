"""Sliced Wasserstein per level against scipy: the pyramid, the distance, resamples; and what damage does to levels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import wasserstein_distance

from stylejobs.core.bootstrap import bootstrap_interval
from stylejobs.core.metrics import (
    SlicedRuler,
    blur,
    checkerboard,
    laplacian_patches,
    noise,
    project_patches,
    sliced_gain,
    sliced_interval,
    sliced_ratio,
    sliced_wasserstein,
)
from tests.core.features import draw
from tests.core.squares import CONTENT, STYLE, crops, paint


def pyramid(image_CHW: np.ndarray) -> list[np.ndarray]:
    """Burt & Adelson's by scipy's two-dimensional convolution."""
    window = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    levels = []
    while min(image_CHW.shape[1:]) >= 32:
        small = ndimage.convolve(image_CHW, window[None], mode="mirror")[:, ::2, ::2]
        spread = np.zeros_like(image_CHW)
        spread[:, ::2, ::2] = small
        levels.append(image_CHW - ndimage.convolve(spread, 4 * window[None], mode="mirror"))
        image_CHW = small
    return [*levels, image_CHW]


@pytest.mark.parametrize(("size", "num_levels"), [((128, 128), 4), ((67, 45), 2), ((16, 90), 1), ((256, 300), 5)])
def test_patches_are_windows_of_scipys_pyramid_at_the_same_places(size, num_levels):
    images = draw((2, 3, *size))
    found = laplacian_patches(images, seed=3, num_patches=5)
    assert len(found) == num_levels
    places = []
    for image, row in ((image, row) for row, image in enumerate(images)):
        for level, expected in enumerate(pyramid(image.numpy())):
            windows = np.lib.stride_tricks.sliding_window_view(expected, (7, 7), axis=(1, 2))
            windows = windows.transpose(1, 2, 0, 3, 4).reshape(-1, 147)
            gaps = [np.abs(windows - patch).max(axis=1) for patch in found[level][row].double().numpy()]
            assert max(gap.min() for gap in gaps) < 1e-4
            places.append([int(gap.argmin()) for gap in gaps])
    assert places[: len(places) // 2] == places[len(places) // 2 :]
    assert all(len(set(level)) > 1 for level in places)


def test_patches_of_a_row_do_not_depend_on_its_batch_and_places_on_the_seed():
    images = draw((3, 3, 64, 64)).float()
    for level, alone, other in zip(
        laplacian_patches(images), laplacian_patches(images[1:2]), laplacian_patches(images, seed=1), strict=True
    ):
        assert level.shape == (3, 64, 147) and level.dtype == torch.float32
        torch.testing.assert_close(level[1:2], alone)
        assert not torch.equal(level, other)


def test_projections_are_unit_directions_of_the_seed():
    patches = draw((2, 4, 147)).float()
    projected = project_patches(patches)
    assert projected.shape == (2, 4, 64)
    torch.testing.assert_close(project_patches(2 * patches + patches.flip(0)), 2 * projected + projected.flip(0))
    assert not torch.equal(project_patches(patches, seed=1), projected)
    directions_DP = project_patches(torch.eye(147)[None])[0]
    torch.testing.assert_close(directions_DP.norm(dim=0), torch.ones(64))
    assert (directions_DP.T @ directions_DP - torch.eye(64)).abs().max() < 0.5, "no direction comes twice"


def expected_distance(x: np.ndarray, y: np.ndarray, unit: float, x_counts=None, y_counts=None) -> float:
    """Mean over directions of scipy's distance; counts are weights of images."""
    weights = [None, None]
    for place, (points, counts) in enumerate(((x, x_counts), (y, y_counts))):
        if counts is not None:
            weights[place] = np.repeat(counts, points.shape[1])
    columns = zip(x.reshape(-1, x.shape[2]).T, y.reshape(-1, y.shape[2]).T, strict=True)
    return float(np.mean([wasserstein_distance(a, b, *weights) for a, b in columns])) / unit


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(0.2, 3.0), shift=st.floats(-2.0, 2.0), num=st.integers(2, 20), seed=st.integers(0, 99))
def test_the_distance_is_scipys(scale, shift, num, seed):
    content, style = draw((30, 40, 6), seed), draw((25, 40, 6), seed + 1) * 1.5 + 0.5
    made = draw((num, 40, 6), seed + 2) * scale + shift
    ruler = SlicedRuler.fit(content, style)
    made_NE, style_ME = ruler.embed(made), ruler.embed(style)
    unit = style.reshape(-1, 6).numpy().std(axis=0)
    assert ruler.unit == pytest.approx(np.sqrt((unit**2).mean()))
    expected = expected_distance(made.numpy(), style.numpy(), ruler.unit)
    # Exact up to bins inside which the two distribution functions cross: never more, and less by little.
    assert expected * 0.985 - 0.002 < sliced_wasserstein(made_NE, style_ME).item() < expected * 1.0001
    x_RN = torch.randint(num, (2, num), generator=torch.Generator().manual_seed(seed))
    y_RM = torch.randint(25, (2, 25), generator=torch.Generator().manual_seed(seed))
    found = sliced_wasserstein(made_NE, style_ME, x_RN, y_RM)
    for value, rows, others in zip(found.tolist(), x_RN, y_RM, strict=True):
        counts = [torch.bincount(r, minlength=n).numpy() for r, n in ((rows, num), (others, 25))]
        expected = expected_distance(made.numpy(), style.numpy(), ruler.unit, *counts)
        assert expected * 0.985 - 0.002 < value < expected * 1.0001


def test_the_distance_has_its_laws():
    content, style = draw((20, 30, 8)), draw((20, 30, 8), 1)
    ruler = SlicedRuler.fit(content, style)
    x, y = ruler.embed(content), ruler.embed(style)
    assert sliced_wasserstein(x, x.flip(0)).item() < 1e-5
    torch.testing.assert_close(sliced_wasserstein(x, y), sliced_wasserstein(y, x))
    far = sliced_wasserstein(ruler.embed(style + 5.0), y).item()
    assert far == pytest.approx(5.0 / ruler.unit, rel=1e-3), "beyond the last bin too"
    other = SlicedRuler.fit(10 * content, 10 * style)
    scaled = sliced_wasserstein(other.embed(10 * content), other.embed(10 * style))
    torch.testing.assert_close(scaled, sliced_wasserstein(x, y), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def levels(photos):
    """Per level a ruler, the reference, and rows of sanity, embedded."""
    content, style = crops(photos, CONTENT, 40), paint(crops(photos, STYLE, 80))
    rows = {"identity": content, "painted": paint(content)}
    rows |= {"checker": checkerboard(rows["painted"]), "noise": noise(rows["painted"]), "blur": blur(rows["painted"])}
    rows |= {"flip": -rows["painted"], "real": style[1::2]}
    described = {name: laplacian_patches(image) for name, image in (rows | {"style": style[0::2]}).items()}
    found = []
    for level in range(3):
        projected = {name: project_patches(patches[level]) for name, patches in described.items()}
        ruler = SlicedRuler.fit(projected["identity"], projected["style"])
        found.append({name: ruler.embed(points) for name, points in projected.items()})
    return found


def distances(levels, row: str) -> list[float]:
    return [sliced_wasserstein(level[row], level["style"]).item() for level in levels]


def test_damage_shows_at_its_own_scale(levels):
    painted, real = distances(levels, "painted"), distances(levels, "real")
    assert all(own < other for own, other in zip(real, distances(levels, "identity"), strict=True))
    for row in ("checker", "noise"):
        found = distances(levels, row)
        assert found[0] > 2 * painted[0] and found[2] < painted[2] + 0.1
    blurred = distances(levels, "blur")
    assert blurred[0] > 1.5 * painted[0] and blurred[2] < painted[2] + 0.1
    flipped = distances(levels, "flip")
    assert flipped[2] > 2 * painted[2] and flipped[0] < painted[0] + 0.1


def test_intervals_hold_their_value_and_pairs_are_sharp(levels):
    level = levels[0]
    made, worse, style = level["painted"], level["noise"], level["style"]
    found = sliced_interval(made, style)
    assert found.low <= found.value == sliced_wasserstein(made, style).item() <= found.high
    alike = sliced_interval(level["real"], style)
    assert alike.low <= alike.value <= alike.high < sliced_interval(worse, style).low
    gain, ratio = sliced_gain(made, worse, style), sliced_ratio(made, worse, style)
    value = (sliced_wasserstein(worse, style) - sliced_wasserstein(made, style)).item()
    assert gain.low > 0 and ratio.high < 1 and gain.value == pytest.approx(value, rel=1e-4)
    assert sliced_gain(made, made, style) == (0.0, 0.0, 0.0) and sliced_ratio(made, made, style) == (1.0, 1.0, 1.0)
    wide = sliced_interval(made, style, confidence=0.99)
    assert wide.low < found.low and found.high < wide.high


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_intervals_cover_what_such_sets_have_on_average(shift):
    """100 panels of 30 images each from one pair of distributions; left where resamples are, a quarter would not."""
    ruler = SlicedRuler.fit(draw((50, 10, 16)), draw((50, 10, 16), 1))
    panels = [
        (
            ruler.embed(draw((30, 4, 16), 2 * seed) + draw((30, 1, 16), seed + 5000) + shift),
            ruler.embed(draw((30, 4, 16), 2 * seed + 1)),
        )
        for seed in range(100)
    ]
    mean = np.mean([sliced_wasserstein(*panel).item() for panel in panels])
    held, uncentred = [], []
    for x, y in panels:
        for found, centred in ((held, True), (uncentred, False)):
            interval = bootstrap_interval(
                lambda a, b, x=x, y=y: sliced_wasserstein(x, y, a, b), (30, 30), num_resamples=200, centred=centred
            )
            found.append(interval.low <= mean <= interval.high)
    assert 0.9 <= np.mean(held) <= 1.0
    assert np.mean(uncentred) < 0.85


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="at least 16 px"):
        laplacian_patches(torch.zeros(1, 3, 15, 40))
    with pytest.raises(ValueError, match="all equal"):
        SlicedRuler.fit(draw((4, 5, 6)), torch.ones(4, 5, 6))
    ruler = SlicedRuler.fit(draw((4, 5, 6)), draw((4, 5, 6), 1))
    with pytest.raises(ValueError, match=r"\[N, K, 6\]"):
        ruler.embed(draw((4, 5, 7)))
    with pytest.raises(ValueError, match="one ruler"):
        sliced_wasserstein(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="the same images"):
        sliced_gain(torch.zeros(4, 3), torch.zeros(5, 3), torch.zeros(4, 3))
