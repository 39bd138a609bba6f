"""What a planned source is: units of work and the columns that their rows carry, as small plain values that travel."""

from dataclasses import asdict, dataclass, field

import pyarrow as pa

PARQUET_ENDINGS = (".parquet", ".pq")
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
LIST_ENDINGS = (".txt", ".csv", ".jsonl")


@dataclass(frozen=True)
class Unit:
    """One unit of work.

    Attributes:
        kind: "parquet", "tar", "files" or "list".
        source_uri: the file (for "files": the folder) that the rows come from; for "list": the list.
        name: the file's name within the source, part of the keys of rows that have none of their own; for "list": the
            first URI.
        tag: changes when the bytes of the unit change (etag, or size and modification time).
        num_bytes: source bytes of the unit; of a "list" only those of files on this machine.
        num_rows: rows of the unit; None where that is not known: tars have no index, filters are applied by the worker.
        row_groups: first and one past the last row group ("parquet").
        first_row: rows of the file before the unit ("parquet").
        image_column, key_column: of a "parquet" unit.
        files: names within the folder ("files") or URIs as the list has them ("list"); `labels` by column, aligned.
        where: (column, values) pairs, see `stylejobs.storage.filters` ("parquet").
    """

    kind: str
    source_uri: str
    name: str
    tag: str
    num_bytes: int
    num_rows: int | None = None
    row_groups: tuple[int, int] = (0, 0)
    first_row: int = 0
    image_column: str = ""
    key_column: str | None = None
    files: tuple[str, ...] = ()
    labels: dict[str, list[str | None]] = field(default_factory=dict)
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def identity(self) -> dict:
        """What the rows of the unit are a function of: goes into its fingerprint."""
        described = asdict(self)
        return {name: value for name, value in described.items() if name not in ("num_bytes", "num_rows")}

    @classmethod
    def from_plain(cls, plain: dict) -> "Unit":
        """A unit from what JSON made of its fields."""
        where = tuple((column, tuple(values)) for column, values in plain["where"])
        lists = {"row_groups": tuple(plain["row_groups"]), "files": tuple(plain["files"]), "where": where}
        return cls(**{**plain, **lists})


@dataclass(frozen=True)
class Source:
    """A planned source: its units, and the columns that rows carry beside image and key."""

    uri: str
    kind: str
    units: list[Unit]
    carried_schema: pa.Schema

    @property
    def num_rows(self) -> int | None:
        counts = [unit.num_rows for unit in self.units]
        return None if None in counts else sum(counts)

    def summary(self) -> dict:
        """Its size, for plans and reports."""
        num_bytes = sum(unit.num_bytes for unit in self.units)
        return {"uri": self.uri, "kind": self.kind, "units": len(self.units), "rows": self.num_rows, "bytes": num_bytes}


def tag_of(info: dict) -> str:
    """What tells a changed file from the same one, out of what `locations.stat` says of it."""
    return f"{info['size']}:{info['tag']}"
