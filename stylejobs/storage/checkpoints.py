"""Checkpoints of a training: folders that are whole or not there, whoever was killed while writing them.

    RUN/checkpoints/step-00000500-3fa2c1/
        shared.safetensors       what all workers have in common: networks, averages, optimizers
        worker-00000.safetensors one file a worker: its image pools and the like
        *.json                   beside each of them, written after it: its digest and the plain values it goes with
        checkpoint.json          written last, by the first worker: the digests of all parts

A part is written by the worker that holds it; the folder is a checkpoint once checkpoint.json is there. The last part
of the folder's name is drawn by each start of the workers, so that no part of a start that was killed can be taken for
one of the next. No pickle: tensors are safetensors, everything else is JSON.
"""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from stylejobs.errors import StorageError
from stylejobs.storage import locations

CHECKPOINT_SCHEMA_VERSION = 1
SHARED = "shared"
_FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{8,})-([0-9a-f]+)")
_LAST = "checkpoint.json"
_LONGEST_WAIT_SECONDS = 1.0
_VOUCHES = "tensors_sha256"


class DamagedCheckpointError(StorageError):
    """A checkpoint whose files are missing or are not those that were written."""


@dataclass(frozen=True)
class Part:
    """A file of a checkpoint.

    Attributes:
        tensors: by name; on the CPU.
        plain: what JSON holds exactly: numbers, texts, lists and objects of them.
    """

    tensors: dict[str, Tensor]
    plain: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What checkpoint.json says.

    Attributes:
        step: optimizer steps that were taken; `images_seen` by all workers.
        num_workers: that wrote it.
        score: of the model by the measure that the training is judged with, larger is better; None: not measured.
        digests: part -> sha256 of its tensors and its plain values.
        uri: the folder.
    """

    step: int
    images_seen: int
    num_workers: int
    score: float | None = None
    digests: dict[str, str] = field(default_factory=dict)
    schema_version: int = CHECKPOINT_SCHEMA_VERSION
    uri: str = ""

    def read_part(self, name: str) -> Part:
        """A part, its digest checked.

        Raises:
            DamagedCheckpointError: it is not there, or not what was written.
            StorageError: the storage cannot be reached.
        """
        place = locations.join(self.uri, name)
        try:
            tensors, plain = locations.read_bytes(f"{place}.safetensors"), locations.read_bytes(f"{place}.json")
        except FileNotFoundError as error:
            raise DamagedCheckpointError(f"{self.uri}: wanted {name}; {error} is not there") from error
        if _digest(tensors, plain) != self.digests.get(name):
            raise DamagedCheckpointError(f"{self.uri}: {name} is not what was written: its digest differs")
        try:
            values = json.loads(plain)
            del values[_VOUCHES]
            return Part(from_safetensors(tensors), values)
        except (SafetensorError, ValueError) as error:
            raise DamagedCheckpointError(f"{self.uri}: {name} cannot be read: {error}") from error


def checkpoint_uri(run_uri: str, step: int, start: str) -> str:
    """The folder of a checkpoint.

    Args:
        start: hexadecimal digits drawn by this start of the workers.
    """
    return locations.join(run_uri, _FOLDER, f"step-{step:08d}-{start}")


def worker_part(rank: int) -> str:
    """The name of a worker's own part."""
    return f"worker-{rank:05d}"


def write_part(folder_uri: str, name: str, part: Part) -> None:
    """Writes one part, the file that vouches for it last.

    Raises:
        StorageError: the storage cannot be reached, or is full.
    """
    tensors = to_safetensors({name: tensor.contiguous() for name, tensor in part.tensors.items()})
    place = locations.join(folder_uri, name)
    locations.write_atomic(f"{place}.safetensors", tensors)
    # The digest of the tensors stands in it, so that the first worker need not read what the others wrote.
    plain = {**part.plain, _VOUCHES: hashlib.sha256(tensors).hexdigest()}
    locations.write_atomic(f"{place}.json", json.dumps(plain).encode())


def complete(checkpoint: Checkpoint, timeout_seconds: float) -> Checkpoint:
    """Waits for the parts of all workers and writes what makes them a checkpoint.

    Raises:
        StorageError: a part was not there in time, or the storage cannot be reached.
    """
    names = [SHARED, *(worker_part(rank) for rank in range(checkpoint.num_workers))]
    digests = {name: _wait_for(locations.join(checkpoint.uri, name), timeout_seconds) for name in names}
    whole = Checkpoint(**{**asdict(checkpoint), "digests": digests})
    told = {name: value for name, value in asdict(whole).items() if name != "uri"}
    locations.write_atomic(locations.join(whole.uri, _LAST), json.dumps(told, indent=1).encode())
    return whole


def _wait_for(place: str, timeout_seconds: float) -> str:
    """The digest of a part, once it is there."""
    deadline, wait = time.monotonic() + timeout_seconds, 0.01
    while True:
        with contextlib.suppress(FileNotFoundError):
            plain = locations.read_bytes(f"{place}.json")
            return _digest_of(json.loads(plain)[_VOUCHES], plain)
        if time.monotonic() > deadline:
            raise StorageError(f"{place} was not written within {timeout_seconds:g} s: its worker is gone or stuck")
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


def _digest(tensors: bytes, plain: bytes) -> str:
    return _digest_of(hashlib.sha256(tensors).hexdigest(), plain)


def _digest_of(tensors_sha256: str, plain: bytes) -> str:
    return hashlib.sha256(tensors_sha256.encode() + plain).hexdigest()


def list_checkpoints(run_uri: str) -> list[Checkpoint]:
    """The whole ones of a run, newest first; their parts are not looked at."""
    found = []
    for folder, files in _folders(run_uri).items():
        if _LAST in files:
            with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
                plain = json.loads(locations.read_bytes(locations.join(folder, _LAST)))
                found.append(Checkpoint(**{**plain, "uri": folder}))
    return sorted(found, key=lambda one: (one.step, one.uri), reverse=True)


def prune(run_uri: str, keep_last: int) -> None:
    """Deletes all but the newest `keep_last` checkpoints and the best one, and torn ones that nobody is writing."""
    whole = list_checkpoints(run_uri)
    if not whole:
        return
    scored = [one for one in whole if one.score is not None]
    best = [max(scored, key=lambda one: (one.score, one.step))] if scored else []
    kept = {one.uri for one in [*whole[:keep_last], *best]}
    newest = whole[0].step
    for folder, files in _folders(run_uri).items():
        is_torn = _LAST not in files and _step(folder) > newest
        if folder in kept or is_torn:
            continue
        # What makes it a checkpoint goes first: one that is half deleted must not look whole.
        for name in sorted(files, key=lambda name: name != _LAST):
            locations.delete(locations.join(folder, name))
        locations.remove_empty_folder(folder)


def best_checkpoint(run_uri: str) -> Checkpoint | None:
    """The one with the best score, the newest of equals; None where none was measured."""
    scored = [one for one in list_checkpoints(run_uri) if one.score is not None]
    return max(scored, key=lambda one: (one.score, one.step)) if scored else None


def _folders(run_uri: str) -> dict[str, set[str]]:
    """Folder -> names of its files, of all that have the name of a checkpoint."""
    root = locations.absolute(locations.join(run_uri, _FOLDER))
    folders: dict[str, set[str]] = {}
    for place in locations.list_files(root):
        folder, _, name = place.rpartition("/")
        if _NAME.fullmatch(folder.rpartition("/")[2]):
            folders.setdefault(folder, set()).add(name)
    return folders


def _step(folder: str) -> int:
    matched = _NAME.fullmatch(folder.rpartition("/")[2])
    assert matched
    return int(matched[1])


def flatten(state: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Nested states as (tensors by path, plain values by path); `unflatten` puts them together again.

    >>> flatten({"adam": {"step": 3, "rates": []}})
    ({}, {'adam/step': 3, 'adam/rates': []})
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, value in state.items():
        assert isinstance(name, str) and "/" not in name, name
        path = f"{prefix}{name}"
        if isinstance(value, Tensor):
            tensors[path] = value
        elif isinstance(value, Mapping) and value:
            inner_tensors, inner_plain = flatten(value, f"{path}/")
            tensors |= inner_tensors
            plain |= inner_plain
        else:
            plain[path] = value
    return tensors, plain


def unflatten(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The nested states that `flatten` took apart.

    >>> unflatten({}, {"adam/step": 3, "adam/rates": []})
    {'adam': {'step': 3, 'rates': []}}
    """
    state: dict[str, Any] = {}
    for path, value in [*tensors.items(), *plain.items()]:
        *folders, name = path.split("/")
        inside = state
        for folder in folders:
            inside = inside.setdefault(folder, {})
        inside[name] = value
    return state
