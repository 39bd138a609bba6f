"""Filters on rows, `column=value`: what they mean, and what the statistics of a row group already say about them.

A filter is a tuple of (column, values) pairs: a row matches when each column holds one of its values. Values are text;
numbers and truth values are compared as they are written in JSON: `7`, `-1`, `true`. A null matches nothing.
"""

import functools
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylejobs.errors import SourceError

Where = Sequence[tuple[str, Sequence[str]]]


def parse_where(texts: Iterable[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The filter that a list of `column=value` stands for; the same column twice means either value.

    Sorted, so that one filter has one spelling.

    Raises:
        SourceError: an item has no `=` or no column before it.

    >>> parse_where(["split=train", "label=dog", "label=cat"])
    (('label', ('cat', 'dog')), ('split', ('train',)))
    """
    wanted: dict[str, set[str]] = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not (column and equals):
            raise SourceError(f"where={text}: wanted COLUMN=VALUE, such as where=label=cat,split=train")
        wanted.setdefault(column, set()).add(value)
    return tuple((column, tuple(sorted(values))) for column, values in sorted(wanted.items()))


def check_columns(where: Where, columns: Iterable[str], place: str) -> None:
    """Refuses a filter on columns that a source does not have.

    Raises:
        SourceError: names the columns that there are.
    """
    known = sorted(set(columns))
    for column, _ in where:
        if column not in known:
            near = get_close_matches(column, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SourceError(
                f"{place}: where={column}=...: no such column{hint} Columns: {', '.join(known) or 'none'}"
            )


def check_types(where: Where, schema: pa.Schema, place: str) -> None:
    """Refuses a filter on a column of this file that text cannot be compared with, and values that it cannot hold.

    Raises:
        SourceError: the column is not of text, integers or truth values, or a value is not spelt as one of these.
    """
    for column, values in where:
        kind = _kind(schema, column)
        if kind == "other":
            raise SourceError(
                f"{place}: where={column}=...: the column is of type {schema.field(column).type}; filters take text, "
                "integers and booleans"
            )
        wrong = [value for value in values if kind is not None and _typed(value, kind) is None]
        if wrong:
            raise SourceError(f"{place}: where={column}={wrong[0]}: the column is of type {schema.field(column).type}")


def _kind(schema: pa.Schema, column: str) -> str | None:
    """How a column is compared; None where the file has no such column, or only nulls in it."""
    index = schema.get_field_index(column)
    kind = pa.null() if index < 0 else schema.field(index).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        # Statistics of large unsigned numbers come out of Arrow with a sign.
        return "integer" if pa.types.is_signed_integer(kind) or kind.bit_width < 32 else "unsigned"
    return "other"


def _typed(value: str, kind: str) -> str | int | bool | None:
    """A value as the column holds it; None where no value of this kind is written so."""
    if kind == "text":
        return value
    if kind == "boolean":
        return {"true": True, "false": False}.get(value)
    is_number = value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()
    return int(value) if is_number and str(int(value)) == value else None


class Statistics:
    """A filter as the footer of one Parquet file sees it."""

    def __init__(self, where: Where, schema: pa.Schema, footer: pq.FileMetaData):
        leaves = {footer.schema.column(index).path: index for index in range(len(footer.schema))} if where else {}
        self._conditions = []
        for column, values in where:
            kind = _kind(schema, column)
            typed = [_typed(value, kind) for value in values] if kind else []
            self._conditions.append((leaves.get(column), kind, typed))

    def exclude(self, group: pq.RowGroupMetaData) -> bool:
        """Whether no row of this row group can match."""
        return any(not _may_hold(group, *condition) for condition in self._conditions)


def _may_hold(group: pq.RowGroupMetaData, leaf: int | None, kind: str | None, values: list) -> bool:
    if kind is None or leaf is None:
        return False
    found = group.column(leaf).statistics
    if kind == "unsigned" or found is None or not found.has_min_max:
        return True
    try:
        least, most = found.min, found.max
    except UnicodeDecodeError:  # a bound that was cut within a letter
        return True
    # Unicode text and its UTF-8 bytes, which is what writers sort, have one order.
    return any(least <= value <= most for value in values)


def find_matches(where: Where, table: pa.Table) -> pa.ChunkedArray:
    """Which rows of a table match, as booleans without nulls; a column that is missing matches nothing."""
    masks = [_matches(table, column, values) for column, values in where]
    return functools.reduce(pc.and_, masks)


def _matches(table: pa.Table, column: str, values: Sequence[str]) -> pa.ChunkedArray:
    found = table[column] if column in table.column_names else pa.chunked_array([pa.nulls(len(table))])
    return pc.is_in(found.cast(pa.string()), value_set=pa.array(values, pa.string()))
