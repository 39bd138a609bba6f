"""The draw of a row is a function of (seed, key, variant)."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.records.lineage import draw

STYLES = ["monet", "hokusai", "klimt", "turner"]


@given(st.integers(0, 2**63 - 1), st.text(), st.integers(1, 4))
def test_copies_of_a_row_differ_in_style_and_draws_repeat(seed: int, key: str, variants: int) -> None:
    draws = [draw(seed, key, variant, STYLES, 0.5) for variant in range(variants)]
    assert len({one.style for one in draws}) == variants
    assert draws == [draw(seed, key, variant, STYLES, 0.5) for variant in range(variants)]
    assert all(0 <= one.seed < 2**63 for one in draws)


def test_styles_are_balanced() -> None:
    counts = Counter(draw(7, f"key-{number}", 0, STYLES, 1.0).style for number in range(4000))
    # Binomial(4000, 1/4): sd 27; five of them
    assert all(abs(count - 1000) < 137 for count in counts.values())


@pytest.mark.parametrize("other", [(1, "a", 0), (0, "b", 0), (0, "a", 1)])
def test_another_seed_key_or_variant_draws_anew(other: tuple[int, str, int]) -> None:
    assert draw(0, "a", 0, STYLES, 1.0).seed != draw(*other, STYLES, 1.0).seed
