"""Gates ask whole intervals; what is missing or not a number fails; without a baseline nothing is compared with it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.core.bootstrap import Interval
from stylejobs.core.gates import Decision, Gate, Outcome, Rules, Table, decide
from stylejobs.core.measures import MEASURES, ROWS

NAN = float("nan")
numbers = st.floats(-1e6, 1e6)


def decided(gates, rows, improves=(), **more) -> Decision:
    return decide(Rules(tuple(gates), tuple(improves)), {0.95: Table(rows, **more)})


def one(gate: Gate, candidate: dict, others: dict | None = None, **more) -> Outcome:
    [outcome] = decided([gate], {"candidate": candidate, **(others or {})}, **more).outcomes
    return outcome


@pytest.mark.parametrize(
    ("gate", "came", "state"),
    [
        (Gate("edge_cosine", "at_least", 0.45), Interval(0.61, 0.58, 0.64), "passed"),
        (Gate("edge_cosine", "at_least", 0.58), Interval(0.61, 0.58, 0.64), "passed"),
        (Gate("edge_cosine", "at_least", 0.60), Interval(0.61, 0.58, 0.64), "failed"),
        (Gate("clipped", "at_most", 0.02), Interval(0.01, 0.005, 0.02), "passed"),
        (Gate("clipped", "at_most", 0.02), Interval(0.01, 0.005, 0.0201), "failed"),
    ],
)
def test_a_number_is_asked_of_the_whole_interval(gate, came, state):
    assert one(gate, {gate.measure: came}).state == state


def test_words_say_what_came_and_what_was_wanted():
    gate = Gate("edge_cosine", "at_least", 0.45)
    outcome = one(gate, {"edge_cosine": Interval(0.61, 0.58, 0.64)})
    assert outcome.as_dict() == {
        "name": "edge_cosine at least 0.45",
        "state": "passed",
        "words": "edge_cosine 0.61 (0.58 to 0.64), wanted at least 0.45",
    }
    rival = {"reinhard": {"style": Interval(0.05, 0.02, 0.3)}}
    outcome = one(Gate("style", "above", None, "reinhard"), {"style": Interval(0.4, 0.3, 0.5)}, rival)
    assert outcome.words == "style 0.4 (0.3 to 0.5), wanted above reinhard (0.05)"


@given(numbers, numbers, numbers, numbers)
def test_gates_hold_exactly_where_every_number_of_the_interval_satisfies_them(low, value, high, limit):
    low, value, high = sorted((low, value, high))
    came, inside = Interval(value, low, high), (low, value, high)
    truth = {
        "at_least": all(n >= limit for n in inside),
        "at_most": all(n <= limit for n in inside),
        "above": all(n > limit for n in inside),
        "below": all(n < limit for n in inside),
    }
    for bound, holds in truth.items():
        strict = bound in ("above", "below")
        gate = Gate("nyquist", bound, None if strict else limit, "fda" if strict else None)
        # Only the value of the other row counts, not its interval.
        other = {"fda": {"nyquist": Interval(limit, limit - 1e3, limit + 1e3)}}
        assert one(gate, {"nyquist": came}, other).state == ("passed" if holds else "failed")


@pytest.mark.parametrize("came", [Interval(NAN, NAN, NAN), Interval(0.6, NAN, 0.7), Interval(0.6, 0.5, math.inf)])
@pytest.mark.parametrize("bound", ["at_least", "at_most"])
def test_what_is_not_a_number_fails_whichever_way_it_is_asked(came, bound):
    outcome = one(Gate("edge_cosine", bound, 0.5), {"edge_cosine": came})
    assert outcome.state == "failed" and "is not a number" in outcome.words


def test_what_was_not_measured_fails_unless_it_was_only_wanted_if_measured():
    gate = Gate("label_agreement", "at_least", 0.8)
    assert one(gate, {}).words == "label_agreement was not measured, wanted label_agreement at least 0.8"
    assert one(gate, {}).state == "failed"
    gate = Gate("label_agreement", "at_least", 0.8, if_measured=True)
    assert one(gate, {}).state == "not asked"
    assert one(gate, {"label_agreement": Interval(0.7, 0.6, 0.8)}).state == "failed"
    assert one(gate, {"label_agreement": Interval(NAN, NAN, NAN)}).state == "failed"


@pytest.mark.parametrize("others", [{}, {"reinhard": {}}, {"reinhard": {"style": Interval(NAN, 0.0, 0.1)}}])
def test_a_row_that_was_not_measured_fails_the_gate_that_must_beat_it(others):
    outcome = one(Gate("style", "above", None, "reinhard"), {"style": Interval(0.4, 0.3, 0.5)}, others)
    assert outcome.state == "failed" and "style of reinhard" in outcome.words


def test_ratios_and_gains_are_those_of_the_pairs():
    rows = {"baseline": {"clipped": Interval(0.5, 0.4, 0.6)}}
    mine = {"clipped": Interval(0.5, 0.4, 0.6)}
    ratio = Gate("clipped", "at_most", 1.25, "baseline")
    assert one(ratio, mine, rows, ratios={"clipped": Interval(1.1, 1.0, 1.25)}).state == "passed"
    assert one(ratio, mine, rows, ratios={"clipped": Interval(1.1, 1.0, 1.26)}).state == "failed"
    assert one(ratio, mine, rows).words.startswith("ratio of clipped was not measured")
    assert one(ratio, mine).state == "not asked"
    better = Gate("clipped", "below", None, "baseline")
    # A gain is positive where the candidate is better, though it clips less.
    assert one(better, mine, rows, gains={"clipped": Interval(0.1, 0.01, 0.2)}).state == "passed"
    assert one(better, mine, rows, gains={"clipped": Interval(0.1, 0.0, 0.2)}).state == "failed"
    assert one(better, mine).state == "not asked"


def test_one_of_the_listed_measures_must_improve_with_its_whole_interval():
    rows = {"candidate": {}, "baseline": {}}
    gains = {"style": Interval(0.1, 0.0, 0.2), "downstream": Interval(0.02, 0.01, 0.03)}
    both = decided([], rows, ["style", "downstream"], gains=gains)
    assert both.passed and both.improved == ("downstream",)
    only = decided([], rows, ["style", "fid"], gains=gains)
    assert not only.passed and only.improved == ()
    assert only.outcomes[-1].words.startswith("style by 0.1 (0 to 0.2), wanted one of style, fid better")
    assert not decided([], rows, ["style"], gains={"style": Interval(NAN, 0.1, 0.2)}).passed
    assert not decided([], rows, ["style"]).passed
    first = decided([], {"candidate": {}}, ["style"])
    assert first.passed and first.outcomes[0].state == "not asked"


def test_one_failed_gate_is_enough_and_all_are_listed():
    gates = [Gate("edge_cosine", "at_least", 0.5), Gate("coverage", "at_least", 0.5), Gate("pairwise", "at_least", 0.5)]
    row = {"edge_cosine": Interval(0.6, 0.55, 0.65), "coverage": Interval(0.4, 0.3, 0.5)}
    decision = decided(gates, {"candidate": row})
    assert not decision.passed
    assert [outcome.state for outcome in decision.outcomes] == ["passed", "failed", "failed"]
    assert decided(gates[:1], {"candidate": row}).passed


def test_each_gate_reads_the_table_of_its_confidence():
    gate = Gate("coverage", "at_least", 0.5, confidence=0.99)
    rules = Rules((gate,))
    assert rules.confidences == (0.95, 0.99)
    wide, narrow = ({"candidate": {"coverage": Interval(0.6, low, 0.7)}} for low in (0.4, 0.55))
    assert not decide(rules, {0.95: Table(narrow), 0.99: Table(wide)}).passed
    with pytest.raises(ValueError, match=r"none for \[0.99\]"):
        decide(rules, {0.95: Table(narrow)})


def test_rules_name_the_rows_that_they_need():
    gates = (Gate("style", "above", None, "reinhard"), Gate("clipped", "at_most", 1.25, "baseline"))
    assert Rules(gates).rows == ("reinhard",)


@pytest.mark.parametrize(
    ("bound", "limit", "against"),
    [
        ("at_least", None, None),
        ("above", 0.5, "fda"),
        ("above", None, None),
        ("at_most", 1.2, "fda"),
        ("over", 1, None),
    ],
)
def test_a_gate_that_cannot_be_meant_is_refused(bound, limit, against):
    with pytest.raises(ValueError, match="wanted"):
        Gate("style", bound, limit, against)


def test_measures_are_described():
    assert {"edge_cosine", "style", "sliced_wasserstein_3", "nyquist"} <= set(MEASURES) and "reinhard" in ROWS
    assert all(measure.better in ("higher", "lower", "near one") and measure.says for measure in MEASURES.values())
