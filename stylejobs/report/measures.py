"""Measures as tables for a terminal and a log: plain text in, plain text out."""

import io
import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

Numbers = Sequence[float]
"""Value, low and high end of an interval."""

_WIDTH = 120


def format_measures(rows: Mapping[str, Mapping[str, Numbers]], gains: Mapping[str, Numbers]) -> str:
    """A line a measure: each model's value with its interval, and how much better the candidate is.

    Args:
        rows: model -> measure -> numbers.
        gains: measure -> numbers, positive where the first model is better.

    >>> print(format_measures({"candidate": {"style": (0.5, 0.4, 0.6)}}, {}))
     measure         candidate
     style    0.5 (0.4 to 0.6)
    """
    table = _table("measure", [*rows, *(["gain"] if gains else [])])
    for measure in dict.fromkeys(measure for row in rows.values() for measure in row):
        cells = [_cell(row.get(measure)) for row in rows.values()]
        table.add_row(measure, *cells, *([_cell(gains.get(measure), sign="+")] if gains else []))
    return _text(table)


def format_calibration(rows: Mapping[str, Mapping[str, Numbers]], measures: Sequence[str]) -> str:
    """A line a row of the calibration, a column a measure, values alone: which faults which measure sees.

    Args:
        rows: row -> measure -> numbers.
        measures: the columns; those that no row has are left out.
    """
    columns = [measure for measure in measures if any(measure in row for row in rows.values())]
    table = _table("row", [measure.replace("sliced_wasserstein", "sliced") for measure in columns])
    for name, row in rows.items():
        table.add_row(name, *(_number(row[measure][0]) if measure in row else "" for measure in columns))
    return _text(table)


def _table(first: str, others: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=True, header_style="bold")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _cell(numbers: Numbers | None, sign: str = "") -> str:
    if numbers is None:
        return ""
    value, low, high = numbers
    return f"{_number(value, sign)} ({_number(low, sign)} to {_number(high, sign)})"


def _number(value: float | None, sign: str = "") -> str:
    return "not a number" if value is None or not math.isfinite(value) else f"{value:{sign}.3g}"


def _text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=_WIDTH, no_color=True)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
