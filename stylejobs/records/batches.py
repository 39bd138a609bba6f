"""Arrow batches between processes. No torch here: tasks that only move bytes need not load it."""

import hashlib
from collections.abc import Mapping, Sequence

import pyarrow as pa

from stylejobs.errors import SourceError

TRAINING_FIELDS = [
    pa.field("key", pa.string()),
    pa.field("domain", pa.int64()),
    pa.field("image", pa.large_binary()),
]
"""What a row of a training set is on its way to a worker: `domain` is the number of its domain; `image` may be null."""


def training_rows(table: pa.Table, image_column: str, key_column: str | None, domain: int) -> pa.Table:
    """Rows of `TRAINING_FIELDS`, all of one domain, out of image shards.

    Args:
        image_column: binary or struct<bytes, path>.
        key_column: None where there is none: a key is then the path of the image, or "sha256:" and the first 12 digits
            of the digest of its bytes.
    """
    image = table[image_column].combine_chunks()
    paths: Sequence[str | None] = [None] * len(table)
    if pa.types.is_struct(image.type):
        if image.type.get_field_index("path") >= 0:
            paths = image.field("path").to_pylist()
        image = image.field("bytes")
    image = image.cast(pa.large_binary())
    given = table[key_column].to_pylist() if key_column else paths
    keys = [
        str(key) if key is not None else path or image_key(data.as_buffer())
        for key, path, data in zip(given, paths, image, strict=True)
    ]
    return training_table(keys, [domain] * len(keys), image)


def training_table(keys: Sequence[str], domains: Sequence[int], images: pa.Array | Sequence[bytes | None]) -> pa.Table:
    """The columns as one table of `TRAINING_FIELDS`."""
    return pa.table([keys, domains, images], schema=pa.schema(TRAINING_FIELDS))


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


def image_key(data: bytes | pa.Buffer | None) -> str:
    """The name of an image that has no other.

    >>> image_key(b"picture")
    'sha256:2cea274d0bed'
    """
    return f"sha256:{hashlib.sha256(data or b'').hexdigest()[:12]}"
