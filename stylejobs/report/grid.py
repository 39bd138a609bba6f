"""Sample grids for a tracker: many small pictures as one. Pixels in, pixels out; no files."""

from collections.abc import Sequence

import numpy as np

BACKGROUND = 255


def sample_grid(rows: Sequence[Sequence[np.ndarray]], pad_px: int = 4) -> np.ndarray:
    """One picture of `rows` of pictures, each in the middle of its cell, on white.

    The usual grid starts with a row that holds the style image alone, then has a row a sample: content, stylized, ...
    Rows may differ in length, pictures in size: a column is as wide as its widest picture, a row as
    high as its highest.

    Args:
        rows: uint8 arrays [height, width, 3], at least one in all.
        pad_px: white between pictures and around them, 0 or more.

    Returns:
        uint8 array [height, width, 3].

    Raises:
        ValueError: no picture at all, a negative `pad_px`, or an array that is not uint8 [height, width, 3].

    >>> black = np.zeros((2, 3, 3), np.uint8)
    >>> sample_grid([[black], [black, black]], pad_px=1).shape
    (7, 9, 3)
    """
    _check(rows, pad_px)
    num_columns = max(len(row) for row in rows)
    heights = [max((cell.shape[0] for cell in row), default=0) for row in rows]
    widths = [max(row[column].shape[1] for row in rows if column < len(row)) for column in range(num_columns)]
    grid_HWC = np.full(
        (sum(heights) + pad_px * (len(rows) + 1), sum(widths) + pad_px * (num_columns + 1), 3), BACKGROUND, np.uint8
    )
    top = pad_px
    for row, row_height in zip(rows, heights, strict=True):
        left = pad_px
        for cell_HWC, column_width in zip(row, widths, strict=False):
            height, width = cell_HWC.shape[:2]
            y, x = top + (row_height - height) // 2, left + (column_width - width) // 2
            grid_HWC[y : y + height, x : x + width] = cell_HWC
            left += column_width + pad_px
        top += row_height + pad_px
    return grid_HWC


def _check(rows: Sequence[Sequence[np.ndarray]], pad_px: int) -> None:
    if pad_px < 0:
        raise ValueError(f"pad_px must be 0 or more, got {pad_px}")
    if not any(len(row) for row in rows):
        raise ValueError("a sample grid needs at least one picture, got none")
    for row in rows:
        for cell in row:
            if cell.dtype != np.uint8 or cell.ndim != 3 or cell.shape[2] != 3:
                raise ValueError(f"wanted uint8 pictures [height, width, 3], got {cell.dtype} {list(cell.shape)}")
