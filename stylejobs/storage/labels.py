"""Labels of image files: from folder names or from a CSV."""

import io
import os
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv

from stylejobs.errors import SourceError
from stylejobs.storage import locations

NAME_COLUMNS = ("file_name", "filename", "file", "path", "image", "key")
"""A CSV names its files in the first of these columns that it has (`file_name` is the Hugging Face spelling)."""


@dataclass(frozen=True)
class Labels:
    """Label columns, and how to find a file's values."""

    columns: tuple[str, ...] = ()
    by_name: dict[str, tuple[str | None, ...]] | None = None

    @classmethod
    def read(cls, mode: str, root: str, csv_uri: str | None, names: list[str]) -> "Labels":
        """Labels for the files `names` under `root`.

        Args:
            mode: "none"; "folder": column `label` is the name of a file's folder, null at the top; "csv": every column
                of the CSV but the one with the file names, as text.
            csv_uri: where the CSV is; None for `root`/labels.csv.

        Raises:
            SourceError: the CSV is missing, malformed, or names none of the files.
        """
        if mode == "none":
            return cls()
        if mode == "folder":
            return cls(("label",), {name: (os.path.basename(os.path.dirname(name)) or None,) for name in names})
        return cls._read_csv(csv_uri or locations.join(root, "labels.csv"), names)

    @classmethod
    def _read_csv(cls, uri: str, names: list[str]) -> "Labels":
        try:
            data = locations.read_bytes(uri)
        except FileNotFoundError:
            raise SourceError(f"{uri}: no such file; labels=csv reads it (or set labels_csv=)") from None
        try:
            table = pa.csv.read_csv(io.BytesIO(data))
        except pa.ArrowInvalid as error:
            raise SourceError(f"{uri}: not a CSV with a header line: {error}") from error
        naming = next((column for column in NAME_COLUMNS if column in table.column_names), None)
        if naming is None:
            raise SourceError(
                f"{uri}: wanted a column of file names called {', '.join(NAME_COLUMNS)}; columns: {table.column_names}"
            )
        columns = tuple(column for column in table.column_names if column != naming)
        values = [[None if v is None else str(v) for v in table[c].to_pylist()] for c in columns]
        rows = zip(*values, strict=True) if columns else [()] * table.num_rows
        by_name = dict(zip(map(str, table[naming].to_pylist()), rows, strict=True))
        if not any(name in by_name for name in names):
            raise SourceError(f"{uri}: column {naming!r} names none of the {len(names)} files, such as {names[0]!r}")
        return cls(columns, by_name)

    def of(self, names: list[str]) -> dict[str, list[str | None]]:
        """Values of each column for these files, null where the CSV has no line."""
        none = (None,) * len(self.columns)
        rows = [(self.by_name or {}).get(name, none) for name in names]
        return {column: [row[index] for row in rows] for index, column in enumerate(self.columns)}
