"""The draw of a row is a function of (seed, key, variant)."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.errors import StyleError
from stylejobs.records.lineage import draw, parse_mix, random_seed

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


@given(st.integers(0, 99), st.text(max_size=5))
def test_a_strength_for_each_style_is_that_of_the_style_that_was_drawn(seed: int, key: str) -> None:
    strengths = {name: number / 10 for number, name in enumerate(STYLES)}
    for variant in range(4):
        drawn = draw(seed, key, variant, STYLES, strengths)
        assert drawn.strength == strengths[drawn.style]
        assert drawn.style == draw(seed, key, variant, STYLES, 0.5).style


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("monet", [("monet", 1)]),
        ("monet:0.7", [("monet:0.7", 1)]),
        ("monet:0.7+hokusai:0.3", [("monet", 0.7), ("hokusai", 0.3)]),
        ("monet:3+hokusai", [("monet", 0.75), ("hokusai", 0.25)]),
        ("monet:1+hokusai:0", [("monet", 1), ("hokusai", 0)]),
        ("a:1e-1+b:.1", [("a", 0.5), ("b", 0.5)]),
        ("s3://b:c/x.png:1+/y/z.jpg:1", [("s3://b:c/x.png", 0.5), ("/y/z.jpg", 0.5)]),
        ("s3://bucket/c++/x.png", [("s3://bucket/c++/x.png", 1)]),
        ("monet+hokusai", [("monet+hokusai", 1)]),
        ("random:7", [("random:7", 1)]),
        ("random:7:1+random:8:3", [("random:7", 0.25), ("random:8", 0.75)]),
        ("random:7+monet:1", [("random:7", 0.5), ("monet", 0.5)]),
        ("a:b+c:d", [("a:b+c:d", 1)]),
    ],
)
def test_a_mix_is_parsed_and_its_weights_sum_to_one(text: str, parts: list[tuple[str, float]]) -> None:
    found = parse_mix(text)
    assert [style for style, _ in found] == [style for style, _ in parts]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in parts], abs=1e-12)


NAMES = st.from_regex(r"[a-z][a-z0-9._/-]{0,8}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.floats(0, 1e6)), min_size=2, max_size=5))
def test_law_weights_are_shares_whatever_their_scale(parts: list[tuple[str, float]]) -> None:
    text = "+".join(f"{name}:{weight:.6f}" for name, weight in parts)
    total = sum(float(f"{weight:.6f}") for _, weight in parts)
    if total == 0:
        with pytest.raises(StyleError, match="not all of them 0"):
            parse_mix(text)
        return
    found = parse_mix(text)
    assert [name for name, _ in found] == [name for name, _ in parts]
    assert sum(weight for _, weight in found) == pytest.approx(1)
    assert all(w == pytest.approx(float(f"{p:.6f}") / total) for (_, w), (_, p) in zip(found, parts, strict=True))


@pytest.mark.parametrize("text", ["a:-0.1+b:1", "a:0+b:0", "a:-1+b:1", "+a:1", "a:1+", "a:1e400+b:1"])
def test_weights_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(StyleError, match="wanted a mix STYLE:WEIGHT"):
        parse_mix(text)


@pytest.mark.parametrize(("style", "seed"), [("random:0", 0), ("random:07", 7), ("random:", None), ("random:x", None)])
def test_a_seed_is_a_whole_number(style: str, seed: int | None) -> None:
    assert random_seed(style) == seed
