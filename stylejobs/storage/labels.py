"""Labels of image files: from folder names or from a CSV."""

import csv
import io
import os
from dataclasses import dataclass

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
                of the CSV but the one with the file names, as the text that stands there.
            csv_uri: where the CSV is; None for `root`/labels.csv.

        Raises:
            SourceError: the CSV is missing, malformed, not UTF-8, or names none of the files.
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
        header, rows = _parse(uri, data)
        naming = next((column for column in NAME_COLUMNS if column in header), None)
        if naming is None:
            raise SourceError(
                f"{uri}: wanted a column of file names called {', '.join(NAME_COLUMNS)}; columns: {header}"
            )
        at = header.index(naming)
        columns = tuple(header[:at] + header[at + 1 :])
        by_name = {row[at]: tuple(row[:at] + row[at + 1 :]) for row in rows}
        if not any(name in by_name for name in names):
            raise SourceError(f"{uri}: column {naming!r} names none of the {len(names)} files, such as {names[0]!r}")
        return cls(columns, by_name)

    def of(self, names: list[str]) -> dict[str, list[str | None]]:
        """Values of each column for these files, null where the CSV has no line."""
        none = (None,) * len(self.columns)
        rows = [(self.by_name or {}).get(name, none) for name in names]
        return {column: [row[index] for row in rows] for index, column in enumerate(self.columns)}


def _parse(uri: str, data: bytes) -> tuple[list[str], list[list[str]]]:
    """Header and rows; no value is read as a number, a date or a null, so `007` and `NA` stay what they are."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise SourceError(f"{uri}: not UTF-8 ({error}); save it as UTF-8") from error
    except csv.Error as error:
        raise SourceError(f"{uri}: not a CSV with a header line: {error}") from error
    if not rows:
        raise SourceError(f"{uri}: not a CSV with a header line: it is empty")
    (_, header), *rows = rows
    if twice := sorted({column for column in header if header.count(column) > 1}):
        raise SourceError(f"{uri}: several columns are called {', '.join(map(repr, twice))}; give them different names")
    for line, row in rows:
        if len(row) != len(header):
            raise SourceError(
                f"{uri}: not a CSV with a header line: line {line}: Expected {len(header)} columns, got {len(row)}"
            )
    return header, [row for _, row in rows]
