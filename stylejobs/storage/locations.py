"""URIs to bytes and back: local paths and `s3://`, one way for every verb; nothing else in the package opens a URI.

A write is atomic: readers see the whole file or none. Credentials and the endpoint come only from the standard AWS
environment or profile, never from a URI or a config.
"""

import contextlib
import errno
import io
import os
import uuid
from collections.abc import Iterator
from functools import cache

import fsspec
from fsspec.implementations.local import LocalFileSystem

from stylejobs.errors import SourceError, StorageError
from stylejobs.storage import trouble

SCHEMES = ("file", "s3")
# Whose errors are not OSErrors.
_S3_CLIENTS = ("botocore", "aiobotocore", "aiohttp")


@cache
def _filesystem(scheme: str) -> fsspec.AbstractFileSystem:
    if scheme == "file":
        return LocalFileSystem()
    from stylejobs.storage.s3_client import open_s3  # takes a second, which local paths need not wait for

    return open_s3()


def split(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path within it.

    Args:
        uri: a local path (absolute, or relative to the working directory), `file://...` or `s3://bucket/key`.

    Raises:
        SourceError: the scheme is not one that we read.

    >>> split("/data/x.parquet")[1]
    '/data/x.parquet'
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _filesystem("file"), os.path.abspath(uri)
    if scheme not in SCHEMES:
        raise SourceError(
            f"{uri}: wanted a local path, file:// or s3://, got {scheme}://; copy the data to one of these"
        )
    return _filesystem(scheme), rest.rstrip("/") if scheme == "s3" else os.path.abspath(rest)


def absolute(uri: str) -> str:
    """The same place, spelt one way: what plans, markers and other machines' processes are given."""
    filesystem, path = split(uri)
    return path if is_local(filesystem) else f"s3://{path}"


def is_within(uri: str, folder_uri: str) -> bool:
    """Whether a place is a folder, or lies somewhere under it.

    >>> is_within("/a/b/c", "/a/b"), is_within("/a/bc", "/a/b")
    (True, False)
    """
    return f"{absolute(uri)}/".startswith(f"{absolute(folder_uri).rstrip('/')}/")


def is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Whether paths of this file system are paths of this machine."""
    return isinstance(filesystem, LocalFileSystem)


def join(uri: str, *parts: str) -> str:
    """`uri/part/part`; parts are names of ours, never text from data."""
    return "/".join([uri.rstrip("/"), *parts])


@contextlib.contextmanager
def storage_errors(action: str, uri: str) -> Iterator[None]:
    """Turns what file systems raise into a StorageError that names the action and the place.

    Reading what is not there, or as a file a folder or a circle of links, is a FileNotFoundError with the URI as its
    text: only the caller knows whether that is an error, and whose.
    """
    try:
        yield
    except Exception as error:
        is_circle = isinstance(error, OSError) and error.errno == errno.ELOOP
        is_no_file = (isinstance(error, IsADirectoryError) or is_circle) and action == "read"
        if is_no_file or (isinstance(error, FileNotFoundError | NotADirectoryError) and action != "write"):
            raise FileNotFoundError(uri) from error
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _S3_CLIENTS:
            trouble.tell("error", action)
            detail = str(error) or type(error).__name__
            raise StorageError(
                f"cannot {action} {uri}: {detail}; check that the place exists and that you may use it "
                "(for s3://: AWS_ENDPOINT_URL, credentials or profile)"
            ) from error
        raise


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, path = split(uri)
    with storage_errors("look at", uri):
        return filesystem.exists(path)


def is_folder(uri: str) -> bool:
    """Whether `uri` is a folder (for object stores: a prefix that holds something)."""
    filesystem, path = split(uri)
    with storage_errors("look at", uri):
        return filesystem.isdir(path)


def read_bytes(uri: str) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: no file is there.
        StorageError: it cannot be read.
    """
    filesystem, path = split(uri)
    with storage_errors("read", uri):
        if is_local(filesystem):
            return filesystem.cat_file(path)
        # As one request: in parts, s3fs would ask for the size first.
        return filesystem.cat_file(path, max_concurrency=1)


@contextlib.contextmanager
def open_file(uri: str, cache_type: str = "readahead") -> Iterator[io.RawIOBase]:
    """A file to be read in parts.

    Whatever goes wrong at the storage is a StorageError, so that any OSError of a parser is about the bytes.

    Args:
        cache_type: how fsspec reads object stores: "readahead" for front to end, "none" for chosen ranges.

    Raises:
        FileNotFoundError: no file is there, also while it is being read.
        StorageError: it cannot be read, also while it is being read.
    """
    filesystem, path = split(uri)
    with storage_errors("read", uri):
        file = filesystem.open(path, "rb", cache_type=cache_type)
    with file:
        yield _StorageFile(file, uri)


class _StorageFile(io.RawIOBase):
    """A file whose errors are those of the storage."""

    def __init__(self, file: io.IOBase, uri: str):
        self._file = file
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with storage_errors("read", self._uri):
            return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        with storage_errors("read", self._uri):
            return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def write_atomic(uri: str, data: bytes) -> None:
    """Writes the whole file or nothing.

    Local: temporary file in the same folder, fsync, rename. Object stores: one PUT, or a multipart upload that is
    only completed at its end.
    """
    filesystem, path = split(uri)
    with storage_errors("write", uri):
        if not is_local(filesystem):
            filesystem.pipe_file(path, data)
            return
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{os.path.basename(path)}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def delete(uri: str) -> None:
    """Removes one file; fine if it is not there."""
    filesystem, path = split(uri)
    with storage_errors("delete", uri), contextlib.suppress(FileNotFoundError):
        filesystem.rm_file(path)


def delete_folder(uri: str) -> None:
    """Removes a folder with all that is in it; fine if it is not there."""
    filesystem, path = split(uri)
    with storage_errors("delete", uri), contextlib.suppress(FileNotFoundError):
        filesystem.rm(path, recursive=True)


def remove_empty_folder(uri: str) -> None:
    """Removes a local folder that holds nothing; object stores have no such thing."""
    filesystem, path = split(uri)
    if is_local(filesystem) and os.path.isdir(path) and not os.listdir(path):
        os.rmdir(path)


def remove_torn_files(uri: str) -> None:
    """Removes temporary files that killed local writes left under a folder; object stores leave nothing to see.

    Only for a folder that nobody is writing to.
    """
    filesystem, path = split(uri)
    with storage_errors("clean", uri):
        for name in filesystem.find(path) if is_local(filesystem) else ():
            base = os.path.basename(name)
            if base.startswith(".") and base.endswith(".tmp"):
                filesystem.rm_file(name)


def list_files(uri: str) -> dict[str, dict]:
    """Every file under a folder, recursively: absolute URI -> {"size": bytes, "tag": etag or mtime}; sorted by URI.

    Hidden names (starting with `.`) are left out, and links to folders are not entered. An absent folder gives an empty
    dict.
    """
    filesystem, path = split(uri)
    with storage_errors("list", uri):
        found = filesystem.find(path, detail=True)
    prefix = "" if is_local(filesystem) else "s3://"
    return {
        prefix + name: _stat_link(name) if info.get("islink") else _stat(info)
        for name, info in sorted(found.items())
        if not any(part.startswith(".") for part in name[len(path) :].split("/"))
    }


def list_folders(uri: str) -> list[str]:
    """The folders right inside a folder, as absolute URIs, sorted; an absent one holds none."""
    filesystem, path = split(uri)
    try:
        with storage_errors("list", uri):
            found = filesystem.ls(path, detail=True)
    except FileNotFoundError:
        return []
    prefix = "" if is_local(filesystem) else "s3://"
    return sorted(prefix + info["name"].rstrip("/") for info in found if info["type"] == "directory")


def stat(uri: str) -> dict:
    """`{"size": bytes, "tag": etag or mtime}` of one file: what tells a changed file from the same one."""
    filesystem, path = split(uri)
    with storage_errors("look at", uri):
        return _stat_link(path) if is_local(filesystem) and os.path.islink(path) else _stat(filesystem.info(path))


def _stat(info: dict) -> dict:
    tag = info.get("ETag") or f"mtime:{info.get('mtime')}"
    return {"size": int(info["size"]), "tag": str(tag).strip('"')}


def _stat_link(path: str) -> dict:
    """Of the file that a link leads to, since fsspec tells now of the one and now of the other; else of the link."""
    try:
        found = os.stat(path)
    except OSError:
        found = os.lstat(path)
    return {"size": found.st_size, "tag": f"mtime:{found.st_mtime}"}


def check_writable(uri: str) -> None:
    """Proves that a folder can be written by writing there, before hours of work are put into it."""
    probe = join(uri, "_stylejobs", f"probe-{uuid.uuid4().hex}")
    write_atomic(probe, b"stylejobs")
    delete(probe)
