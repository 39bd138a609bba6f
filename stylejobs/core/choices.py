"""Choosing by name out of a plain dict, with an answer that helps when the name is not there."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Choice = TypeVar("Choice")


def choose(kind: str, table: Mapping[str, Choice], name: str) -> Choice:
    """The entry called `name`.

    Args:
        kind: what the table holds, in the singular, for the message ("network").
        table: name -> entry.
        name: the name that was asked for.

    Raises:
        ValueError: there is no such entry; the message holds the nearest name and all names.

    >>> choose("network", {"johnson": 1}, "jonson")
    Traceback (most recent call last):
    ValueError: wanted a network out of johnson; got 'jonson'; did you mean 'johnson'?
    """
    if name in table:
        return table[name]
    nearest = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"wanted a {kind} out of {', '.join(table)}; got {name!r}{hint}")
