"""Parquet shards of images: encoded whole in memory, so that a file appears whole or not at all.

`image.bytes` is stored uncompressed and without dictionary (it is compressed already, and readers can map it); all
other columns are zstd. Pages carry checksums and an index.
"""

import io
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylejobs.errors import SourceError
from stylejobs.storage import locations
from stylejobs.storage.parquet_trust import check_schema

_SIZED = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)


def encode_shard(table: pa.Table, row_group_bytes: float) -> bytes:
    """A table as the bytes of one Parquet file.

    Args:
        table: any columns; those with a struct<bytes, ...> type are treated as encoded images.
        row_group_bytes: size of a row group, met as closely as rows allow; a group has at least one row.

    Raises:
        SourceError: Arrow could not read back what it would write.
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
    data = sink.getvalue()
    _check_fixed_size_lists(table.schema, data)
    return data


def _check_fixed_size_lists(schema: pa.Schema, data: bytes) -> None:
    """Arrow writes null lists of fixed size in a way that no reader of it accepts (pyarrow 25)."""
    columns = [field.name for field in schema if "fixed_size_list" in str(field.type)]
    try:
        if columns:
            pq.read_table(io.BytesIO(data), columns=columns)
    except pa.ArrowInvalid as error:
        raise SourceError(
            f"columns {', '.join(columns)}: a list of fixed size that is null cannot be stored ({error}); write the "
            "source with lists of any size, or give every row of every file a list"
        ) from error


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
    start, num_bytes = 0, 0.0
    for row, size in enumerate(_row_bytes(table)):
        if row > start and num_bytes + size / 2 > row_group_bytes:
            yield table.slice(start, row - start)
            start, num_bytes = row, 0.0
        num_bytes += size
    yield table.slice(start)


def _row_bytes(table: pa.Table) -> list[float]:
    """Bytes of each row: of images and texts the row's own, of everything else the mean."""
    known = np.zeros(len(table))
    for column in table.columns:
        index = column.type.get_field_index("bytes") if pa.types.is_struct(column.type) else -1
        values = pc.struct_field(column, "bytes") if index >= 0 else column
        if any(is_kind(values.type) for is_kind in _SIZED):
            known += pc.fill_null(pc.binary_length(values), 0).to_numpy()
    rest = max(0.0, table.nbytes - known.sum()) / len(table)
    return (known + rest).tolist()


def read_shard(uri: str, max_row_groups: int | None = None, columns: list[str] | None = None) -> pa.Table:
    """A shard, or its first row groups.

    Raises:
        FileNotFoundError: nothing is there.
        SourceError: a column holds pickles.
        StorageError: it cannot be read.
    """
    filesystem, path = locations.split(uri)
    with locations.storage_errors("read", uri), filesystem.open(path, "rb") as file:
        parquet = pq.ParquetFile(file)
        check_schema(parquet.schema_arrow, uri)
        groups = range(parquet.num_row_groups)[:max_row_groups]
        return parquet.read_row_groups(list(groups), columns=columns)
