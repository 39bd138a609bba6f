"""The record of a training's run, run.json: what `resume=` goes on from, and how a changed command is noticed.

STORAGE/NAME-RUNID/run.json       this record, written when the run begins
STORAGE/NAME-RUNID/checkpoints/   see storage/checkpoints.py
STORAGE/NAME-RUNID/package/       the model package, written at the end
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from stylejobs.config.schema import TrainConfig
from stylejobs.config.sections import flatten
from stylejobs.errors import DriftError, UsageError
from stylejobs.storage import locations

_RECORD = "run.json"
_FREE_SECTIONS = ("cluster.", "checkpoint.", "data.")
_FREE_KEYS = (
    "allow",
    "experiment",
    "hang_seconds",
    "log_every",
    "max_failures",
    "min_workers",
    "resume",
    "run_name",
    "sample_every",
    "storage",
    "worker_cpus",
)
"""Keys that change nothing in what is learned: a run may go on with other values of them."""


@dataclass(frozen=True)
class RunRecord:
    """What a run is.

    Attributes:
        values: the keys that decide what is learned, as text that JSON holds; the digests of the data among them.
        num_images: that the whole training sees.
        mlflow_run_id: None until the tracking server has given one.
    """

    run_id: str
    name: str
    started: str
    values: dict[str, Any]
    num_images: int
    uri: str
    mlflow_run_id: str | None = None
    digest: str = field(default="", compare=False)

    @property
    def folder(self) -> str:
        """The name of its folder, which `resume=` takes."""
        return self.uri.rpartition("/")[2]

    def write(self) -> None:
        """Writes it into the run's folder."""
        plain = {name: value for name, value in asdict(self).items() if name != "uri"}
        locations.write_atomic(locations.join(self.uri, _RECORD), json.dumps(plain, indent=1, sort_keys=True).encode())

    def with_mlflow(self, run_id: str | None) -> "RunRecord":
        return replace(self, mlflow_run_id=run_id)


def begin(config: TrainConfig, data: Mapping[str, str], num_images: int) -> RunRecord:
    """The record of a new run, not yet written.

    Args:
        data: set -> digest of what it holds.
    """
    run_id = uuid.uuid4().hex[:12]
    uri = locations.join(locations.absolute(config.storage), f"{config.name}-{run_id}")
    values = _decisive(config, data)
    return RunRecord(run_id, config.name, _now(), values, num_images, uri, digest=_digest(values))


def go_on(config: TrainConfig, data: Mapping[str, str]) -> RunRecord:
    """The record of the run that `resume` names.

    Raises:
        UsageError: there is no such run.
        DriftError: a key that decides what is learned has another value, and `allow` does not name it.
    """
    found = _find(config)
    values = _decisive(config, data)
    changed = {key for key in {*values, *found.values} if values.get(key) != found.values.get(key)}
    refused = sorted(changed - set(config.allow or ()))
    if refused:
        lines = [f"  {key}: was {_say(found.values.get(key))}, is {_say(values.get(key))}" for key in refused]
        raise DriftError(
            f"resume={found.folder}: the command differs from the run's\n" + "\n".join(lines) + "\n"
            f"give the old values, or allow={','.join(refused)} if that is meant"
        )
    # The length of a training is a number of images: other workers or batches do not change it, other steps do.
    num_images = config.steps * config.workers * config.batch if "steps" in changed else found.num_images
    return replace(found, values=values, num_images=num_images, digest=_digest(values))


def digest_of_set(source: Any) -> str:
    """What changes when the data of a set changes: places, sizes and tags of its units.

    Args:
        source: a `storage.descriptors.Source`.
    """
    units = [unit.identity() for unit in source.units]
    return hashlib.sha256(json.dumps(units, sort_keys=True).encode()).hexdigest()


def _find(config: TrainConfig) -> RunRecord:
    root = locations.absolute(config.storage)
    asked = str(config.resume)
    if asked == "latest":
        records = [_read(place) for place in locations.list_folders(root) if _is_of(place, config.name)]
        runs = sorted((record for record in records if record is not None), key=lambda record: record.started)
        if not runs:
            raise UsageError(f"resume=latest: no run of name={config.name} is in storage={config.storage}")
        return runs[-1]
    folder = asked if asked.startswith(f"{config.name}-") else f"{config.name}-{asked}"
    record = _read(locations.join(root, folder)) if "/" not in asked and ".." not in asked else None
    if record is None:
        raise UsageError(
            f"resume={asked}: wanted a run of name={config.name} in storage={config.storage}, such as "
            f"{config.name}-0123456789ab, or latest"
        )
    return record


def _is_of(place: str, name: str) -> bool:
    return place.rpartition("/")[2].rpartition("-")[0] == name


def _read(run_uri: str) -> RunRecord | None:
    try:
        plain = json.loads(locations.read_bytes(locations.join(run_uri, _RECORD)))
    except FileNotFoundError:
        return None
    try:
        return RunRecord(**plain, uri=run_uri)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{run_uri}/{_RECORD} is not the record of a run: {error}") from error


def _decisive(config: TrainConfig, data: Mapping[str, str]) -> dict[str, Any]:
    told = flatten(config)
    keys = [key for key in told if key not in _FREE_KEYS and not key.startswith(_FREE_SECTIONS)]
    values = {key: told[key] for key in keys} | {f"{role}.digest": digest for role, digest in data.items()}
    return json.loads(json.dumps(values, default=str))


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _say(value: Any) -> str:
    return "none" if value is None else str(value)


def _now() -> str:
    return datetime.now(UTC).isoformat()
