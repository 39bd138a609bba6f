"""Names of training sets, their domains and samples, out of places and labels: letters, digits and . _ - only."""

import os
import re
from collections.abc import Sequence

from stylejobs.storage.sources import IMAGE_ENDINGS, PARQUET_ENDINGS, TAR_ENDINGS


def place_name(uri: str) -> str:
    """The last part of a place without its ending, as a name.

    >>> place_name("s3://art/old masters.v2/"), place_name("starry night.jpg"), place_name("a/b.tar.gz")
    ('old-masters.v2', 'starry-night', 'b')
    """
    return unique_names([uri.rstrip("/")])[0]


def unique_names(texts: Sequence[str], folders: bool = True) -> list[str]:
    """Names of letters, digits and . _ - for keys or labels, no two the same.

    Args:
        folders: the texts are paths: a name is made of the last part without its ending, and of the whole path where
            that is taken.

    >>> unique_names(["a/one.jpg", "b/one.png", "b/one.jpg"])
    ['one', 'b-one', 'b-one-2']
    """
    endings = sorted(IMAGE_ENDINGS + PARQUET_ENDINGS + TAR_ENDINGS, key=len, reverse=True)
    names: dict[str, None] = {}
    for text in texts:
        path = text
        if folders:
            path = next((text[: -len(ending)] for ending in endings if text.lower().endswith(ending)), text)
        short, whole = (_clean(part) for part in (os.path.basename(path) if folders else path, path))
        name = short if short not in names else whole
        number = 2
        while name in names:
            name, number = f"{whole}-{number}", number + 1
        names[name] = None
    return list(names)


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "style"
