"""The error budget of a job: how many rows may be bad, in all and for each reason, judged as it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stylejobs.errors import BudgetError

_ENOUGH_ROWS = 1000
"""Rows to have seen before the number of all rows is guessed from them."""


@dataclass(frozen=True)
class Budget:
    """Largest shares of bad rows, of all rows of the source.

    A budget is broken as soon as more rows are bad than it allows of *all* rows: a job that starts with its worst files
    is not stopped for that, one that cannot end well is stopped at once.

    Attributes:
        max_bad: for all reasons together [fraction].
        by_reason: for one reason each [fraction]; reasons that are not named have none of their own.
    """

    max_bad: float
    by_reason: Mapping[str, float] = field(default_factory=dict)

    def check(self, bad: Mapping[str, int], num_rows: int | None, dest: str) -> None:
        """Judges the bad rows by reason, of `num_rows` in all; None where nobody can know yet.

        Raises:
            BudgetError: a budget is broken, or every row is bad.
        """
        total = sum(bad.values())
        if not num_rows or not total:
            return
        broken = [
            f"{count:,} of {num_rows:,} rows are bad, reason {reason}, more than max_bad_of.{reason}={limit:g} allows"
            for reason, limit in self.by_reason.items()
            if (count := bad.get(reason, 0)) > limit * num_rows
        ]
        if total > self.max_bad * num_rows or total == num_rows:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in bad.items())
            allowed = f"more than max_bad={self.max_bad:g} allows"
            broken.insert(0, f"{total:,} of {num_rows:,} rows are bad ({reasons}), {allowed}")
        if broken:
            raise BudgetError(
                "\n".join(broken) + f"; {dest}/dead_letter names each; mend the source or raise what is allowed"
            )


def guess_rows(rows_in: int, bytes_in: int, bytes_total: int) -> int | None:
    """All rows of a source that has no index, from those that were read: None until they say enough.

    >>> guess_rows(2000, 10, 40)
    8000
    """
    if rows_in < _ENOUGH_ROWS or not bytes_in:
        return None
    return max(rows_in, round(rows_in * bytes_total / bytes_in))
