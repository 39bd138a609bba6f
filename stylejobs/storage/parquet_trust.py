"""What is looked at in a Parquet file before its rows are: columns that would run code, and bytes without bound.

A Parquet file comes from whoever made the data. Ray Data knows a column type whose values are pickles, which are loaded
as soon as a value is looked at: any process that has Ray Data imported would run what the file says.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.errors import SourceError

_PICKLED = "ray.data.arrow_pickled_object"
_MAX_RATIO = 64
_ALWAYS_BYTES = 2**30


def read_dataset_table(data: bytes, place: str) -> pa.Table:
    """The table in the bytes of a Parquet file, for files of a dataset that may be anybody's.

    Raises:
        SourceError: a column holds pickles.
    """
    parquet = pq.ParquetFile(pa.BufferReader(data))
    check_schema(parquet.schema_arrow, place)
    return parquet.read()


def check_schema(schema: pa.Schema, place: str) -> None:
    """Refuses columns whose values are pickles, at any depth.

    Raises:
        SourceError: naming them.
    """
    columns = [field.name for field in schema if _is_pickled(field)]
    if columns:
        raise SourceError(
            f"{place}: column(s) {', '.join(map(repr, columns))} hold pickled Python objects ({_PICKLED}), which run "
            "code when they are read; write them as numbers, texts or lists, or leave them out"
        )


def _is_pickled(field: pa.Field) -> bool:
    # Without Ray Data in the process, Arrow tells of the type in the field's metadata only.
    named = (field.metadata or {}).get(b"ARROW:extension:name", b"").decode("utf-8", "replace")
    return named == _PICKLED or _holds_pickles(field.type)


def _holds_pickles(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.extension_name == _PICKLED or _holds_pickles(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _holds_pickles(kind.value_type)
    return any(_is_pickled(kind.field(index)) for index in range(kind.num_fields))


def check_inflation(footer: pq.FileMetaData, groups: range, place: str) -> None:
    """Refuses row groups that say of themselves that they are bombs: above 1 GiB, and 64 times what is stored.

    Raises:
        SourceError: naming the sizes.
    """
    chunks = [footer.row_group(group).column(column) for group in groups for column in range(footer.num_columns)]
    stored = sum(chunk.total_compressed_size for chunk in chunks)
    inflated = sum(chunk.total_uncompressed_size for chunk in chunks)
    if inflated > max(_ALWAYS_BYTES, _MAX_RATIO * stored):
        raise SourceError(
            f"{place}: row groups {groups.start} to {groups.stop} inflate from {stored:,} to {inflated:,} bytes, more "
            f"than {_MAX_RATIO} times; leave the file out, or write it again with less compression if you trust it"
        )
