"""What says that a unit of work is done: a marker, written after the files that it names.

    DEST/_stylejobs/units/<fingerprint>.json        a marker
    DEST/_stylejobs/units/many-<digest16>.jsonl.gz  a thousand of them, once there are that many

A million small files cannot be listed while somebody waits, so the job that holds `dest` compacts them as it goes. The
file of many is written before the ones that it replaces are deleted: a crash between leaves markers twice, never none.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from stylejobs.errors import StorageError
from stylejobs.storage import locations

COMPACTED_AT = 1000
_THREADS = 16
_SINGLE, _MANY = ".json", ".jsonl.gz"


class DamagedMarkerError(StorageError):
    """A marker is there and cannot be read as one."""


@dataclass(frozen=True)
class Marker:
    """What became of one unit of work.

    Attributes:
        index: its number in the plan that it was done under.
        file: the shard relative to `dest`; None when every row was bad.
        file_sha256: of the shard's bytes.
        dead_letter: the dead letters' file relative to `dest`; None when no row was bad.
        rows_in, rows_ok, rows_bad: source rows read, used, dead.
        rows_out: rows written.
        by_reason: bad rows by reason.
        seconds: time by stage, summed over threads.
        balance: stylized rows by class and style, where the source has classes.
        learned: what the worker knew at the end: names and numbers for the next ones.
    """

    fingerprint: str
    index: int
    file: str | None
    file_sha256: str | None
    dead_letter: str | None
    rows_in: int
    rows_ok: int
    rows_bad: int
    rows_out: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    balance: dict[str, dict[str, int]] = field(default_factory=dict)
    learned: dict[str, int] = field(default_factory=dict)


def _folder(dest: str) -> str:
    return locations.join(locations.absolute(dest), "_stylejobs", "units")


def write_marker(dest: str, marker: Marker) -> None:
    """Says that a unit is done: call it after the files that it names are written."""
    place = locations.join(_folder(dest), marker.fingerprint + _SINGLE)
    locations.write_atomic(place, json.dumps(asdict(marker), indent=1).encode())


class Markers:
    """The markers of a dataset, as the one job that holds it reads, compacts and withdraws them.

    Only this process and its workers may change the folder: what was listed is not listed again.
    """

    def __init__(self, dest: str, compacted_at: int = COMPACTED_AT):
        self._folder, self._compacted_at = _folder(dest), compacted_at
        names = {place.rsplit("/", 1)[-1]: place for place in locations.list_files(self._folder)}
        # None: it is there and has not been read.
        self._singles: dict[str, Marker | None] = {
            name.removesuffix(_SINGLE): None for name in names if name.endswith(_SINGLE)
        }
        with ThreadPoolExecutor(_THREADS) as pool:
            many = [place for name, place in names.items() if name.endswith(_MANY)]
            self._many = dict(zip(many, pool.map(_read_many, many), strict=True))

    def read(self, wanted: Iterable[str] | None = None) -> dict[str, Marker]:
        """Markers by fingerprint; None for all."""
        wanted = None if wanted is None else set(wanted)
        found = {
            marker.fingerprint: marker
            for markers in self._many.values()
            for marker in markers
            if wanted is None or marker.fingerprint in wanted
        }
        singles = sorted(name for name in self._singles if wanted is None or name in wanted)
        with ThreadPoolExecutor(_THREADS) as pool:
            # A unit that was done again has its new marker beside the old one among many.
            found |= zip(singles, pool.map(self._read_single, singles), strict=True)
        return found

    def add(self, marker: Marker) -> None:
        """A worker has written this marker; compacts when enough have come together."""
        self._singles[marker.fingerprint] = marker
        if len(self._singles) >= self._compacted_at:
            self.compact()

    def compact(self) -> None:
        """Puts the markers that are files of their own into files of many, as many as fill them."""
        singles = sorted(self._singles)
        while len(singles) >= self._compacted_at:
            part, singles = singles[: self._compacted_at], singles[self._compacted_at :]
            with ThreadPoolExecutor(_THREADS) as pool:
                markers = list(pool.map(self._read_single, part))
                self._write_many(markers)
                self._drop(set(part), besides=markers)
                list(pool.map(self._delete_single, part))

    def keep_only(self, fingerprints: Collection[str]) -> None:
        """Withdraws all others: their units are not done, or belong to nobody."""
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._delete_single, sorted(self._singles.keys() - set(fingerprints))))
        self._drop({marker.fingerprint for markers in self._many.values() for marker in markers} - set(fingerprints))

    def _drop(self, fingerprints: set[str], besides: list[Marker] | None = None) -> None:
        """Takes markers out of all files of many but one."""
        for place, markers in list(self._many.items()):
            kept = [marker for marker in markers if marker.fingerprint not in fingerprints]
            if markers is besides or len(kept) == len(markers):
                continue
            if kept:
                self._write_many(kept)
            locations.delete(place)
            del self._many[place]

    def __len__(self) -> int:
        return len(self._singles.keys() | {marker.fingerprint for some in self._many.values() for marker in some})

    def _place(self, fingerprint: str) -> str:
        return locations.join(self._folder, fingerprint + _SINGLE)

    def _read_single(self, fingerprint: str) -> Marker:
        return self._singles[fingerprint] or _parse(locations.read_bytes(place := self._place(fingerprint)), place)

    def _delete_single(self, fingerprint: str) -> None:
        locations.delete(self._place(fingerprint))
        del self._singles[fingerprint]

    def _write_many(self, markers: list[Marker]) -> None:
        lines = "\n".join(json.dumps(asdict(marker), separators=(",", ":")) for marker in markers)
        names = " ".join(sorted(marker.fingerprint for marker in markers))
        name = f"many-{hashlib.sha256(names.encode()).hexdigest()[:16]}{_MANY}"
        place = locations.join(self._folder, name)
        locations.write_atomic(place, gzip.compress(lines.encode(), mtime=0))
        self._many[place] = markers


def _read_many(place: str) -> list[Marker]:
    try:
        lines = gzip.decompress(locations.read_bytes(place)).decode().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DamagedMarkerError(f"{place}: damaged ({error}); delete it, its units are then done again") from error
    return [_parse(line, place) for line in lines]


def _parse(text: bytes | str, place: str) -> Marker:
    try:
        return Marker(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise DamagedMarkerError(
            f"{place}: not a marker of ours ({error}); delete it, its units are then done again"
        ) from error
