"""The best value so far: against a history that is searched whole, and through JSON."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.core.best import BestSoFar

VALUES = st.lists(st.one_of(st.integers(-5, 5).map(float), st.just(math.nan)), max_size=20)


@given(values=VALUES, patience=st.integers(1, 6))
def test_without_a_least_gain_the_best_is_the_first_maximum(values, patience):
    best = BestSoFar(patience)
    for number, value in enumerate(values):
        verdict = best.observe(10 * number, value)
        seen = [other for other in values[: number + 1] if not math.isnan(other)]
        at = values.index(max(seen)) if seen else -1
        assert best.value == (max(seen) if seen else None)
        assert best.images_seen == (10 * at if seen else None)
        assert verdict == (at == number, number - at >= patience)
        assert best.evaluations_since == number - at


def test_gains_below_the_least_gain_add_up():
    best = BestSoFar(min_gain=0.25)
    improved = [best.observe(number, value).improved for number, value in enumerate((0.0, 0.125, 0.25, 0.375, 0.5))]
    assert improved == [True, False, True, False, True]
    assert (best.value, best.images_seen) == (0.5, 4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_improves(value):
    best = BestSoFar(patience=2)
    assert best.observe(1, value) == (False, False)
    assert best.value is None
    assert best.observe(2, 0.1) == (True, False)
    assert best.observe(3, value) == (False, False)
    assert best.observe(4, value) == (False, True)
    assert (best.value, best.images_seen) == (0.1, 2)


def test_without_patience_it_never_stops():
    best = BestSoFar()
    assert not any(best.observe(number, -float(number)).stop for number in range(1000))


@given(values=VALUES, cut=st.integers(0, 20))
def test_it_goes_on_exactly_from_its_state_in_json(values, cut):
    whole, first, second = (BestSoFar(3, 0.5) for _ in range(3))
    expected = [whole.observe(number, value) for number, value in enumerate(values)]
    found = [first.observe(number, value) for number, value in enumerate(values[:cut])]
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    found += [second.observe(cut + number, value) for number, value in enumerate(values[cut:])]
    assert found == expected
    assert second.state_dict() == whole.state_dict()


def test_wrong_options_and_states_are_refused():
    with pytest.raises(ValueError, match="patience"):
        BestSoFar(patience=0)
    for min_gain in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="min_gain"):
            BestSoFar(min_gain=min_gain)
    with pytest.raises(ValueError, match=r"only on one side: \['best', 'evaluations_since', 'images_seen', 'value'\]"):
        BestSoFar().load_state_dict({"best": 1.0})
