"""Pictures made smaller or larger keep their shape, their colours, and what was asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.records.resize import limit_long_side, resize_short_side

sides = st.integers(1, 90)


def flat(height: int, width: int, colour: tuple[int, int, int] = (10, 200, 90)) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / max(1, width - 1), y * 255 / max(1, height - 1), 0 * x], 2).round().astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 120))
def test_the_short_side_is_as_asked_and_the_long_one_follows(height: int, width: int, short_px: int) -> None:
    made = resize_short_side(flat(height, width), short_px)
    assert made.dtype == np.uint8 and made.shape[2] == 3
    assert min(made.shape[:2]) == short_px
    factor = short_px / min(height, width)
    assert abs(made.shape[0] - height * factor) <= 0.5 + 1e-9
    assert abs(made.shape[1] - width * factor) <= 0.5 + 1e-9
    assert (made.shape[0] >= made.shape[1]) == (height >= width) or abs(height - width) * factor <= 0.5


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 120))
def test_the_long_side_is_at_most_as_asked_and_nothing_grows(height: int, width: int, long_px: int) -> None:
    picture = flat(height, width)
    made = limit_long_side(picture, long_px)
    if max(height, width) <= long_px:
        assert made is picture
    else:
        assert max(made.shape[:2]) == long_px
        factor = long_px / max(height, width)
        assert made.shape[0] == max(1, round(height * factor)) and made.shape[1] == max(1, round(width * factor))
    assert limit_long_side(made, long_px) is made


@settings(max_examples=30, deadline=None)
@given(sides, sides, st.integers(1, 60), st.tuples(*[st.integers(0, 255)] * 3))
def test_one_colour_stays_that_colour(height: int, width: int, px: int, colour: tuple[int, int, int]) -> None:
    for resize in (resize_short_side, limit_long_side):
        assert (resize(flat(height, width, colour), px) == colour).all()


@pytest.mark.parametrize("resize", [resize_short_side, limit_long_side])
def test_the_size_that_it_has_gives_the_same_pixels(resize: object) -> None:
    square = ramp(31, 31)
    assert np.array_equal(resize(square, 31), square)
    assert np.array_equal(resize_short_side(ramp(31, 47), 31), ramp(31, 47))


@pytest.mark.parametrize("px", [20, 160])
def test_axes_and_directions_are_kept(px: int) -> None:
    made = resize_short_side(ramp(40, 80), px).astype(int)
    assert made.shape == (px, 2 * px, 3)
    assert np.abs(made - ramp(px, 2 * px)).max() <= 8
    assert (np.diff(made[px // 2, :, 0]) >= 0).all() and (np.diff(made[:, px, 1]) >= 0).all()


def test_shrinking_averages_and_does_not_pick() -> None:
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    made = limit_long_side(np.repeat(checkers[..., None], 3, axis=2), 16)
    assert np.abs(made.astype(int) - 127).max() <= 3
