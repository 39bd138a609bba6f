"""`make bench-gates`: how often a comparison of two models on one panel is wrong.

    python -m tests.bench.gate_errors                              # pictures that the project makes
    python -m tests.bench.gate_errors --content DIR --style DIR    # real ones: thousands, hundreds of styles

A "model" here is one whose style distance is known beforehand: it gives a share p of its contents back as real images
of the style, drawn from the half of the style set that nothing is held against, and leaves the others alone. Its
squared MMD is then (1 - p)^2 of the contents', up to the draws.

the same, other draws        candidate and baseline have one p; who is painted as what is drawn anew
a tenth nearer               the candidate's p is larger, so that its distance (1 - style) is 10 % less; the same draws
a tenth nearer, other draws  the same, but who is painted as what is drawn anew: nothing is paired but the contents

For each, 100 panels are drawn from the contents without replacement, of 250 and of 500 images, each with draws of its
own, and the paired gain in `style` is asked as gates ask it: is its 95 % interval on one side of 0?
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from stylejobs.core.gap import Gap
from stylejobs.core.mmd import build_networks, colour_free, describe, mmd2, rebase, style_gain
from tests.bench.methods_table import PLACE, ROOT
from tests.bench.style_panel import PANEL_PX, read_panel
from tests.bench.table import Line, at_least, at_most, print_heading, print_lines

NUM_PANELS = 100
SIZES = (250, 500)
SHARE = 0.5
NEARER = 0.9


class Pool:
    """Contents and the two halves of a style set, described once in the colour-free view: [S, N, D] each."""

    def __init__(self, content_BCHW: Tensor, style_BCHW: Tensor):
        networks = build_networks()
        self.content_SND, self._style_SMD, self._others_SHD = (
            describe(networks, colour_free(image_BCHW))
            for image_BCHW in (content_BCHW, style_BCHW[0::2], style_BCHW[1::2])
        )

    def gap(self, rows_N: Tensor) -> Gap:
        return Gap("colour-free", self.content_SND[:, rows_N], self._style_SMD, self._others_SHD)

    def made(self, share: float, seed: int) -> Tensor:
        """What a model with this share makes of all contents; a larger share paints the same ones, and more."""
        rng = torch.Generator().manual_seed(seed)
        num = self.content_SND.shape[1]
        painted_N = torch.rand(num, generator=rng) < share
        as_what_N = torch.randint(self._others_SHD.shape[1], (num,), generator=rng)
        return torch.where(painted_N[:, None], self._others_SHD[:, as_what_N], self.content_SND)

    def distance(self, share: float) -> float:
        """1 - style over all contents, mean of 16 draws."""
        gap = self.gap(torch.arange(self.content_SND.shape[1]))
        ends = mmd2(gap.identity), mmd2(gap.target)
        scores = [rebase(mmd2(gap.against(self.made(share, seed))), *ends).item() for seed in range(16)]
        return 1.0 - sum(scores) / len(scores)


def shares(pool: Pool, share: float, anew: bool, size: int) -> dict[str, float]:
    """Of the panels: those where a candidate with this share is called better, and worse, than one with `SHARE`."""
    better = worse = 0
    for number, rows_N in enumerate(panels(pool.content_SND.shape[1], size)):
        gap = pool.gap(rows_N)
        drawn = 2 * number, 2 * number + anew
        sets = pool.made(share, drawn[1]), pool.made(SHARE, drawn[0])
        gain = style_gain(*(gap.against(made_SND[:, rows_N]) for made_SND in sets), gap.identity, gap.target)
        better, worse = better + (gain.low > 0.0), worse + (gain.high < 0.0)
    return {"better": better / NUM_PANELS, "worse": worse / NUM_PANELS}


def panels(num: int, size: int) -> Iterator[Tensor]:
    for number in range(NUM_PANELS):
        yield torch.randperm(num, generator=torch.Generator().manual_seed(number))[:size]


def report(pool: Pool, nearer: float, size: int) -> None:
    """The lines of one size of panel."""
    same = shares(pool, SHARE, True, size)
    paired, unpaired = (shares(pool, nearer, anew, size) for anew in (False, True))
    bar = 0.9 if size == max(SIZES) else 0.0
    lines: list[Line] = [
        at_most("the same, other draws: called different", same["better"] + same["worse"], 0.05, "of panels"),
        Line("the same, other draws: called better, as a gate asks", f"{same['better']:.2f} of panels"),
        at_least("a tenth nearer: called better", paired["better"], bar),
        Line("a tenth nearer, other draws: called better", f"{unpaired['better']:.2f} of panels"),
        Line("a tenth nearer, other draws: called worse", f"{unpaired['worse']:.2f} of panels"),
    ]
    print_lines(f"{NUM_PANELS} panels of {size} images out of {pool.content_SND.shape[1]:,}", lines)


def make_sets(place: Path) -> tuple[Path, Path]:
    """Thousands of photographs, and paintings, that the project makes."""
    for name, script, options in (
        ("content", "photos", ["--num", "2000", "--bad", "0", "--seed", "3"]),
        ("style", "paintings", ["--num", "500"]),
    ):
        if not (place / f".{name}").exists():
            subprocess.run(
                [sys.executable, f"infra/demo/{script}.py", str(place / name), *options], check=True, cwd=ROOT
            )
            (place / f".{name}").touch()
    return place / "content", place / "style"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--content", type=Path, help="folder of photographs, thousands")
    parser.add_argument("--style", type=Path, help="folder of paintings, hundreds")
    parser.add_argument("--most", type=int, default=2000, help="contents that are read (default %(default)s)")
    options = parser.parse_args()
    if (options.content is None) != (options.style is None):
        parser.error("--content and --style go together")
    content, style = (options.content, options.style) if options.content else make_sets(PLACE / "gates")
    print_heading()
    pool = Pool(read_panel(content, options.most, PANEL_PX), read_panel(style, 500, PANEL_PX))
    nearer = 1.0 - NEARER**0.5 * (1.0 - SHARE)
    before, after = pool.distance(SHARE), pool.distance(nearer)
    print(
        f"distance {before:.3f} at p = {SHARE:g}, {after:.3f} at {nearer:.3f}: {1 - after / before:.0%} less\n",
        flush=True,
    )
    for size in SIZES:
        report(pool, nearer, size)


if __name__ == "__main__":
    main()
