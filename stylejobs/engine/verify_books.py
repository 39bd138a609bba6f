"""The books of a stylized dataset against the plan made anew: from listings, markers and a few columns alone."""

import pyarrow as pa

from stylejobs.engine.findings import Problem
from stylejobs.engine.stream import WorkItem
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import GateError, StorageError
from stylejobs.storage import locations
from stylejobs.storage import units as books
from stylejobs.storage.descriptors import Unit
from stylejobs.storage.lists import place_of
from stylejobs.storage.markers import DamagedMarkerError, Marker, Markers
from stylejobs.storage.shards import read_shard
from stylejobs.storage.sinks import find_strays


def read_markers(held: Markers, dest: str) -> dict[str, Marker]:
    """All markers by the fingerprint that they are filed under.

    Raises:
        GateError: one of them is damaged.
    """
    try:
        return held.read()
    except DamagedMarkerError as error:
        raise GateError(f"a marker cannot be read: {error}") from error


def check_books(job: UnitJob, markers: dict[str, Marker]) -> list[Problem]:
    """Units without a marker, markers and files without a unit, and a proof that is not of these markers."""
    done = {name: marker for name, marker in markers.items() if name in job.work}
    stray = {name: marker for name, marker in markers.items() if name not in job.work}
    stray_sources = {_first_source(job.dest, marker) for marker in stray.values()}
    problems = [
        _undone(item, is_changed=not stray_sources.isdisjoint(_places(item.unit)))
        for name, item in job.work.items()
        if name not in done
    ]
    problems += [
        Problem("marker", str(job.work[name]), f"its marker says that it is that of {marker.fingerprint}", name)
        for name, marker in done.items()
        if marker.fingerprint != name
    ]
    for name, marker in stray.items():
        text = f"marker {name[:12]} is of no unit of the source: that was changed since, or is gone"
        problems.append(Problem("stray_marker", marker.file or marker.dead_letter or name, text))
    files = [file for marker in markers.values() for file in (marker.file, marker.dead_letter) if file]
    problems += [Problem("stray_file", place, "is no unit's") for place in find_strays(job.dest, files, markers)]
    return problems + _check_success(job.dest, done)


def _undone(item: WorkItem, is_changed: bool) -> Problem:
    if is_changed:
        return Problem("changed", str(item), "has changed since it was stylized", item.fingerprint)
    return Problem("not_done", str(item), "is not done: it has no marker", item.fingerprint)


def _check_success(dest: str, done: dict[str, Marker]) -> list[Problem]:
    place = locations.join(dest, "_SUCCESS")
    proof = books.read_json(place)
    if proof is None:
        return [Problem("no_success", place, "is not there: the job has not come to its end")]
    if proof.get("manifest_sha256") != books.manifest_digest(done.values()):
        return [Problem("manifest", place, "proves other units than those that have markers")]
    return []


def _first_source(dest: str, marker: Marker) -> str | None:
    """What the first row of a unit was made from; None where that cannot be said."""
    if marker.file is None or not marker.file.endswith(".parquet"):
        return None
    try:
        table = read_shard(locations.join(dest, marker.file), max_row_groups=1, columns=["source_uri"])
        return table["source_uri"][0].as_py()
    except (FileNotFoundError, StorageError, pa.ArrowException, LookupError):
        return None  # it only makes a message clearer


def _places(unit: Unit) -> list[str]:
    """What `source_uri` may be of rows of this unit."""
    if unit.kind == "files":
        return [locations.join(unit.source_uri, name) for name in unit.files]
    if unit.kind == "list":
        return [locations.absolute(place_of(unit.source_uri, uri)) for uri in unit.files]
    return [unit.source_uri]


def mend(dest: str, held: Markers, proven: set[str]) -> int:
    """Takes the proof away, and the markers of all units that are not proven; returns how many markers.

    Only for who holds the lease of `dest`.
    """
    # First the proof: whatever happens after it, nothing vouches for units that have to be done again.
    books.withdraw_success(dest)
    before = len(held)
    held.keep_only(proven)
    return before - len(held)
