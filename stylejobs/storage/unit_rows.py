"""The rows of a unit in memory, whatever they were read from."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from stylejobs.errors import RowError


@dataclass(frozen=True)
class UnitRows:
    """The rows of one unit, in source order; all lists and `carried` are aligned.

    Attributes:
        keys: the row's key; without one, the name of its image file, its URI as listed, `file.parquet/row` with the
            row's number in the file (whatever a filter leaves out), or for tars `shard/sample`, where the shard is
            the tar's name without `.tar` (other endings stay, so that `a.tar` and `a.tgz` have different keys).
        images: encoded bytes, or why there are none.
        paths: name of the picture's file where the source has one, else the key.
        positions: (row group, row within the file), (None, None) for plain files.
        sources: URI of the file that the row came from.
        carried: the source's other columns.
    """

    keys: list[str]
    images: list[bytes | RowError]
    paths: list[str]
    positions: list[tuple[int | None, int | None]]
    sources: list[str]
    carried: pa.Table

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, picked: Sequence[int]) -> "UnitRows":
        """Some of the rows, by their numbers here."""
        return UnitRows(
            keys=[self.keys[row] for row in picked],
            images=[self.images[row] for row in picked],
            paths=[self.paths[row] for row in picked],
            positions=[self.positions[row] for row in picked],
            sources=[self.sources[row] for row in picked],
            carried=self.carried.take(pa.array(picked, pa.int64())),
        )


def no_columns(num_rows: int) -> pa.Table:
    """A table of no columns that still knows its length."""
    return pa.table({"row": pa.nulls(num_rows)}).select([])


def concat_rows(parts: Sequence[UnitRows], carried_schema: pa.Schema) -> UnitRows:
    """The rows of several readings, one after the other."""
    num_rows = sum(len(part) for part in parts)
    carried = [part.carried for part in parts]
    return UnitRows(
        keys=[key for part in parts for key in part.keys],
        images=[image for part in parts for image in part.images],
        paths=[path for part in parts for path in part.paths],
        positions=[position for part in parts for position in part.positions],
        sources=[source for part in parts for source in part.sources],
        carried=pa.concat_tables(carried) if len(carried_schema) else no_columns(num_rows),
    )
