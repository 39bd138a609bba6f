"""Arrow batches between processes. No torch here: tasks that only move bytes need not load it."""

import pyarrow as pa


def only_image_bytes(table: pa.Table, column: str) -> pa.Table:
    """A table with one column, `image`: the encoded bytes of a binary or struct<bytes, ...> column, large_binary."""
    image = table[column].combine_chunks()
    if pa.types.is_struct(image.type):
        image = image.field("bytes")
    return pa.table({"image": image.cast(pa.large_binary())})
