"""What the copies of a row are: styles by weight, classes and number; strengths; seeds."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.records.lineage import Drawing, order_styles

STYLES = {"monet": 1.0, "hokusai": 1.0, "klimt": 1.0, "turner": 1.0}
weights = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.01, 100), min_size=1)


@given(st.integers(0, 2**63 - 1), st.text(), st.integers(1, 4))
def test_copies_of_a_row_differ_in_style_and_draws_repeat(seed: int, key: str, variants: int) -> None:
    draws = Drawing(seed, STYLES, variants, 0.5).draw(key)
    assert len({one.style for one in draws}) == variants == len({one.seed for one in draws})
    assert [one.variant for one in draws] == list(range(variants))
    assert draws == Drawing(seed, dict(reversed(STYLES.items())), variants, 0.5).draw(key)
    assert all(0 <= one.seed < 2**63 for one in draws)


def test_a_style_comes_first_in_its_share_of_the_rows() -> None:
    counts = Counter(order_styles(7, f"key-{number}", {"a": 5, "b": 3, "c": 2, "d": 0})[0] for number in range(4000))
    # Binomial(4000, p): sd at most 32; five of them
    assert all(abs(counts[style] - 400 * weight) < 160 for style, weight in (("a", 5), ("b", 3), ("c", 2)))
    assert "d" not in counts


@given(st.integers(0, 99), st.text(max_size=4), weights, st.floats(0.01, 100))
def test_a_style_that_is_added_changes_no_other(seed: int, key: str, styles: dict[str, float], weight: float) -> None:
    before = order_styles(seed, key, styles)
    after = order_styles(seed, key, {**styles, "new": weight})
    assert [style for style in after if style != "new"] == before
    assert order_styles(seed, key, {style: 2 * weight for style, weight in styles.items()}) == before


def test_adding_rows_or_copies_changes_no_copy_that_was_there() -> None:
    few, many = (Drawing(3, STYLES, variants).draw("k") for variants in (2, 4))
    assert many[:2] == few


@pytest.mark.parametrize("other", [(1, "a"), (0, "b")])
def test_another_seed_or_key_draws_anew(other: tuple[int, str]) -> None:
    assert Drawing(0, STYLES).draw("a")[0].seed != Drawing(other[0], STYLES).draw(other[1])[0].seed


def test_each_gives_one_copy_in_every_style_and_can_be_asked_for_one() -> None:
    drawing = Drawing(0, STYLES, variants="each")
    draws = drawing.draw("k")
    assert [(one.variant, one.style) for one in draws] == list(enumerate(STYLES))
    assert [drawing.draw("k", only=number)[0] for number in range(4)] == draws
    grown = Drawing(0, {**STYLES, "new": 1.0}, variants="each").draw("k")
    assert grown[:4] == draws and grown[4].style == "new"


def test_a_class_has_its_own_styles_and_others_have_all() -> None:
    drawing = Drawing(0, STYLES, variants=2, classes={"dress": {"klimt": 1.0}})
    assert {one.style for number in range(50) for one in drawing.draw(f"{number}", "dress")} == {"klimt"}
    assert {one.style for number in range(50) for one in drawing.draw(f"{number}", "hat")} == set(STYLES)
    assert drawing.draw("x", None) == Drawing(0, STYLES, variants=2).draw("x")


@given(st.integers(0, 99), st.text(max_size=5))
def test_strength_is_given_drawn_or_the_rows_own(seed: int, key: str) -> None:
    own = {name: number / 10 for number, name in enumerate(STYLES)}
    auto = Drawing(seed, STYLES, 4, "auto").draw(key, own_strength=own)
    assert all(one.strength == own[one.style] for one in auto)
    drawn = Drawing(seed, STYLES, 4, (0.3, 0.8)).draw(key)
    assert all(0.3 <= one.strength < 0.8 for one in drawn) and len({one.strength for one in drawn}) == 4
    assert [one.style for one in auto] == [one.style for one in drawn]


def test_drawn_strengths_are_uniform() -> None:
    strengths = sorted(Drawing(1, STYLES, 1, (0.2, 0.7)).draw(f"{n}")[0].strength for n in range(2000))
    # Kolmogorov-Smirnov: the distance of 2000 draws is below 1.63 / sqrt(2000) in 99 of 100 cases
    distance = max(abs((n + 0.5) / 2000 - (x - 0.2) / 0.5) for n, x in enumerate(strengths))
    assert distance < 0.0365
