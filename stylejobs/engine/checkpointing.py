"""When and how a training writes its checkpoints: copied at the step, written by a thread while the next ones go on."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylejobs.engine.group import Group
from stylejobs.errors import StorageError
from stylejobs.storage.checkpoints import (
    SHARED,
    Checkpoint,
    DamagedCheckpointError,
    Part,
    checkpoint_uri,
    complete,
    flatten,
    list_checkpoints,
    prune,
    unflatten,
    worker_part,
    write_part,
)

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class CheckpointSettings:
    """Where, how often and how many.

    Attributes:
        run_uri: the folder of the run.
        every: steps between two checkpoints.
        keep: of the newest ones; the best one is kept besides.
        retry_seconds: for which a storage that fails is tried again.
    """

    run_uri: str
    every: int = 500
    keep: int = 3
    retry_seconds: float = 120.0


@dataclass(frozen=True)
class Restored:
    """A checkpoint in memory, as one worker reads it.

    Attributes:
        shared: what all workers have in common.
        own: what each of the workers that wrote it had for itself; read whole where their number has changed, else
            of this worker alone.
    """

    checkpoint: Checkpoint
    shared: dict[str, Any]
    own: list[dict[str, Any]]

    def is_of(self, num_workers: int) -> bool:
        """Whether so many workers wrote it."""
        return self.checkpoint.num_workers == num_workers


def restore_newest(run_uri: str, group: Group, tell: Callable[[str], None]) -> Restored | None:
    """The newest checkpoint that is whole for every worker; None where there is none. All workers must ask.

    Args:
        tell: hears of damaged ones, which are passed over.

    Raises:
        StorageError: the storage cannot be reached.
    """
    for checkpoint in group.from_first(list_checkpoints(run_uri) if group.is_first else None):
        restored: Restored | None = None
        try:
            restored = _read(checkpoint, group)
        except DamagedCheckpointError as error:
            tell(f"damaged checkpoint, going back to the one before it: {error}")
        if group.all_agree(restored is not None):
            return restored
    return None


def _read(checkpoint: Checkpoint, group: Group) -> Restored:
    ranks = [group.rank] if checkpoint.num_workers == group.num_workers else range(checkpoint.num_workers)
    parts = [checkpoint.read_part(name) for name in (SHARED, *(worker_part(rank) for rank in ranks))]
    shared, *own = (unflatten(part.tensors, part.plain) for part in parts)
    return Restored(checkpoint, shared, own)


class Keeper:
    """Writes this worker's parts; the first worker's also completes and prunes.

    At most one checkpoint is being written: the next one waits for it.

    Args:
        start: hexadecimal digits that all workers of this start share.
        tell: hears of every checkpoint, and of what went wrong.
        last_good: the newest whole checkpoint so far; the first worker knows at once, the others at the next one.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        group: Group,
        start: str,
        tell: Callable[[str], None] = lambda text: None,
        last_good: str | None = None,
    ):
        self._s, self._group, self._start, self._tell = settings, group, start, tell
        self._thread: threading.Thread | None = None
        self._error: StorageError | None = None
        self.last_good = last_good
        self.every = settings.every

    def keep(
        self, step: int, images_seen: int, score: float | None, shared: Mapping[str, Any], own: Mapping[str, Any]
    ) -> None:
        """Copies the states and returns; they are written while the training goes on. All workers must ask.

        Args:
            shared: see `Restored`; only the first worker's is looked at.

        Raises:
            StorageError: an earlier one could not be written.
        """
        self.finish()
        self.last_good = self._group.from_first(self.last_good)
        uri = checkpoint_uri(self._s.run_uri, step, self._start)
        parts = {worker_part(self._group.rank): _copy(own)}
        if self._group.is_first:
            parts[SHARED] = _copy(shared)
        checkpoint = Checkpoint(step, images_seen, self._group.num_workers, score, uri=uri)
        self._thread = threading.Thread(target=self._write, args=(checkpoint, parts), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what the thread has met.

        Raises:
            StorageError: a checkpoint could not be written, the last good one is named.
        """
        if self._error is not None:
            raise StorageError(f"{self._error}; last good checkpoint: {self.last_good or 'none yet'}")

    def finish(self) -> None:
        """Waits for what is being written.

        Raises:
            StorageError: as `check`.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _write(self, checkpoint: Checkpoint, parts: dict[str, Part]) -> None:
        deadline, wait = time.monotonic() + self._s.retry_seconds, _FIRST_WAIT_SECONDS
        while True:
            try:
                self._write_once(checkpoint, parts)
                return
            except StorageError as error:
                if time.monotonic() + wait > deadline:
                    self._error = error
                    return
                self._tell(f"checkpoint of step {checkpoint.step}: {error}; trying again in {wait:.1f} s")
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def _write_once(self, checkpoint: Checkpoint, parts: dict[str, Part]) -> None:
        for name, part in parts.items():
            write_part(checkpoint.uri, name, part)
        if self._group.is_first:
            complete(checkpoint, self._s.retry_seconds)
            self.last_good = checkpoint.uri
            score = "" if checkpoint.score is None else f", score {checkpoint.score:.4g}"
            self._tell(
                f"checkpoint: step {checkpoint.step} ({checkpoint.images_seen:,} images{score}): {checkpoint.uri}"
            )
            try:
                prune(self._s.run_uri, self._s.keep)
            except StorageError as error:
                # The next checkpoint deletes them too; a storage that stays away ends the training there.
                self._tell(f"older checkpoints stay for now: {error}")


def _copy(state: Mapping[str, Any]) -> Part:
    tensors, plain = flatten(state)
    copies: dict[str, Tensor] = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
    return Part(copies, plain)


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """Of torch's own generators, which a library may draw from; ours are functions of the step."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_rng_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Goes on from what `rng_state` gave."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
