"""What decides a stylized row: a function of (seed, source key, variant), never of the cluster or the order of work."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def draw(seed: int, key: str, variant: int, styles: Sequence[str], strength: float | Mapping[str, float] = 1.0) -> Draw:
    """The style, strength and seed of copy `variant` of the row `key`.

    The first copy's style is drawn uniformly from `styles`; each further copy takes the next one, so that the copies of
    a row differ as long as there are enough styles.

    Args:
        strength: one for all, or the row's own for each style.

    >>> [draw(0, "cat/1", variant, ["monet", "hokusai"], 1.0).style for variant in (0, 1, 2)]
    ['monet', 'hokusai', 'monet']
    """
    first = _uniform(f"{seed}\0{key}") % len(styles)
    style = styles[(first + variant) % len(styles)]
    return Draw(
        style=style,
        strength=strength[style] if isinstance(strength, Mapping) else strength,
        variant=variant,
        seed=draw_seed(seed, key, variant),
    )


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
