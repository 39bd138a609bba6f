"""Who is writing to a dataset: one job at a time.

    DEST/_stylejobs/lease.json

A lease is a file that is written only if none is there, and rewritten every few seconds with a higher beat. Another
job that finds it watches: a beat that moves has a living owner, and the job is refused; one that stands still has lost
its owner, and the lease is taken over. Time is measured with the watcher's own monotonic clock, so clocks that differ
or jump decide nothing. On the owner's own machine nobody waits: its process is looked up.

A lease keeps two people from working against each other. What is written does not depend on it: units have the same
names and bytes whoever does them, so that the moment in which a lease changes hands, or a server without conditional
writes, costs work and never a row.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from stylejobs.errors import InfrastructureError, StorageError
from stylejobs.storage import locations
from stylejobs.storage.put import create

BEAT_SECONDS = 10.0
"""Between two beats; read from the held lease, so that all versions agree about it."""
_STALE_BEATS = 4
_LAST_BEAT_SECONDS = 30.0
"""For which the end of a job waits for a beat that is under way: where a server throttles, one takes more than ten."""

_left: set[str] = set()
"""Owners in this process whose jobs have ended while the storage was away."""


class Lease:
    """A lease that this process holds, until `release`.

    Attributes:
        lost: somebody else has taken it, so that this job must stop; None, or what is known of the new owner.
    """

    def __init__(self, uri: str, owner: str, verb: str, beat_seconds: float):
        self.lost: str | None = None
        self._uri, self._owner, self._beat_seconds = uri, owner, beat_seconds
        self._record = {"owner": owner, "verb": verb, "beat_seconds": beat_seconds, **this_process()}
        self._beat = 0
        self._is_away = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="lease", daemon=True)

    def _bytes(self) -> bytes:
        return json.dumps({**self._record, "beat": self._beat}).encode()

    def _try(self) -> bool:
        return create(self._uri, self._bytes())

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            try:
                held = _read(self._uri)
                if held is not None and held["owner"] != self._owner:
                    self.lost = _describe(held)
                    return
                if self._stop.is_set():  # the answer was long in coming: somebody else may hold the lease by now
                    return
                self._beat += 1
                locations.write_atomic(self._uri, self._bytes())
                self._is_away = False
            except StorageError:
                # A storage that is away for a moment costs beats; if it stays away, the job's own writes say so.
                self._is_away = True

    def release(self) -> None:
        """Gives the dataset free; where the storage is away, the lease grows old by itself.

        A storage that did not take the last beat is not asked: each question would cost a minute once more.
        """
        self._stop.set()
        self._thread.join(_LAST_BEAT_SECONDS)
        if self._is_away or self._thread.is_alive():
            _left.add(self._owner)
            return
        # Why the job ended is what people must hear of, not that it could not tidy up.
        with suppress(StorageError):
            held = None if self.lost else _read(self._uri)
            if held is not None and held["owner"] == self._owner:
                locations.delete(self._uri)


@contextmanager
def hold(dest: str, verb: str, beat_seconds: float = BEAT_SECONDS) -> Iterator[Lease]:
    """Holds `dest` for one job.

    Raises:
        InfrastructureError: another job is writing there.
        StorageError: the place cannot be written.
    """
    uri = locations.join(locations.absolute(dest), "_stylejobs", "lease.json")
    lease = Lease(uri, uuid.uuid4().hex, verb, beat_seconds)
    while not lease._try():
        held = _read(uri)
        if held is None:
            continue
        if _is_alive(uri, held):
            raise InfrastructureError(
                f"dest={dest} is being written by another job: {_describe(held)}; wait for it, or stop it, and repeat "
                "this command"
            )
        if _read(uri) == held:
            locations.delete(uri)
    lease._thread.start()
    try:
        yield lease
    finally:
        lease.release()


def _is_alive(uri: str, held: dict) -> bool:
    here = this_process()
    if held["owner"] in _left:
        return False
    if held["machine"] is not None and held["machine"] == here["machine"]:
        return _started(held["pid"]) == held["started"]
    deadline = time.monotonic() + _STALE_BEATS * held["beat_seconds"]
    while time.monotonic() < deadline:
        time.sleep(min(1.0, held["beat_seconds"] / 4))
        seen = _read(uri)
        if seen is None:
            return False
        if (seen["owner"], seen["beat"]) != (held["owner"], held["beat"]):
            return True
    return False


def _read(uri: str) -> dict | None:
    try:
        return json.loads(locations.read_bytes(uri))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StorageError(f"{uri}: not a lease of ours ({error}); delete it if no job is running") from error


def _describe(held: dict) -> str:
    return f"{held['verb']} on {held['host']}, process {held['pid']}"


def this_process() -> dict[str, Any]:
    """This process, so that another one on the same machine can see whether it still runs."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "machine": _machine(), "started": _started(pid)}


def has_ended(process: Mapping[str, Any]) -> bool:
    """Whether a process, as `this_process` tells it, ran on this machine and is gone; False where nobody can tell."""
    machine = process["machine"]
    return machine is not None and machine == _machine() and _started(process["pid"]) != process["started"]


def _machine() -> str | None:
    """This boot of this kernel, and the process numbers that count in it; None where there is no /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot: a number that is used again belongs to another one."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name of the process stands in brackets and may hold anything.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
