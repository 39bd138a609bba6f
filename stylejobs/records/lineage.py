"""What decides a stylized row: a function of (seed, source key, variant), never of the cluster or the order of work."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Draw:
    """One stylized copy of a source row; `seed` is the row's own, for generators that draw noise."""

    style: str
    strength: float
    variant: int
    seed: int


def draw(seed: int, key: str, variant: int, styles: Sequence[str], strength: float) -> Draw:
    """The style, strength and seed of copy `variant` of the row `key`.

    The first copy's style is drawn uniformly from `styles`; each further copy takes the next one, so that the copies of
    a row differ as long as there are enough styles.

    >>> [draw(0, "cat/1", variant, ["monet", "hokusai"], 1.0).style for variant in (0, 1, 2)]
    ['monet', 'hokusai', 'monet']
    """
    first = _uniform(f"{seed}\0{key}") % len(styles)
    return Draw(
        style=styles[(first + variant) % len(styles)],
        strength=strength,
        variant=variant,
        seed=draw_seed(seed, key, variant),
    )


def draw_seed(seed: int, key: str, variant: int) -> int:
    """The seed, in [0, 2^63), of whatever is drawn for one copy of a row."""
    return _uniform(f"{seed}\0{key}\0{variant}") >> 1


def _uniform(text: str) -> int:
    """64 uniform bits, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
