"""`make bench-gates`: how often a comparison of two models on one panel is wrong.

    python -m tests.bench.gate_errors                                # pictures that the project makes
    python -m tests.bench.gate_errors --content DIR --style DIR      # real ones: thousands of contents, better

same model, same draws      candidate and baseline are equal to the last bit
same model, other draws     each image gets another style: two runs of one job that differ in their seed
a tenth nearer              the candidate's distance to the style set (colour-free squared MMD, rebased) is 10 % less

For each, 100 panels are drawn from the contents without replacement, of 250 and of 500 images, and the paired gain in
`style` is asked: is its 95 % interval on one side of 0? Contents are those of a panel of 128 px squares.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.gap import Gap
from stylejobs.core.mmd import build_networks, colour_free, describe, mmd2, rebase, style_gain
from stylejobs.core.networks import build_network
from tests.bench.methods_table import PLACE, make_sets
from tests.bench.style_panel import PANEL_PX, read_panel
from tests.bench.table import Line, at_least, at_most, print_heading, print_lines

NUM_PANELS = 100
SIZES = (250, 500)
SHARE = 0.5
NEARER = 0.9


class Pool:
    """All contents, described once for each model; panels are rows of it."""

    def __init__(self, content_BCHW: Tensor, style_BCHW: Tensor):
        self._networks, self._content_BCHW = build_networks(), content_BCHW
        self._style_SMD, self._others_SHD = self.describe(style_BCHW[0::2]), self.describe(style_BCHW[1::2])
        self.content_SND = self.describe(content_BCHW)
        moments = build_network("moments")
        self._codes = torch.cat([moments.encode_style(style_1CHW) for style_1CHW in style_BCHW.split(1)])
        self._moments = moments

    @torch.no_grad()
    def describe(self, image_BCHW: Tensor) -> Tensor:
        """Colour-free descriptors [S, N, D]."""
        return describe(self._networks, colour_free(image_BCHW))

    @torch.no_grad()
    def made(self, share: float, seed: int) -> Tensor:
        """Descriptors of what a painter makes of all contents: flattened, recoloured by a drawn painting, and mixed."""
        rng = torch.Generator().manual_seed(seed)
        rows_N = torch.randint(len(self._codes), (len(self._content_BCHW),), generator=rng)
        parts = []
        for content_BCHW, rows_B in zip(self._content_BCHW.split(64), rows_N.split(64), strict=True):
            painted_BCHW = self._moments(flatten(content_BCHW), self._codes[rows_B])
            parts.append(self.describe(torch.lerp(content_BCHW, painted_BCHW, share)))
        return torch.cat(parts, dim=1)

    def gap(self, rows_N: Tensor) -> Gap:
        return Gap("colour-free", self.content_SND[:, rows_N], self._style_SMD, self._others_SHD)

    def distance(self, made_SND: Tensor) -> float:
        """1 - style, over all contents."""
        gap = self.gap(torch.arange(made_SND.shape[1]))
        return 1.0 - rebase(mmd2(gap.against(made_SND)), mmd2(gap.identity), mmd2(gap.target)).item()


def flatten(image_BCHW: Tensor, window_px: int = 5) -> Tensor:
    """The median of each window: small things go, edges stay."""
    around = window_px // 2
    padded_BCHW = F.pad(image_BCHW, (around,) * 4, mode="reflect")
    windows = padded_BCHW.unfold(2, window_px, 1).unfold(3, window_px, 1).flatten(4)
    return windows.median(dim=4).values


def nearer_share(pool: Pool) -> tuple[float, float]:
    """How much more paint makes the distance a tenth less; and the distance with `SHARE` of it."""
    before = pool.distance(pool.made(SHARE, 0))
    low, high = SHARE, 1.0
    if pool.distance(pool.made(high, 0)) > NEARER * before:
        raise SystemExit(
            f"all of the paint does not take a tenth off the distance {before:.3f}: give another style set"
        )
    for _ in range(6):
        middle = (low + high) / 2
        low, high = (low, middle) if pool.distance(pool.made(middle, 0)) <= NEARER * before else (middle, high)
    return high, before


def shares(pool: Pool, candidate_SND: Tensor, baseline_SND: Tensor, size: int) -> dict[str, float]:
    """Of the panels: those where the candidate is called better, worse."""
    better = worse = 0
    for rows_N in panels(candidate_SND.shape[1], size):
        gap = pool.gap(rows_N)
        kernels = (gap.against(made_SND[:, rows_N]) for made_SND in (candidate_SND, baseline_SND))
        gain = style_gain(*kernels, gap.identity, gap.target)
        better, worse = better + (gain.low > 0.0), worse + (gain.high < 0.0)
    return {"better": better / NUM_PANELS, "worse": worse / NUM_PANELS}


def panels(num: int, size: int) -> Iterator[Tensor]:
    for number in range(NUM_PANELS):
        yield torch.randperm(num, generator=torch.Generator().manual_seed(number))[:size]


def report(pool: Pool, size: int, candidates: dict[str, Callable[[], Tensor]]) -> None:
    """The lines of one size of panel."""
    baseline_SND = pool.made(SHARE, 0)
    found = {name: shares(pool, make(), baseline_SND, size) for name, make in candidates.items()}
    lines: list[Line] = []
    for name in list(found)[:2]:
        either = found[name]["better"] + found[name]["worse"]
        lines.append(at_most(f"{name}: called different", either, 0.05, "of panels"))
        lines.append(Line(f"{name}: called better, as a gate asks", f"{found[name]['better']:.2f} of panels"))
    lines.append(
        at_least("a tenth nearer: called better", found["a tenth nearer"]["better"], 0.9 if size == 500 else 0.0)
    )
    print_lines(f"{NUM_PANELS} panels of {size} images out of {len(pool.content_SND[0]):,}", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--content", type=Path, help="folder of photographs, thousands")
    parser.add_argument("--style", type=Path, help="folder of paintings, hundreds")
    parser.add_argument("--most", type=int, default=2000, help="contents that are read (default %(default)s)")
    options = parser.parse_args()
    if (options.content is None) != (options.style is None):
        parser.error("--content and --style go together")
    content, style = options.content, options.style
    if content is None:
        _, content, style = make_sets(PLACE / "sets")
    print_heading()
    pool = Pool(read_panel(content, options.most, PANEL_PX), read_panel(style, 500, PANEL_PX))
    share, before = nearer_share(pool)
    print(f"distance {before:.3f} at {SHARE:g} of the paint, {NEARER * before:.3f} at {share:.3f}\n", flush=True)
    candidates = {
        "same model, same draws": lambda: pool.made(SHARE, 0),
        "same model, other draws": lambda: pool.made(SHARE, 1),
        "a tenth nearer": lambda: pool.made(share, 0),
    }
    for size in SIZES:
        report(pool, size, candidates)


if __name__ == "__main__":
    main()
