"""The dataset card, DEST/README.md: a Hugging Face header, then what the folder holds, from what, and how to use it."""

import json
import re
from dataclasses import dataclass

from markupsafe import Markup

from stylejobs.report import wording
from stylejobs.report.page import ModelLine, RowCounts, build_environment

# The columns of the contract; every other column came with the source.
COLUMN_MEANINGS = {
    "image": "the stylized image, encoded",
    "key": "the source row's key, unique in the source",
    "source_uri": "where the source row was read",
    "source_sha256": "SHA-256 of the source image's bytes",
    "style": "the style that was applied",
    "strength": "how much of the style was applied: 0 none, 1 all",
    "variant": "which of the variants of this source row, from 0",
    "seed": "what the row's random choices were drawn from",
    "model_name": "the registered model",
    "model_version": "its version",
    "model_sha256": "SHA-256 of its weights",
    "width": "width of the stylized image in pixels",
    "height": "height of the stylized image in pixels",
    "out_sha256": "SHA-256 of the stylized image's bytes",
    "is_synthetic": "true: a machine made this image",
    "blur_score": "how sharp the source was: variance of the Laplacian at one size and contrast; low is blurry",
}
FROM_SOURCE = "from the source, unchanged"
ROWS_AT = {"parquet": "data/*.parquet", "webdataset": "data/*.tar", "files": "lineage/*.parquet", "null": ""}
"""Which files of a dataset hold its rows, by sink."""
# Line breaks to YAML but not to JSON, and characters that YAML forbids; all can be written as one four-digit escape.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SIZE_CLASSES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)


@dataclass(frozen=True)
class Card:
    """Everything that the dataset card says, as plain values.

    Attributes:
        title: the dataset's name for people.
        columns: (name, type) pairs in the order of the schema.
        parameters: (name, value) pairs in the order to show.
        license: an identifier that the owner of the source gave; None is left out of the header, never guessed.
        sink: how the rows are kept: "parquet", "webdataset", "files" or "null".
    """

    title: str
    source_uri: str
    dest_uri: str
    rows: RowCounts
    columns: tuple[tuple[str, str], ...]
    code_version: str
    made_at: str
    model: ModelLine | None = None
    styles: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    resume_command: str | None = None
    license: str | None = None
    sink: str = "parquet"


def render_readme(card: Card) -> str:
    """Markdown with a YAML header by which `datasets.load_dataset(DEST)` finds the rows as split `train`.

    Args:
        card: plain values; all text in it is treated as hostile.
    """
    environment = build_environment(autoescape=False)
    environment.filters.update(yaml=_to_yaml, code=_to_code, prose=_to_prose)
    return environment.get_template("card.md.j2").render(
        card=card,
        meanings=COLUMN_MEANINGS,
        from_source=FROM_SOURCE,
        size_class=_size_class(card.rows.ok),
        rows_at=ROWS_AT[card.sink],
    )


def _size_class(num_rows: int) -> str:
    return next((name for limit, name in _SIZE_CLASSES if num_rows < limit), "n>1B")


def _to_yaml(text: str) -> Markup:
    """A double-quoted string that YAML and Python read alike. Markup: quoting must not be changed later."""
    quoted = json.dumps(wording.to_printable(text), ensure_ascii=False)
    return Markup(_NOT_IN_YAML.sub(lambda match: f"\\u{ord(match.group()):04x}", quoted))


def _one_line(text: object) -> str:
    return re.sub(r"\s+", " ", str(wording.to_printable(str(text)))).strip()


def _to_code(text: object) -> str:
    """A code span on one line that no back-tick in `text` can close and no bar can split in a table."""
    line = _one_line(text)
    longest_run = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest_run + 1)
    space = " " if longest_run or not line else ""
    return f"{fence}{space}{line.replace('|', chr(92) + '|')}{space}{fence}"


def _to_prose(text: object) -> str:
    """Words on one line in which neither Markdown nor HTML has a meaning."""
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", _one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
