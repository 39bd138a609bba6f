"""What decides a stylized row: a function of (seed, source key, variant), never of the cluster or the order of work."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stylejobs.errors import StyleError

_RANDOM = re.compile(r"random:([0-9]+)")
_WEIGHTED = re.compile(r"(.+):([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]-?[0-9]+)?)")


@dataclass(frozen=True)
class Draw:
    """One stylized copy of a source row; `seed` is the row's own, for generators that draw noise."""

    style: str
    strength: float
    variant: int
    seed: int


SOURCE_VARIANT = -1
SOURCE_DRAW = Draw(style="", strength=0.0, variant=SOURCE_VARIANT, seed=0)
"""The row itself, where a dataset keeps it beside its copies."""


@dataclass(frozen=True)
class Drawing:
    """How the copies of a row are drawn; every draw is a function of (seed, key, variant) and of the row's class.

    Attributes:
        styles: weight of each style that a row may get.
        variants: copies of a row; "each" for one in every style, where the copy's number is the style's.
        strength: one for all, (low, high) to draw from uniformly, or "auto": the row's own for each style.
        classes: styles of the rows of a class that is named here, in place of `styles`.
        include_source: the row itself comes before its copies, as `SOURCE_DRAW`.
    """

    seed: int
    styles: Mapping[str, float]
    variants: int | Literal["each"] = 1
    strength: float | tuple[float, float] | Literal["auto"] = 1.0
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    include_source: bool = False

    def draw(
        self,
        key: str,
        label: object = None,
        own_strength: Mapping[str, float] | None = None,
        only: int | None = None,
    ) -> list[Draw]:
        """The copies of the row `key` of class `label`, which is named by its text.

        Args:
            own_strength: of strength "auto", by style.
            only: of variants "each", the number of the style that is wanted.

        >>> [copy.style for copy in Drawing(0, {"monet": 1.0, "hokusai": 1.0}, variants=3).draw("cat/1")]
        ['monet', 'hokusai', 'monet']
        """
        if self.variants == "each":
            order, numbers = list(self.styles), range(len(self.styles)) if only is None else [only]
        else:
            weights = self.classes.get(str(label), self.styles)
            order, numbers = order_styles(self.seed, key, weights), range(self.variants)
        copies = [self._copy(key, variant, order[variant % len(order)], own_strength) for variant in numbers]
        # Of a row that is done style by style, with the first one only.
        return [SOURCE_DRAW, *copies] if self.include_source and not only else copies

    def _copy(self, key: str, variant: int, style: str, own_strength: Mapping[str, float] | None) -> Draw:
        strength = self.strength
        if strength == "auto":
            strength = own_strength[style]
        elif isinstance(strength, tuple):
            share = _uniform(f"{self.seed}\0{key}\0{variant}\0strength") / 2**64
            strength = strength[0] + share * (strength[1] - strength[0])
        return Draw(style, strength, variant, draw_seed(self.seed, key, variant))


def order_styles(seed: int, key: str, weights: Mapping[str, float]) -> list[str]:
    """The order in which the copies of a row take styles: a weighted draw without replacement.

    Each style has a time to wait, exponential with its weight as rate and a function of (seed, key, style) alone; the
    first to come is the first copy's. So the copies of a row differ as long as there are enough styles, a style comes
    first in a share of rows that is its weight's, and a style that is added takes its share of rows and no more.

    Source: Efraimidis and Spirakis 2006, doi:10.1016/j.ipl.2005.11.003; Thaler and Ravishankar 1998 for the last.
    """
    waits = {
        style: -math.log((_uniform(f"{seed}\0{key}\0{style}") + 0.5) / 2**64) / weight
        for style, weight in weights.items()
        if weight > 0
    }
    return sorted(waits, key=lambda style: (waits[style], style))


def draw_seed(seed: int, key: str, variant: int) -> int:
    """The seed, in [0, 2^63), of whatever is drawn for one copy of a row."""
    return _uniform(f"{seed}\0{key}\0{variant}") >> 1


def parse_mix(text: str) -> tuple[tuple[str, float], ...]:
    """The styles of one item of `styles=`, with weights that sum to 1.

    A mix is `STYLE:WEIGHT+STYLE:WEIGHT`; a part without a weight has weight 1. A URI may hold colons and pluses: only a
    number behind the last colon is a weight, and a text in which no part has a weight is the name of one style.
    `random:SEED` is a style, not a weight of one.

    Raises:
        StyleError: a negative weight, or weights that are all zero.

    >>> parse_mix("monet:3+s3://styles/hokusai.png:1")
    (('monet', 0.75), ('s3://styles/hokusai.png', 0.25))
    >>> parse_mix("s3://bucket/a+b.png")
    (('s3://bucket/a+b.png', 1.0),)
    """
    parts = [_parse_part(part) for part in text.split("+")]
    if len(parts) == 1 or all(weight is None for _, weight in parts):
        return ((text, 1.0),)
    weights = [1.0 if weight is None else weight for _, weight in parts]
    total = math.fsum(weights)
    if not all(name for name, _ in parts) or min(weights) < 0.0 or not 0.0 < total < math.inf:
        raise StyleError(
            f"styles={text}: wanted a mix STYLE:WEIGHT+STYLE:WEIGHT of weights >= 0, not all of them 0; "
            f"got {', '.join(f'{weight:g}' for weight in weights)}"
        )
    return tuple((name, weight / total) for (name, _), weight in zip(parts, weights, strict=True))


def random_seed(style: str) -> int | None:
    """The seed of a style that is to be invented, `random:SEED`; None for any other style.

    >>> random_seed("random:7"), random_seed("monet")
    (7, None)
    """
    found = _RANDOM.fullmatch(style)
    return int(found[1]) if found else None


def _parse_part(part: str) -> tuple[str, float | None]:
    found = None if _RANDOM.fullmatch(part) else _WEIGHTED.fullmatch(part)
    return (found[1], float(found[2])) if found else (part, None)


def _uniform(text: str) -> int:
    """64 uniform bits, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
