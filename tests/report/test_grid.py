import numpy as np
import pytest

from stylejobs.report.grid import sample_grid


def _picture(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_every_picture_is_in_its_cell_untouched():
    rng = np.random.default_rng(0)
    rows = [[rng.integers(0, 255, (5, 7, 3), np.uint8) for _ in range(3)] for _ in range(2)]
    grid = sample_grid(rows, pad_px=2)
    assert grid.shape == (2 * 5 + 3 * 2, 3 * 7 + 4 * 2, 3) and grid.dtype == np.uint8
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            assert (grid[2 + r * 7 : 7 + r * 7, 2 + c * 9 : 9 + c * 9] == cell).all()


def test_ragged_rows_and_sizes_are_centred_on_white():
    grid = sample_grid([[_picture(4, 4, 0)], [_picture(2, 2, 10), _picture(6, 3, 20)]], pad_px=1)
    assert grid.shape == (4 + 6 + 3, 4 + 3 + 3, 3)
    assert (grid[1:5, 1:5] == 0).all() and (grid[8:10, 2:4] == 10).all() and (grid[6:12, 6:9] == 20).all()
    assert (grid == 255).all(axis=-1).sum() == grid.shape[0] * grid.shape[1] - 16 - 4 - 18


@pytest.mark.parametrize(
    ("rows", "pad_px"),
    [
        ([], 1),
        ([[]], 1),
        ([[_picture(1, 1, 0)]], -1),
        ([[np.zeros((2, 2, 3), np.float32)]], 1),
        ([[np.zeros((2, 2), np.uint8)]], 1),
        ([[np.zeros((2, 2, 4), np.uint8)]], 1),
    ],
)
def test_wrong_arguments_are_refused(rows, pad_px):
    with pytest.raises(ValueError, match=r"pictur|pad_px"):
        sample_grid(rows, pad_px)
