"""Aliases of registered models: where they point, and how one moves while others want to move it, too.

MLflow has no compare-and-set for aliases. What only one of many can do is to make a registered model of a name: the
name is a primary key of the registry. So a move holds a *claim*, an empty registered model NAME.moving.ALIAS whose
description says what is moved by whom, from just before the alias is read until everything is written. A move is:

    claim > alias still as it was when the decision fell > alias moves > read again > `previous`, record > claim gone

The alias is one write: it is moved or not. A command that dies after it leaves the claim, which says what is missing;
the next command finishes that. One that dies before leaves a claim that says nothing has to be done.

What remains open: an alias that is moved without a claim, as MLflow's own page does, is seen only if that happens
outside of the milliseconds between the last look and the move. And a claim counts as left behind after
`STALE_SECONDS` by the registry's clock, or at once when its process ran here and is gone: a command that stalls for
that long between these same two calls, on another machine, could move the alias after somebody else has.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stylejobs.errors import GateError, ModelError, RegistryError
from stylejobs.tracking.claims import Claim, complete_move, previous_alias, read_target
from stylejobs.tracking.client import is_permanent, open_client, reaching, redact, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

SLOWEST_SECONDS = 100.0
"""From the claim to the move; whoever is slower gives up. The move itself waits for an answer a minute at most."""
SETTLE_SECONDS = 1.0
"""After a claim was taken over: two that did so at once see by then whose it is."""


@dataclass(frozen=True)
class Move:
    """An alias that is to move.

    Attributes:
        name, alias, version: what is to point where.
        seen: version that the alias pointed at when this was decided; None where it did not exist.
        action: "promote", "rollback" or "override".
        by, why: the person and the reason, for the record.
        verdict_sha256: of what it was decided on; None without.
    """

    name: str
    alias: str
    version: str
    seen: str | None
    action: str
    by: str
    why: str | None = None
    verdict_sha256: str | None = None


def read_alias(name: str, alias: str) -> str | None:
    """The version that an alias points at; None where there is no such alias.

    Raises:
        RegistryError: the server cannot be reached, or has no such model.
    """
    uri = tracking_uri()
    client = open_client(uri)
    with reaching(uri, refused=ModelError):
        return read_target(client, name, alias)


def settle_move(name: str, alias: str, has_ended: Callable[[Mapping[str, Any]], bool]) -> None:
    """Finishes, or forgets, a move whose command died; to be called before an alias is read to decide on it.

    Args:
        has_ended: whether the process of a claim, as it was given to `move_alias`, is known to be gone.

    Raises:
        RegistryError: a command is moving the alias now, or the server cannot be reached.
    """
    uri = tracking_uri()
    client = open_client(uri)
    with reaching(uri, refused=ModelError):
        claim = Claim(client, name, alias, has_ended)
        held = claim.read()
        if held is not None:
            claim.clear(held)


def move_alias(move: Move, process: Mapping[str, Any], has_ended: Callable[[Mapping[str, Any]], bool]) -> None:
    """Points an alias at a version, keeps the version before as `previous_alias`, and records who, what and why.

    The record is the version's tag `stylejobs.moved.ALIAS`, JSON; an override also sets `stylejobs.override.ALIAS`.

    Args:
        process: this one, for the claim.
        has_ended: as in `settle_move`.

    Raises:
        GateError: the alias does not point at `seen` any more.
        ModelError: the server does not allow the alias, or the version does not exist.
        RegistryError: another command is moving the alias, or the server cannot be reached; says what is moved.
    """
    uri = tracking_uri()
    mover = _Mover(open_client(uri), move, process, has_ended)
    try:
        with reaching(uri, refused=ModelError):
            mover.run()
    except RegistryError as error:
        raise RegistryError(f"{error}. {mover.state}") from None


class _Mover:
    """One move. `state` says at any time what is moved and what is not."""

    def __init__(
        self,
        client: "MlflowClient",
        move: Move,
        process: Mapping[str, Any],
        has_ended: Callable[[Mapping[str, Any]], bool],
    ):
        self._client, self._move = client, move
        self._claim = Claim(client, move.name, move.alias, has_ended)
        self._record = {
            **asdict(move),
            "why": move.why and redact(move.why),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": uuid.uuid4().hex,
            "process": dict(process),
        }
        self._began_at = time.monotonic()
        self._begun = False
        self.state = f"{move.alias} of {move.name} is not moved"

    def run(self) -> None:
        taken_over = self._claim.take(self._record)
        try:
            if taken_over:
                time.sleep(SETTLE_SECONDS)
            self._move_claimed()
        except BaseException:
            if not self._begun:
                # What stopped it is what people must hear of; a claim that is left is cleared by the next command.
                with suppress(Exception):
                    self._claim.release(self._record)
            raise
        self._claim.release(self._record)

    def _move_claimed(self) -> None:
        move = self._move
        if not self._claim.is_held_by(self._record):
            raise RegistryError(f"another command has begun to move {move.alias} of {move.name}, and goes first")
        before = read_target(self._client, move.name, move.alias)
        if before != move.seen:
            raise GateError(
                f"{move.alias} of {move.name} has moved since this was decided: it was {_version(move.seen)}, and is "
                f"{_version(before)} now; look at that one, and decide again"
            )
        slow_seconds = time.monotonic() - self._began_at
        if slow_seconds > SLOWEST_SECONDS:
            raise RegistryError(f"the registry took {slow_seconds:.0f} s for what takes one; try again")
        self._commit()
        after = read_target(self._client, move.name, move.alias)
        if after != move.version:
            self._begun = False
            self.state = f"It is {_version(after)} now"
            raise RegistryError(
                f"{move.alias} of {move.name} was moved to version {move.version}, and at once by something else that "
                "makes no claim, such as MLflow's own page"
            )
        complete_move(self._client, self._record)
        self.state = f"{move.alias} of {move.name} is moved to version {move.version}, and recorded"

    def _commit(self) -> None:
        move, unmoved = self._move, self.state
        self._begun = True
        self.state = (
            f"Whether {move.alias} of {move.name} is moved to version {move.version} is not known; give the same "
            "command again: it looks, and finishes what is missing"
        )
        try:
            self._client.set_registered_model_alias(move.name, move.alias, move.version)
        except Exception as error:
            if is_permanent(error):
                self._begun, self.state = False, unmoved
            raise
        self.state = (
            f"{move.alias} of {move.name} is moved to version {move.version}, but the alias "
            f"{previous_alias(move.alias)} and the record are not written; give the same command again: it does that"
        )


def _version(number: str | None) -> str:
    return "no version" if number is None else f"version {number}"
