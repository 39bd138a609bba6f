"""Large images tile by tile: cut with overlap, stylized one at a time, blended without a seam.

The tiles of an axis overlap by `overlap_px`. In the middle quarter of every overlap the weight goes over from one tile
to the next along a raised cosine; the outer three eighths, where a tile lacks what lies beyond its edge, are thrown
away. The weights of all tiles add up to 1 at every pixel. So:

    convolutions only     a network that sees no further than 3/8 of the overlap (from the centre of its receptive field
                          to the edge: 48 of 128 px) gives the whole image's result up to rounding, at the image's
                          border too. One that sees up to half of it differs inside of the overlaps by what its
                          outermost taps contribute: at most a few levels of 8 bits in single pixels.
    global statistics     instance norm, attention, `fda`: every tile has statistics of its own, so the result differs
                          from the whole image's everywhere. Blending spreads the step between two tiles over a quarter
                          of the overlap; `seam_energy` measures what is left of it. `moments` and `histogram` are told
                          the statistics of the whole (`takes_whole`), and so have no seam.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stylejobs.core.pixels import to_uint8

_ROUNDED_ROWS = 64  # at once: rounding makes copies


@dataclass(frozen=True)
class Span:
    """What one tile covers of one axis.

    Attributes:
        start: its first pixel; `end` is the one behind its last.
        weight_N: float32 [end - start], in [0, 1]: how much each of its pixels counts.
    """

    start: int
    end: int
    weight_N: Tensor


@dataclass(frozen=True)
class Tiling:
    """How axes are cut.

    Every tile is `tile_px` long and begins at a multiple of `multiple`, so that the strides of a network fall where
    they fall in the whole image; the last one is moved back to end with the axis, and may be up to `multiple` shorter.

    Args:
        tile_px: side of a tile; an axis that is no longer is one tile.
        overlap_px: shared by neighbours; 0 is a hard cut.
        multiple: as of the network; `tile_px` and `overlap_px` are multiples of it.

    Raises:
        ValueError: they are not, or the overlap is more than half of a tile.

    >>> [(span.start, span.end) for span in Tiling(tile_px=8, overlap_px=2).spans(15)]
    [(0, 8), (6, 14), (7, 15)]
    """

    tile_px: int = 1024
    overlap_px: int = 128
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.multiple < 1 or self.tile_px < 1 or self.tile_px % self.multiple or self.overlap_px % self.multiple:
            raise ValueError(
                f"wanted tile_px and overlap_px in multiples of {self.multiple}; got {self.tile_px}, {self.overlap_px}"
            )
        if not 0 <= 2 * self.overlap_px <= self.tile_px:
            raise ValueError(f"wanted an overlap of 0 to tile_px / 2 = {self.tile_px / 2:g} px; got {self.overlap_px}")

    def spans(self, side_px: int) -> list[Span]:
        """The tiles along an axis of `side_px` >= 1 pixels, from its beginning to its end."""
        starts = self._starts(side_px)
        ends = [min(start + self.tile_px, side_px) for start in starts]
        weights = [torch.ones(end - start) for start, end in zip(starts, ends, strict=True)]
        ramp_N = _ramp(self.overlap_px)
        for number in range(1, len(starts) if self.overlap_px else 1):
            # Where the last tile was moved back by more than the overlap, its pixels before the ramp do not count.
            at = ends[number - 1] - self.overlap_px - starts[number]
            weights[number - 1][-self.overlap_px :] = 1.0 - ramp_N
            weights[number][:at] = 0.0
            weights[number][at : at + self.overlap_px] = ramp_N
        if not self.overlap_px and len(starts) > 1:
            weights[-1][: ends[-2] - starts[-1]] = 0.0
        return [Span(*span) for span in zip(starts, ends, weights, strict=True)]

    def seams(self, side_px: int) -> list[int]:
        """Where two tiles count the same: the seam is between pixel n - 1 and pixel n."""
        return [span.end - self.overlap_px // 2 for span in self.spans(side_px)[:-1]]

    def _starts(self, side_px: int) -> list[int]:
        if side_px < 1:
            raise ValueError(f"wanted a side of at least 1 px; got {side_px}")
        missing = max(0, side_px - self.tile_px)
        last = -(-missing // self.multiple) * self.multiple
        return [*range(0, last, self.tile_px - self.overlap_px), last]


def _ramp(length: int) -> Tensor:
    """From 0 to 1: 3/8 zeros, a quarter of raised cosine, 3/8 ones. It and its mirror image add up to 1."""
    margin = 3 * length // 8
    rise = length - 2 * margin
    places = [min(max((n + 0.5 - margin) / max(rise, 1), 0.0), 1.0) for n in range(length)]
    return torch.tensor([0.5 - 0.5 * math.cos(math.pi * place) for place in places], dtype=torch.float32)


def blend_tiles(
    height: int, width: int, tiling: Tiling, make_tile: Callable[[slice, slice], Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """Makes tiles from left to right and from top to bottom, and gives away rows as soon as no other tile adds to them.

    Holds one tile and one row of tiles, never the whole image.

    Args:
        make_tile: rows and columns -> float [1, 3, their lengths], on any device; it must be finite.

    Yields:
        First row, and strip_CHW: float32 [3, rows, width] on the CPU, good until the next one is asked for. The strips
        follow one another without a gap.
    """
    rows, columns = tiling.spans(height), tiling.spans(width)
    strip_CHW = torch.zeros(3, min(height, tiling.tile_px), width)
    for number, row in enumerate(rows):
        for column in columns:
            tile_CHW = make_tile(slice(row.start, row.end), slice(column.start, column.end))[0].float().cpu()
            weight_HW = row.weight_N[:, None] * column.weight_N
            strip_CHW[:, : row.end - row.start, column.start : column.end] += tile_CHW * weight_HW
        is_last = number == len(rows) - 1
        finished = (row.end if is_last else rows[number + 1].start) - row.start
        yield row.start, strip_CHW[:, :finished]
        carried_CHW = strip_CHW[:, finished : row.end - row.start].clone()
        strip_CHW.zero_()
        strip_CHW[:, : carried_CHW.shape[1]] = carried_CHW


def stylize_tiles(height: int, width: int, tiling: Tiling, make_tile: Callable[[slice, slice], Tensor]) -> Tensor:
    """A large image out of tiles. Memory beside the result: one tile's, and a float32 strip as high as a tile.

    Args:
        make_tile: as of `blend_tiles`, values in [-1, 1].

    Returns:
        uint8 [height, width, 3], rounded once, after blending.

    >>> from stylejobs.core.pixels import to_float
    >>> image_HWC = torch.arange(7 * 9 * 3, dtype=torch.uint8).reshape(7, 9, 3)
    >>> made_HWC = stylize_tiles(7, 9, Tiling(4, 2), lambda rows, columns: to_float(image_HWC[rows, columns][None]))
    >>> torch.equal(made_HWC, image_HWC)
    True
    """
    made_HWC = torch.empty(height, width, 3, dtype=torch.uint8)
    for first, strip_CHW in blend_tiles(height, width, tiling, make_tile):
        for row in range(0, strip_CHW.shape[1], _ROUNDED_ROWS):
            block_CHW = strip_CHW[:, row : row + _ROUNDED_ROWS]
            made_HWC[first + row : first + row + block_CHW.shape[1]] = to_uint8(block_CHW[None])[0]
    return made_HWC


def seam_energy(image_BCHW: Tensor, tiling: Tiling, reach_px: int = 8) -> float:
    """How visible the seams of a tiling are: gradient energy across them over that of the lines next to them.

    mean of (x[n] - x[n-1])^2 over all seams n of both axes, divided by the same mean over the lines n - reach to
    n + reach without n. 1 is no seam to be seen; 2 is twice the energy of the picture's own detail there. Below 1 is
    where two tiles that differ were averaged, which softens detail.

    Args:
        image_BCHW: float, a tiled result.
        tiling: as it was tiled; with another overlap the seams lie elsewhere.
        reach_px: lines compared on either side of a seam, >= 1.

    Returns:
        >= 0; 1.0 for an image of one tile, infinity for steps in a picture that is flat beside them.

    >>> flat_1CHW = torch.zeros(1, 3, 8, 8)
    >>> seam_energy(flat_1CHW, Tiling(4, 0)), seam_energy(flat_1CHW + (torch.arange(8) >= 4), Tiling(4, 0))
    (1.0, inf)
    """
    across, beside = [], []
    for axis in (2, 3):
        squared_BCHW = image_BCHW.diff(dim=axis).double().square()
        energies_N = squared_BCHW.mean(dim=[0, 1, 5 - axis]).tolist()
        seams = tiling.seams(image_BCHW.shape[axis])
        for seam in seams:
            near = set(range(max(1, seam - reach_px), min(len(energies_N), seam + reach_px) + 1)) - set(seams)
            across.append(energies_N[seam - 1])
            beside.append(sum(energies_N[line - 1] for line in near) / max(1, len(near)))
    if sum(across) == sum(beside):
        return 1.0
    return sum(across) / sum(beside) if sum(beside) else math.inf
