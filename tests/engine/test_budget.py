"""When a job that loses rows is stopped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.engine.budget import Budget, guess_rows
from stylejobs.errors import BudgetError

REASONS = ["truncated", "bomb", "decode"]


@given(st.dictionaries(st.sampled_from(REASONS), st.integers(1, 50)), st.integers(1, 500), st.floats(0, 1))
def test_it_breaks_exactly_when_more_are_bad_than_allowed(bad: dict[str, int], num_rows: int, share: float) -> None:
    total = sum(bad.values())
    num_rows += total
    breaks = total > share * num_rows
    try:
        Budget(share).check(bad, num_rows, "out")
    except BudgetError:
        assert breaks
    else:
        assert not breaks


def test_a_reason_has_its_own_budget_and_all_broken_ones_are_named() -> None:
    budget = Budget(0.5, {"oom": 0.0, "truncated": 0.1, "bomb": 0.3})
    budget.check({"truncated": 10, "decode": 20}, 100, "out")
    with pytest.raises(BudgetError, match=r"1 of 100 rows are bad, reason oom, more than max_bad_of.oom=0 allows"):
        budget.check({"oom": 1}, 100, "out")
    with pytest.raises(BudgetError) as caught:
        budget.check({"truncated": 31, "bomb": 31}, 100, "out")
    lines = str(caught.value).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["62", "31", "31"] and "out/dead_letter" in lines[-1]


def test_nothing_but_bad_rows_is_never_allowed() -> None:
    with pytest.raises(BudgetError):
        Budget(1.0).check({"decode": 3}, 3, "out")
    Budget(1.0).check({"decode": 2}, 3, "out")


def test_nobody_is_judged_while_the_number_of_rows_is_not_known() -> None:
    Budget(0.0).check({"decode": 3}, None, "out")
    assert guess_rows(999, 10, 100) is None
    assert guess_rows(1000, 10, 100) == 10000
    assert guess_rows(1000, 10, 5) == 1000
