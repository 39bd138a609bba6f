"""What CI keeps of an evaluation that ran on a cluster: `verdict.py REPORTS result.jsonl`.

Copies REPORTS/summary.md and REPORTS/gates.xml, which evaluate wrote with summary= and junit=, into the working folder.
Where the result says that the gates passed, it also writes `model.env`: MODEL=models:/NAME/VERSION, what to promote.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylejobs.errors import StylejobsError
from stylejobs.storage import locations

REPORTS = ("summary.md", "gates.xml")


def version_of(result: dict[str, Any]) -> str:
    """The version that was judged, as an alias that moves cannot say it.

    >>> version_of({"model": {"name": "mosaic", "version": "3"}})
    'models:/mosaic/3'

    Raises:
        ValueError: it is not a registered one.
    """
    model = result.get("model") or {}
    name, version = model.get("name") or "", model.get("version") or ""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or not re.fullmatch(r"[0-9]+", version):
        raise ValueError(f"wanted a version of a registered model to promote; got {name!r}, {version!r}")
    return f"models:/{name}/{version}"


def keep_verdict(reports: str, result: dict[str, Any], folder: Path) -> None:
    """Copies the reports, and writes `model.env` where the gates passed.

    Raises:
        FileNotFoundError: a report is not there.
        StorageError: it cannot be read.
        ValueError: what passed is no registered model.
    """
    for name in REPORTS:
        (folder / name).write_bytes(locations.read_bytes(locations.join(reports, name)))
    if result["exit_code"] == 0:
        (folder / "model.env").write_text(f"MODEL={version_of(result)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 2:
        print(f"verdict.py: wanted REPORTS result.jsonl; got {len(arguments)} argument(s)", file=sys.stderr)
        return 2
    reports, path = arguments
    try:
        keep_verdict(reports, json.loads(Path(path).read_text().splitlines()[-1]), Path())
    except (OSError, IndexError, KeyError, ValueError, StylejobsError) as error:
        print(f"verdict.py: {type(error).__name__}: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
