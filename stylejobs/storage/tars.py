"""What a tar of images is: WebDataset samples, read in one pass from front to end. Units and keys are not known here.

A sample is the members that share a name up to the first dot of their base name. Its picture is the first member whose
whole ending, all after that dot, is an image's: of `1.depth.png` and `1.jpg` it is `1.jpg`.

Source: WebDataset file format (Aizman, Maltby, Breuel 2019, arXiv 2001.01858), section on naming.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator

from stylejobs.errors import DecodeError, RowError, SourceError
from stylejobs.storage import locations
from stylejobs.storage.sources import IMAGE_ENDINGS

_COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_BLOCK_BYTES = 512
_BUFFER_BYTES = 1 << 20
# Of headers that carry a long name or attributes: tarfile reads them whole, whatever size they claim.
_MAX_HEADER_BYTES = 1 << 20
_LONG_HEADERS = frozenset("xgXLK")
# Of a compressed tar: what it may always inflate to, and how many times its own bytes.
_ALWAYS_BYTES = 1 << 26
_MAX_RATIO = 64
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


class Sample:
    """The members of a tar that share a name.

    Attributes:
        name: the shared name, with the folder.
        path: name of the picture's member; the sample's name where there is none.
        image: the picture's bytes, or why there are none.
        members: the other members by ending.
    """

    def __init__(self, name: str):
        self.name = name
        self.path = name
        self.members: dict[str, bytes] = {}
        self._picture: bytes | RowError | None = None

    def add(self, path: str, ending: str, data: bytes | RowError) -> None:
        """Takes one member; a member that is too large to read is only kept as the picture."""
        if self._picture is None and f".{ending.lower()}" in IMAGE_ENDINGS:
            self.path, self._picture = path, data
        elif isinstance(data, bytes):
            self.members[ending] = data

    @property
    def image(self) -> bytes | RowError:
        if self._picture is not None:
            return self._picture
        found = ", ".join(repr(ending) for ending in self.members) or "none"
        return DecodeError(
            "not_an_image",
            f"the sample has no image member: what follows the first dot of its name must be one of "
            f"{' '.join(IMAGE_ENDINGS)}; its endings: {found}",
        )

    def columns(self) -> dict:
        """The row that the sample carries beside its picture, see `records.schema.WEBDATASET_FIELDS`."""
        known = {name: self.members.get(name) for name in ("txt", "cls", "json")}
        texts = {name: None if data is None else data.decode("utf-8", "replace") for name, data in known.items()}
        return {**texts, "members": [(ending, data) for ending, data in self.members.items() if ending not in known]}


def read_samples(uri: str, max_bytes: int, max_samples: int | None = None) -> list[Sample]:
    """The samples of a tar, plain or compressed, in the order in which they begin.

    Args:
        max_bytes: members above this are not kept in memory: a picture gives reason `bomb`, others are left out.
        max_samples: stop where one more would begin; None for all.

    Raises:
        FileNotFoundError: nothing is there.
        SourceError: the tar is torn or damaged: half of its samples are never taken for the whole.
        StorageError: it cannot be read.
    """
    samples: dict[str, Sample] = {}
    for path, data in _members(uri, max_bytes):
        folder, _, base = path.rpartition("/")
        stem, _, ending = base.partition(".")
        name = f"{folder}/{stem}" if folder else stem
        if len(samples) == max_samples and name not in samples:
            break
        samples.setdefault(name, Sample(name)).add(path, ending, data)
    return list(samples.values())


class _Header(tarfile.TarInfo):
    """A header, refused where it announces more text than any name needs."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type.decode("latin-1") in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes, the limit is {_MAX_HEADER_BYTES:,}")
        return header


class _Tape:
    """Hands out blocks and remembers the last, which is where tarfile stopped: it reads no block ahead.

    Args:
        stream: the tar, decompressed.
        num_read: how many bytes of the file have been read so far; None where nothing is decompressed.
    """

    def __init__(self, stream: io.BufferedIOBase, num_read: Callable[[], int] | None):
        self._stream = stream
        self._num_read = num_read
        self._num_bytes = 0
        self.block = b""

    def read(self, size: int) -> bytes:
        self.block = self._stream.read(size)
        self._num_bytes += len(self.block)
        if self._num_read and self._num_bytes > max(_ALWAYS_BYTES, _MAX_RATIO * self._num_read()):
            raise tarfile.ReadError(
                f"it inflates to more than {_MAX_RATIO} times its size, which pictures do not; if you trust it, "
                "decompress it yourself"
            )
        return self.block

    def check_end(self) -> None:
        """The rest must be the end marker: tarfile takes a broken or missing header for the end, too.

        The marker is two blocks of zeros; a file that ends within them has lost nothing. Reading on to the end of the
        file has the decompressor check its checksum.
        """
        marker = self.block + self.read(_BLOCK_BYTES)
        if len(marker) < _BLOCK_BYTES or any(marker):
            raise tarfile.ReadError("it ends without an end marker, or a member's header is damaged")
        while self.read(_BUFFER_BYTES):
            continue


def _members(uri: str, max_bytes: int) -> Iterator[tuple[str, bytes | RowError]]:
    """Regular members only: links and devices in a tar are never followed."""
    with locations.open_file(uri) as file:
        stream = io.BufferedReader(file, _BUFFER_BYTES)
        try:
            inside = _decompressed(stream)
            tape = _Tape(inside, None if inside is stream else stream.tell)
            with tarfile.open(fileobj=tape, mode="r|", bufsize=_BLOCK_BYTES, tarinfo=_Header) as tar:
                for member in tar:
                    is_hidden = member.name.rpartition("/")[2].startswith(".")  # such as what macOS adds
                    if member.isfile() and not is_hidden:
                        is_large = member.size > max_bytes
                        yield member.name, too_large(member.size, max_bytes) if is_large else _read(tar, member)
                tape.check_end()
        except FileNotFoundError:
            raise
        except _DAMAGE as error:
            raise SourceError(f"{uri}: not a whole tar file: {error}; write it again or leave it out") from error


def _decompressed(stream: io.BufferedReader) -> io.BufferedIOBase:
    start = stream.peek(8)
    opened = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), None)
    return stream if opened is None else io.BufferedReader(opened(stream), _BUFFER_BYTES)


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with tar.extractfile(member) as file:
        return file.read()


def too_large(num_bytes: int, max_bytes: int) -> RowError:
    """The error of a row whose image is above the limit."""
    return DecodeError("bomb", f"{num_bytes} bytes, more than limits.max_mb allows ({max_bytes} bytes)")
