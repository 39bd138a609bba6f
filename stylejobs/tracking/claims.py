"""The right to move one alias of a registered model, for one command at a time; how it is used is in aliases.py.

A claim is an empty registered model NAME.moving.ALIAS: its name is a primary key, so that of many that make it exactly
one succeeds. Its description is the journal of the move, JSON.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from stylejobs.errors import RegistryError
from stylejobs.tracking.client import error_code, is_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

STALE_SECONDS = 300.0
"""Age of a claim that was left behind: well above what a living command needs (aliases.py), since clocks differ."""
_TRIES = 5


class Claim:
    """The claim on one alias, ours or another command's."""

    def __init__(self, client: "MlflowClient", name: str, alias: str, has_ended: Callable[[Mapping[str, Any]], bool]):
        self._client, self._has_ended = client, has_ended
        self._what = f"{alias} of {name}"
        self._name = f"{name}.moving.{alias}"

    def take(self, record: Mapping[str, Any]) -> bool:
        """Whether somebody's claim that was left behind had to be cleared for it."""
        taken_over = False
        for _ in range(_TRIES):
            if self._make(record):
                return taken_over
            held = self.read()
            if held is None:
                continue
            if held["token"] == record["token"]:  # our own request, which MLflow sent a second time
                return taken_over
            self.clear(held)
            taken_over = True
        raise RegistryError(
            f"other commands are moving {self._what}, one after the other; try again when they are done"
        )

    def read(self) -> dict[str, Any] | None:
        try:
            found = self._client.get_registered_model(self._name)
        except Exception as error:
            if is_missing(error):
                return None
            raise
        try:
            record = json.loads(found.description or "")
            return {**record, "token": record["token"], "made_ms": found.creation_timestamp}
        except (KeyError, TypeError, ValueError):
            raise RegistryError(
                f"the registered model {self._name} stands where moves of {self._what} are claimed, and is no claim; "
                "rename or delete it"
            ) from None

    def clear(self, held: Mapping[str, Any]) -> None:
        """Finishes what a dead command had begun, and removes its claim; a living one is let be."""
        age_seconds = time.time() - held["made_ms"] / 1000.0
        if not self._has_ended(held["process"]) and age_seconds < STALE_SECONDS:
            raise RegistryError(
                f"another command is moving {self._what} to version {held['version']} ({held['action']} by "
                f"{held['by']} since {held['at']}); see what it does, then decide again. If it was killed, its claim "
                f"is void {STALE_SECONDS / 60:.0f} minutes after it began"
            )
        if read_target(self._client, held["name"], held["alias"]) == held["version"]:
            complete_move(self._client, held)
        self.release(held)

    def release(self, record: Mapping[str, Any]) -> None:
        """Removes the claim of this record; another one, that has taken its place, is let be."""
        if not self.is_held_by(record):
            return
        try:
            self._client.delete_registered_model(self._name)
        except Exception:
            # Two that remove it at once get answers of many kinds from the database: what counts is that it is gone.
            if self.is_held_by(record):
                raise

    def is_held_by(self, record: Mapping[str, Any]) -> bool:
        held = self.read()
        return held is not None and held["token"] == record["token"]

    def _make(self, record: Mapping[str, Any]) -> bool:
        says = {"says": "Claim of a command that is moving an alias; it is removed when that is done."}
        # Not in tags: these are rows of their own, which a reader may miss while the claim is removed.
        text = json.dumps({**says, **record}, ensure_ascii=False)
        try:
            self._client.create_registered_model(self._name, description=text)
        except Exception as error:
            # "Missing", where another claim was in the way, and was gone when MLflow looked at it for its answer.
            if error_code(error) == "RESOURCE_ALREADY_EXISTS" or is_missing(error):
                return False
            raise
        return True


def complete_move(client: "MlflowClient", record: Mapping[str, Any]) -> None:
    """What follows once the alias of a claim's record has moved; doing it twice changes nothing."""
    name, alias, version = record["name"], record["alias"], record["version"]
    if record["seen"] is not None:
        client.set_registered_model_alias(name, previous_alias(alias), record["seen"])
    kept = {"action": record["action"], "from": record["seen"]}
    kept |= {key: record[key] for key in ("by", "at", "why", "verdict_sha256")}
    client.set_model_version_tag(name, version, f"stylejobs.moved.{alias}", json.dumps(kept))
    if record["action"] == "override":
        client.set_model_version_tag(name, version, f"stylejobs.override.{alias}", record["why"] or "")


def previous_alias(alias: str) -> str:
    """The alias that keeps where another one was before its last move.

    >>> previous_alias("champion"), previous_alias("staging")
    ('previous', 'staging-previous')
    """
    return "previous" if alias == "champion" else f"{alias}-previous"


def read_target(client: "MlflowClient", name: str, alias: str) -> str | None:
    """The version that an alias points at now."""
    found = client.get_registered_model(name).aliases.get(alias)
    return None if found is None else str(found)
