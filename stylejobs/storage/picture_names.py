"""Names of pictures that are files of their own: what is left of a row's key once it is safe as a path.

A key is text from data. Its folders stay folders; what a file system or a shell could take for something else becomes
`_`. The rest of the name says which unit and row the picture is of, so that no two pictures can have one name.
"""

import re
import unicodedata

from stylejobs.storage.descriptors import IMAGE_ENDINGS

_MAX_FOLDERS = 8
_MAX_PART_BYTES = 80
_UNSAFE = frozenset('\\:*?"<>|')
# Names of devices on Windows, whatever their ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_OWNED = re.compile(r"data/(?:.*/)?[^/]+-v[^/]*-([0-9a-f]{12})-[0-9]+\.[a-z]+", re.DOTALL)


def picture_name(key: str, variant: int, fingerprint12: str, row: int) -> str:
    """`<folders of the key>/<its name>-v<variant>-<fingerprint12>-<row>`, without an ending.

    Args:
        key: any text; the ending of an image file and the scheme of a URI are left out.
        row: of the unit's output; with `fingerprint12` it makes the name the only one of its kind.

    Returns:
        At most 8 folders, the innermost ones, each part at most 80 bytes long before what is added to the last.

    >>> picture_name("cat/01.jpg", 0, "ab" * 6, 3)
    'cat/01-v0-abababababab-3'
    >>> picture_name("s3://bucket/../CON/.x?.png", 1, "ab" * 6, 0)
    'bucket/_CON/_x_-v1-abababababab-0'
    """
    path = key.partition("://")[2] or key
    parts = [_safe(part) for part in path.split("/") if part not in ("", ".", "..")]
    *folders, name = parts or ["_"]
    stem, _, ending = name.rpartition(".")
    if stem and f".{ending.lower()}" in IMAGE_ENDINGS:
        name = stem
    return "/".join([*folders[-_MAX_FOLDERS:], f"{name}-v{variant}-{fingerprint12}-{row}"])


def owner_of(name: str) -> str | None:
    """The first 12 digits of the fingerprint of the unit that a picture is of; None for other files.

    >>> owner_of("data/cat/01-v0-abababababab-3.jpg"), owner_of("data/part-00001-abababababab.parquet")
    ('abababababab', None)
    """
    found = _OWNED.fullmatch(name)
    return found[1] if found else None


def _safe(part: str) -> str:
    kept = "".join("_" if letter in _UNSAFE or unicodedata.category(letter)[0] in "CZ" else letter for letter in part)
    kept = kept.encode()[:_MAX_PART_BYTES].decode("utf-8", "ignore")
    kept = re.sub(r"^\.+|\.+$", "_", kept)
    return f"_{kept}" if _DEVICES.fullmatch(kept) else kept
