"""The verb `replay`: finds one row of a stylized dataset by its key, makes it again and compares. Needs no Ray.

Dead letters are found too: what is stored of them is why they died.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from stylejobs.config.schema import ReplayConfig, StylizeConfig
from stylejobs.engine.models import PinnedModel
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.replayer import Replayed, Replayer
from stylejobs.engine.results import JobResult
from stylejobs.engine.stream import WorkItem
from stylejobs.engine.stylize import reopen_stylize
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import DriftError, SourceError, UsageError
from stylejobs.storage import locations
from stylejobs.storage.descriptors import Unit
from stylejobs.storage.markers import Marker, Markers
from stylejobs.storage.shards import read_shard
from stylejobs.storage.sinks import read_part
from stylejobs.storage.units import find_differences

_THREADS = 8
_AT_ONCE = 256
_LINEAGE = ("key", "source_uri", "source_sha256", "style", "strength", "variant", "seed", "width", "height")


@dataclass(frozen=True)
class _Found:
    """A row by where it lies: as a stored row with its picture, or as a dead letter."""

    item: WorkItem
    file: str
    stored: dict | None = None
    letter: dict | None = None


def open_dataset(dest: str) -> tuple[StylizeConfig, UnitJob, PinnedModel]:
    """The job that made `dest`, see `reopen_stylize`.

    Raises:
        SourceError: there is no such dataset, or it keeps no pictures.
        DriftError: planned again, it is another job.
    """
    config, job, model = reopen_stylize(dest)
    if config.sink == "null":
        raise SourceError(f"dest={dest} was made with sink=null: there are no pictures to look at")
    if differences := find_differences(dest, job.identity):
        lines = "\n".join(f"  {line}" for line in differences)
        raise DriftError(f"dest={dest}: planned again, its job is another one; what differs:\n{lines}")
    return config, job, model


def replay(config: ReplayConfig) -> JobResult:
    """Finds the row, makes it again, compares it with what is stored.

    Raises:
        SourceError: there is no such row.
    """
    _, job, model = open_dataset(config.dest)
    if config.out is not None and locations.is_within(config.out, job.dest):
        raise UsageError(f"out={config.out} lies in dest={config.dest}: what is replayed is no part of the dataset")
    found = _find(job, config.key, config.variant)
    # As it was made, on the CPU: a picture or two are not worth a GPU.
    replayer = Replayer(replace(job.settings, use_gpu=False))
    result = _replay_dead(replayer, found) if found.letter else _replay_stored(replayer, found)
    picture = result.details.pop("picture")
    if config.out is not None and picture is not None:
        locations.write_atomic(config.out, picture)
        result = result.with_(message=f"{result.message}\nwritten to {config.out}")
    place = locations.join(job.dest, found.file)
    details = {"file": place, **result.details, "out": config.out if picture is not None else None}
    message = f"key={config.key} variant={config.variant} in {place}\n{result.message}"
    return result.with_(dest=job.dest, model=model.described(), message=message, details=details)


def _replay_stored(replayer: Replayer, found: _Found) -> JobResult:
    ((replayed, picture),) = replayer.replay(found.item.unit, [found.stored], found.item.part)
    lineage = {name: found.stored[name] for name in _LINEAGE}
    lines = [f"  {name:<14} {value}" for name, value in lineage.items()]
    is_bad = replayed.fault is not None
    return JobResult(
        "replay",
        exit_code=4 if is_bad else 0,
        message="\n".join([*lines, _verdict(replayed)]),
        rows={"in": 1, "ok": int(not is_bad), "bad": 0, "by_reason": {}},
        details={
            "lineage": lineage,
            "dead": None,
            "identical": replayed.is_identical,
            "psnr_db": replayed.psnr_db,
            "picture": picture,
        },
    )


def _verdict(replayed: Replayed) -> str:
    if replayed.fault:
        return f"made again, it does not agree: {replayed.fault}"
    if replayed.is_identical:
        return "made again: the same bytes"
    pixels = "the same pixels" if replayed.psnr_db is None else f"PSNR {replayed.psnr_db:.1f} dB"
    return f"made again: other bytes, {pixels}"


def _replay_dead(replayer: Replayer, found: _Found) -> JobResult:
    letter = found.letter
    rows = replayer.read(found.item.unit, {letter["key"]})
    places = zip(rows.keys, rows.sources, rows.positions, strict=True)
    wanted = (letter["key"], letter["source"], (letter["row_group"], letter["row"]))
    taken = [row for row, place in enumerate(places) if place == wanted][:1]
    made, errors = replayer.make(rows, taken, found.item.part)
    now = "it is not in the source any more"
    if taken:
        now = "it is as bad" if errors else "it works: retry, or stylize it again"
    reason = "; ".join(str(error) for error in errors.values())
    return JobResult(
        "replay",
        message=f"a dead letter ({letter['stage']}): {letter['reason']}: {letter['message']}\nmade again, {now}"
        + (f": {reason}" if reason else ""),
        rows={"in": 1, "ok": 0, "bad": 1, "by_reason": {letter["reason"]: 1}},
        details={
            "lineage": None,
            "dead": {name: value for name, value in letter.items() if name != "id"},
            "dies_again": bool(errors),
            "picture": made[0]["image"] if made else None,
        },
    )


def _find(job: UnitJob, key: str, variant: int) -> _Found:
    """Looks where the plan says that the key may be: at the keys alone, several files at once."""
    markers = Markers(job.dest).read(job.work)
    items = [item for item in job.work.values() if _may_hold(item.unit, key)]
    done = [(item, markers[item.fingerprint]) for item in items if item.fingerprint in markers]
    with JobProgress("replay", len(done), "units") as progress, ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(done), _AT_ONCE):
            some = done[start : start + _AT_ONCE]
            for found in pool.map(lambda pair: next(_search(job.dest, *pair, key, variant), None), some):
                progress.advance(1)
                if found:
                    return found
    undone = len(items) - len(done)
    raise SourceError(
        f"key={key}: dest={job.dest} has no row of this key in variant={variant}, nor a dead letter"
        + (f"; {undone:,} units that may hold it are not done yet" if undone else "")
    )


def _may_hold(unit: Unit, key: str) -> bool:
    if unit.kind in ("files", "list"):
        return key in unit.files
    if unit.kind == "tar":
        return key.startswith(unit.name.removesuffix(".tar") + "/")
    return unit.key_column is not None or key.startswith(f"{unit.name}/")


def _search(dest: str, item: WorkItem, marker: Marker, key: str, variant: int) -> Iterator[_Found]:
    for file in filter(None, (marker.dead_letter, marker.file)):
        try:
            keys = None if file.endswith(".tar") else read_shard(locations.join(dest, file), columns=["key"])["key"]
            if keys is not None and key not in keys.to_pylist():
                continue
            if file == marker.dead_letter:
                letters = read_shard(locations.join(dest, file)).to_pylist()
                yield from (_Found(item, file, letter=letter) for letter in letters if letter["key"] == key)
                continue
            part = read_part(dest, file)
            for number, row in enumerate(part.rows):
                if row["key"] == key and row["variant"] == variant:
                    yield _Found(item, file, stored={**row, "image": part.picture(number)})
        except (FileNotFoundError, pa.ArrowException, KeyError) as error:
            raise SourceError(f"{dest}/{file}: cannot be read: {error}; `verify` says what else is damaged") from error
