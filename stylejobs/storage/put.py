"""Writing a file only where none is: how one of many who try at once is chosen."""

import os
import uuid

import fsspec

from stylejobs.storage import locations


def create(uri: str, data: bytes) -> bool:
    """Writes a small file if none is there, and says whether it did; of many who try at once, one succeeds.

    Local: a hard link, which fails if the name is taken. S3: a PUT with `If-None-Match: *`; a server that ignores the
    header overwrites, so whoever depends on the answer reads the file again a moment later.

    Args:
        data: of this writer alone. A PUT whose answer is lost is sent again, and then meets what it wrote itself.
    """
    filesystem, path = locations.split(uri)
    with locations.storage_errors("write", uri):
        if not locations.is_local(filesystem):
            return _put_if_absent(filesystem, path, data) or _holds(uri, data)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        with open(temporary, "wb") as file:
            file.write(data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        return True


def _holds(uri: str, data: bytes) -> bool:
    try:
        return locations.read_bytes(uri) == data
    except FileNotFoundError:
        return False


def _put_if_absent(filesystem: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    try:
        filesystem.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        # s3fs has no class for it: 412 is "it exists", 409 "somebody else is writing it".
        if any(code in str(error) for code in ("PreconditionFailed", "ConditionalRequestConflict", "pre-conditions")):
            return False
        raise
    return True
