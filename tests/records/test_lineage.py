"""Mixes of styles and styles by seed, as `styles=` names them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.errors import StyleError
from stylejobs.records.lineage import parse_mix, random_seed


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
