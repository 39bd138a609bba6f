"""What a receipt makes of the moments at which units were whole; the receipt itself is in tests/pipelines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.core.bootstrap import Interval
from stylejobs.engine.cost_receipt import _rate, bound_by
from stylejobs.engine.pace import Pace

PACE = Pace(Interval(10.0, 8.0, 12.0), None, "")


def waves(workers: int, rounds: int, unit_seconds: float, rows: int, start: float) -> list[tuple[float, float]]:
    """Workers that do a unit each, side by side, `rounds` times."""
    return [
        (start + unit_seconds * (done // workers + 1), float(rows * (done + 1))) for done in range(workers * rounds)
    ]


@given(st.integers(1, 40), st.integers(2, 6), st.floats(0.01, 100), st.integers(1, 500), st.floats(0, 60))
def test_the_rate_is_that_of_workers_that_do_a_unit_each(
    workers: int, rounds: int, unit_seconds: float, rows: int, start: float
) -> None:
    rate = _rate(waves(workers, rounds, unit_seconds, rows, start), workers, PACE)
    assert rate.value == pytest.approx(workers * rows / unit_seconds, rel=1e-6)
    assert rate.low == pytest.approx(0.8 * rate.value) and rate.high == pytest.approx(1.2 * rate.value)
    assert "by the clock" in rate.how


def test_of_too_few_units_it_is_that_of_a_worker_and_says_so() -> None:
    rate = _rate(waves(4, 1, 2.0, 10, 5.0), 4, PACE)
    assert rate.value == 40.0 and "too few units" in rate.how


def test_start_up_is_no_part_of_the_rate() -> None:
    late, soon = (_rate(waves(2, 4, 1.0, 10, start), 2, PACE) for start in (100.0, 0.0))
    assert late == soon


@pytest.mark.parametrize(
    "seconds, threads, name",
    [
        ({"read": 1, "decode": 8, "generate": 6, "encode": 4, "write": 1}, 1, "codec"),
        ({"read": 1, "decode": 8, "generate": 6, "encode": 2, "write": 1}, 2, "generator"),
        ({"read": 9, "decode": 8, "generate": 6, "encode": 2, "write": 1}, 2, "storage"),
        ({"read": 1}, 1, "storage"),
    ],
)
def test_what_a_worker_waits_for(seconds: dict[str, float], threads: int, name: str) -> None:
    assert bound_by(seconds, threads) == name
