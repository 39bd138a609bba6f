"""The books of a job: its plan, a marker for every unit that is done, and the proof that all are.

    DEST/data/part-<nnnnn>-<fingerprint12>.parquet
    DEST/dead_letter/part-<nnnnn>-<fingerprint12>.parquet
    DEST/_stylejobs/plan.json  units/<fingerprint>.json  lease.json  result.json  submitted/<job>.json
    DEST/_SUCCESS              written last

A unit's *fingerprint* is a digest of everything its output is a function of. The marker is written after the files it
names, so a marker means: whole, and not to be done again. A retry rewrites the same names.
"""

import hashlib
import json
from collections.abc import Iterable

from stylejobs.errors import DriftError, SourceError
from stylejobs.storage import locations
from stylejobs.storage.markers import Marker, Markers
from stylejobs.storage.sinks import find_strays


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


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


def check_dest(dest: str, identity: dict) -> None:
    """Refuses a `dest` that is not this job's; changes nothing.

    Args:
        identity: what every output of the job depends on beside its source: verb, model, styles, parameters.

    Raises:
        DriftError: `dest` holds the output of another job; the message lists what differs.
        SourceError: `dest` holds files that are not a job's output.
    """
    dest = locations.absolute(dest)
    differences = find_differences(dest, identity)
    if differences is None:
        # A lease may be held, and a cluster's job may have left its result, before there is anything else.
        ours = ("/_stylejobs/lease.json", "/_stylejobs/submitted/")
        strangers = [place for place in locations.list_files(dest) if not any(part in place for part in ours)][:3]
        if strangers:
            raise SourceError(
                f"dest={dest} is not empty and holds no job of ours, such as {strangers[0]}; choose a new folder"
            )
    elif differences:
        raise DriftError(
            f"dest={dest} holds the output of another job; what differs:\n"
            + "\n".join(f"  {line}" for line in differences)
            + "\nchoose another dest, or repeat the command that made it; stylize also takes snapshot=new"
        )


def find_differences(dest: str, identity: dict) -> list[str] | None:
    """What differs between the job that `dest` holds and this one, a line each; None where it holds none.

    A job of which no unit was ever done has made nothing that could be mixed: it differs in nothing.
    """
    held = read_plan_of(dest)
    if held is None:
        return None
    if held["identity"] == identity or not locations.list_files(_books(locations.absolute(dest), "units")):
        return []
    return list_differences(held["identity"], identity)


def read_plan_of(dest: str) -> dict | None:
    """The plan.json of a dataset; None where there is none."""
    return read_json(_books(locations.absolute(dest), "plan.json"))


def open_books(dest: str, identity: dict, plan: dict) -> None:
    """Makes `dest` ready for a job, or refuses it as `check_dest` does; only for who holds its lease.

    Args:
        plan: written to plan.json together with the identity.

    Raises:
        StorageError: `dest` cannot be written.
    """
    check_dest(dest, identity)
    dest = locations.absolute(dest)
    locations.check_writable(dest)
    write_json(_books(dest, "plan.json"), {"identity": identity, **plan})


def list_differences(held: dict, wanted: dict, prefix: str = "") -> list[str]:
    """What differs between two identities, a line each, by dotted name."""
    lines = []
    for name in sorted(held.keys() | wanted.keys()):
        before, after = held.get(name, _ABSENT), wanted.get(name, _ABSENT)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += list_differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: it was made with {before!r}, this command says {after!r}")
    return lines


def withdraw_success(dest: str) -> None:
    """Takes the proof away while the dataset is being changed."""
    locations.delete(locations.join(dest, "_SUCCESS"))


def clear_and_prove(dest: str, held: Markers, markers: list[Marker]) -> dict:
    """Removes what no longer belongs: files of units whose inputs changed, torn temporary files.

    Where it removes files that an earlier proof may vouch for, it withdraws that proof first.

    Returns:
        The proof for `write_success`: `manifest_sha256`, see `manifest_digest`, and totals.
    """
    dest = locations.absolute(dest)
    kept = {name for marker in markers for name in (marker.file, marker.dead_letter) if name}
    fingerprints = {marker.fingerprint for marker in markers}
    locations.remove_torn_files(dest)
    strays = find_strays(dest, kept, fingerprints)
    if strays or len(held) > len(fingerprints):
        # An earlier proof may vouch for them, and the machine may go away before the new one is written.
        withdraw_success(dest)
    for place in strays:
        locations.delete(place)
    held.keep_only(fingerprints)
    totals = {"units": len(markers), "rows": sum(m.rows_ok for m in markers), "bad": sum(m.rows_bad for m in markers)}
    return {"manifest_sha256": manifest_digest(markers), **totals}


def manifest_digest(markers: Iterable[Marker]) -> str:
    """A digest of the sorted (fingerprint, file, file_sha256, rows) of all units: what `_SUCCESS` vouches for."""
    ordered = sorted(markers, key=lambda marker: marker.fingerprint)
    return digest([[marker.fingerprint, marker.file, marker.file_sha256, marker.rows_ok] for marker in ordered])


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
