"""Arrow batches between processes. No torch here: tasks that only move bytes need not load it."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from stylejobs.errors import SourceError

TRAINING_FIELDS = [
    pa.field("unit", pa.int64()),
    pa.field("key", pa.string()),
    pa.field("domain", pa.int64()),
    pa.field("image", pa.large_binary()),
]
"""What a row of a training set is on its way to a worker: numbers of its unit and domain; `image` may be null."""


def training_table(unit: int, keys: Sequence[str], domains: Sequence[int], images: Sequence[bytes | None]) -> pa.Table:
    """Rows of one unit as a table of `TRAINING_FIELDS`."""
    return pa.table([[unit] * len(keys), keys, domains, images], schema=pa.schema(TRAINING_FIELDS))


def number_of(label: object, domains: Mapping[str, int]) -> int:
    """The number of a label; of "" where there is none.

    Raises:
        SourceError: the label is new.

    >>> number_of(7, {"": 1, "7": 2}), number_of(None, {"": 1, "7": 2})
    (2, 1)
    """
    text = "" if label is None else str(label)
    if text not in domains:
        raise SourceError(f"label {text!r} was not there when the training was planned; run the command again")
    return domains[text]
