"""The books of a job: its plan, a marker for every unit that is done, and the proof that all are.

    DEST/data/part-<nnnnn>-<fingerprint12>.parquet
    DEST/dead_letter/part-<nnnnn>-<fingerprint12>.parquet
    DEST/_stylejobs/plan.json  units/<fingerprint>.json  result.json
    DEST/_SUCCESS              written last

A unit's *fingerprint* is a digest of everything its output is a function of. The marker is written after the files it
names, so a marker means: whole, and not to be done again. A retry rewrites the same names.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from stylejobs.errors import DriftError, SourceError
from stylejobs.storage import locations

_MARKER_THREADS = 16


@dataclass(frozen=True)
class Marker:
    """What became of one unit.

    Attributes:
        index: number of the unit in the plan that it was done under.
        file: the shard relative to `dest`; None when every row was bad.
        file_sha256: of the shard's bytes.
        dead_letter: the dead letters' file relative to `dest`; None when no row was bad.
        rows_in, rows_ok, rows_bad: source rows read; stylized rows written; source rows dead.
        by_reason: bad rows by reason.
        seconds: time by stage, summed over threads.
    """

    fingerprint: str
    index: int
    file: str | None
    file_sha256: str | None
    dead_letter: str | None
    rows_in: int
    rows_ok: int
    rows_bad: int
    by_reason: dict[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def digest(value: object) -> str:
    """sha256 of the canonical JSON of a plain value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def part_name(index: int, fingerprint: str) -> str:
    """The name of a unit's file: the same at every attempt.

    >>> part_name(3, "ab" * 32)
    'part-00003-abababababab.parquet'
    """
    return f"part-{index:05d}-{fingerprint[:12]}.parquet"


def _books(dest: str, *parts: str) -> str:
    return locations.join(dest, "_stylejobs", *parts)


def open_books(dest: str, identity: dict, plan: dict) -> None:
    """Makes `dest` ready for a job, or refuses it.

    Args:
        identity: what every output of the job depends on beside its source: verb, model, styles, parameters.
        plan: written to plan.json together with the identity.

    Raises:
        DriftError: `dest` holds the output of another job; the message lists what differs.
        SourceError: `dest` holds files that are not a job's output.
        StorageError: `dest` cannot be written.
    """
    dest = locations.absolute(dest)
    held = read_json(_books(dest, "plan.json"))
    if held is None:
        strangers = list(locations.list_files(dest))[:3]
        if strangers:
            raise SourceError(
                f"dest={dest} is not empty and holds no job of ours, such as {strangers[0]}; choose a new folder"
            )
    elif held["identity"] != identity:
        raise DriftError(
            f"dest={dest} holds the output of another job; what differs:\n"
            + "\n".join(f"  {line}" for line in _differences(held["identity"], identity))
            + "\nchoose another dest, or repeat the command that made it"
        )
    locations.check_writable(dest)
    write_json(_books(dest, "plan.json"), {"identity": identity, **plan})


def _differences(held: dict, wanted: dict, prefix: str = "") -> list[str]:
    lines = []
    for name in sorted(held.keys() | wanted.keys()):
        before, after = held.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: it was made with {before!r}, this command says {after!r}")
    return lines


def read_markers(dest: str, fingerprints: Iterable[str]) -> dict[str, Marker]:
    """Markers of those of the given units that are done, by fingerprint."""
    wanted = set(fingerprints)
    folder = _books(locations.absolute(dest), "units")
    places = {place.rsplit("/", 1)[-1].removesuffix(".json"): place for place in locations.list_files(folder)}
    done = sorted(wanted & places.keys())
    with ThreadPoolExecutor(_MARKER_THREADS) as pool:
        return dict(zip(done, pool.map(lambda name: Marker(**read_json(places[name])), done), strict=True))


def write_marker(dest: str, marker: Marker) -> None:
    """Says that a unit is done: call it after the files that it names are written."""
    write_json(_books(dest, "units", f"{marker.fingerprint}.json"), asdict(marker))


def withdraw_success(dest: str) -> None:
    """Takes the proof away while the dataset is being changed."""
    locations.delete(locations.join(dest, "_SUCCESS"))


def clear_and_prove(dest: str, markers: list[Marker]) -> dict:
    """Removes what no longer belongs: files of units whose inputs changed, torn temporary files.

    Where it removes files that an earlier proof may vouch for, it withdraws that proof first.

    Returns:
        The proof for `write_success`. Its `manifest_sha256` is a digest of the sorted (fingerprint, file, file_sha256,
        rows) of all units.
    """
    dest = locations.absolute(dest)
    kept = {name for marker in markers for name in (marker.file, marker.dead_letter) if name}
    fingerprints = {marker.fingerprint for marker in markers}
    locations.remove_torn_files(dest)
    strays = [
        place
        for folder in ("data", "dead_letter")
        for place in locations.list_files(locations.join(dest, folder))
        if f"{folder}/{place.rsplit('/', 1)[-1]}" not in kept
    ]
    strays += [
        place
        for place in locations.list_files(_books(dest, "units"))
        if place.rsplit("/", 1)[-1].removesuffix(".json") not in fingerprints
    ]
    if strays:
        # An earlier proof may vouch for them, and the machine may go away before the new one is written.
        withdraw_success(dest)
    for place in strays:
        locations.delete(place)
    manifest = digest(
        [[m.fingerprint, m.file, m.file_sha256, m.rows_ok] for m in sorted(markers, key=lambda m: m.fingerprint)]
    )
    totals = {"units": len(markers), "rows": sum(m.rows_ok for m in markers), "bad": sum(m.rows_bad for m in markers)}
    return {"manifest_sha256": manifest, **totals}


def write_success(dest: str, proof: dict) -> None:
    """DEST/_SUCCESS: everything else is written."""
    write_json(locations.join(dest, "_SUCCESS"), proof)


def read_json(uri: str) -> dict | None:
    """A JSON file, or None when there is none."""
    try:
        return json.loads(locations.read_bytes(uri))
    except FileNotFoundError:
        return None


def write_json(uri: str, value: dict) -> None:
    """Writes a JSON file atomically."""
    locations.write_atomic(uri, json.dumps(value, indent=1).encode())


def write_result(dest: str, result: dict) -> None:
    """DEST/_stylejobs/result.json: what the command printed as its last line."""
    write_json(_books(dest, "result.json"), result)
