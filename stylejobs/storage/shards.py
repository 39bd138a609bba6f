"""Parquet shards of images: encoded whole in memory, so that a file appears whole or not at all.

`image.bytes` is stored uncompressed and without dictionary (it is compressed already, and readers can map it); all
other columns are zstd. Pages carry checksums and an index.
"""

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.storage import locations


def encode_shard(table: pa.Table, row_group_bytes: float) -> bytes:
    """A table as the bytes of one Parquet file.

    Args:
        table: any columns; those with a struct<bytes, ...> type are treated as encoded images.
        row_group_bytes: size of a row group, met as closely as rows allow; a group has at least one row.
    """
    leaves = _leaves(table.schema)
    raw = [leaf for leaf in leaves if leaf.endswith(".bytes")]
    texts = [
        field.name for field in table.schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    sink = io.BytesIO()
    writer = pq.ParquetWriter(
        sink,
        table.schema,
        compression={leaf: "none" if leaf in raw else "zstd" for leaf in leaves},
        use_dictionary=[name for name in texts if name not in ("key", "out_sha256", "source_sha256", "sha256")],
        write_statistics=[leaf for leaf in leaves if leaf not in raw],
        write_page_index=True,
        write_page_checksum=True,
    )
    with writer:
        for group in _split_rows(table, row_group_bytes):
            writer.write_table(group, row_group_size=max(1, len(group)))
    return sink.getvalue()


def _leaves(schema: pa.Schema) -> list[str]:
    """Leaf paths as Parquet spells them, which is how per-column options are keyed."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema):
        pass
    footer = pq.read_metadata(io.BytesIO(sink.getvalue()))
    return [footer.schema.column(index).path for index in range(len(footer.schema))]


def _split_rows(table: pa.Table, row_group_bytes: float) -> Iterable[pa.Table]:
    if len(table) == 0:
        yield table
        return
    rows_per_group = max(1, round(len(table) * row_group_bytes / max(1, table.nbytes)))
    for start in range(0, len(table), rows_per_group):
        yield table.slice(start, rows_per_group)


def read_shard(uri: str, max_row_groups: int | None = None, columns: list[str] | None = None) -> pa.Table:
    """A shard, or its first row groups.

    Raises:
        FileNotFoundError: nothing is there.
        StorageError: it cannot be read.
    """
    filesystem, path = locations.split(uri)
    with locations.storage_errors("read", uri), filesystem.open(path, "rb") as file:
        parquet = pq.ParquetFile(file)
        groups = range(parquet.num_row_groups)[:max_row_groups]
        return parquet.read_row_groups(list(groups), columns=columns)
