"""Moves of an alias in a real SQLite registry: one at a time, recorded, and finished when their command died."""

import itertools
import json
import os
import subprocess
import sys
import threading

import pytest

from stylejobs.errors import GateError, ModelError, RegistryError
from stylejobs.storage.lease import has_ended, this_process
from stylejobs.tracking import aliases, claims
from stylejobs.tracking.aliases import Move, move_alias, read_alias, settle_move
from stylejobs.tracking.claims import previous_alias
from tests.tracking.judging import aliases_of, make_versions

_names = (f"aliases-{number}" for number in itertools.count())


@pytest.fixture
def name(store, client):
    name = next(_names)
    make_versions(client, name, 3)
    return name


@pytest.fixture
def elsewhere():
    """A process on another machine: nobody here can see whether it still runs."""
    return {**this_process(), "machine": "another boot"}


@pytest.fixture(scope="module")
def ended():
    """A process that ran here and is gone."""
    code = "import json; from stylejobs.storage.lease import this_process; print(json.dumps(this_process()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def move(name, version, seen, action="promote", **more) -> None:
    move_alias(Move(name, "champion", version, seen, action, "ann@here", **more), this_process(), has_ended)


def claims_of(client, name) -> list[str]:
    return [model.name for model in client.search_registered_models() if model.name.startswith(f"{name}.moving")]


def leave_claim(client, name, version, seen, process, action="promote") -> None:
    """What a command leaves that died while it held the claim."""
    record = aliases._Mover(
        client, Move(name, "champion", version, seen, action, "bob@there"), process, has_ended
    )._record
    client.create_registered_model(f"{name}.moving.champion", description=json.dumps(record))


def test_a_move_keeps_the_version_before_and_records_who_what_and_why(client, name):
    move(name, "1", None, why="first one")
    assert read_alias(name, "champion") == "1" and read_alias(name, "previous") is None
    move(name, "2", "1", verdict_sha256="7" * 64)
    assert read_alias(name, "champion") == "2" and read_alias(name, "previous") == "1"
    assert not claims_of(client, name)
    first, second = (
        json.loads(client.get_model_version(name, version).tags["stylejobs.moved.champion"]) for version in "12"
    )
    assert first.pop("at") <= second.pop("at")
    assert first == {
        "action": "promote", "from": None, "by": "ann@here", "why": "first one", "verdict_sha256": None,
    }  # fmt: skip
    assert second == {
        "action": "promote", "from": "1", "by": "ann@here", "why": None, "verdict_sha256": "7" * 64,
    }  # fmt: skip


def test_an_override_is_loud(client, name):
    move(name, "1", None, "override", why="the only one that runs")
    assert client.get_model_version(name, "1").tags["stylejobs.override.champion"] == "the only one that runs"


def test_reasons_lose_secrets(client, name, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    move(name, "1", None, "override", why="with hunter2")
    tags = client.get_model_version(name, "1").tags
    assert "hunter2" not in json.dumps(tags) and tags["stylejobs.override.champion"] == "with ***"


def test_an_alias_that_is_not_where_it_was_seen_does_not_move(client, name):
    move(name, "1", None)
    with pytest.raises(GateError, match="it was version 3, and is version 1 now"):
        move(name, "2", "3")
    with pytest.raises(GateError, match="it was no version, and is version 1 now"):
        move(name, "2", None)
    assert read_alias(name, "champion") == "1" and not claims_of(client, name)
    assert "stylejobs.moved.champion" not in client.get_model_version(name, "2").tags


@pytest.mark.parametrize(("alias", "version"), [("champion", "9"), ("not/allowed", "1"), ("latest", "1")])
def test_what_the_registry_refuses_moves_nothing_and_leaves_nothing(client, name, alias, version):
    with pytest.raises((ModelError, RegistryError)):
        move_alias(Move(name, alias, version, None, "promote", "ann"), this_process(), has_ended)
    assert aliases_of(client, name) == {} and not claims_of(client, name)


def test_a_living_command_is_let_be(client, name, elsewhere):
    for process in (this_process(), elsewhere):
        leave_claim(client, name, "2", None, process)
        with pytest.raises(RegistryError, match=r"another command is moving .*promote by bob@there.*is not moved"):
            move(name, "1", None)
        with pytest.raises(RegistryError, match="another command is moving"):
            settle_move(name, "champion", has_ended)
        client.delete_registered_model(f"{name}.moving.champion")
    assert read_alias(name, "champion") is None


def test_a_command_that_died_before_the_move_is_forgotten(client, name, ended):
    move(name, "1", None)
    leave_claim(client, name, "2", "1", ended)
    settle_move(name, "champion", has_ended)
    assert not claims_of(client, name) and aliases_of(client, name) == {"champion": "1"}
    assert "stylejobs.moved.champion" not in client.get_model_version(name, "2").tags


def test_a_command_that_died_after_the_move_is_finished(client, name, ended):
    move(name, "1", None)
    leave_claim(client, name, "2", "1", ended, "override")
    client.set_registered_model_alias(name, "champion", "2")
    settle_move(name, "champion", has_ended)
    assert aliases_of(client, name) == {"champion": "2", "previous": "1"} and not claims_of(client, name)
    tags = client.get_model_version(name, "2").tags
    assert json.loads(tags["stylejobs.moved.champion"])["by"] == "bob@there" and "stylejobs.override.champion" in tags
    settle_move(name, "champion", has_ended)


def test_a_claim_from_another_machine_grows_old(client, name, elsewhere, monkeypatch):
    leave_claim(client, name, "2", None, elsewhere)
    monkeypatch.setattr(claims, "STALE_SECONDS", 0.0)
    monkeypatch.setattr(aliases, "SETTLE_SECONDS", 0.01)
    move(name, "1", None)
    assert read_alias(name, "champion") == "1" and not claims_of(client, name)


@pytest.mark.parametrize("description", [None, "a model of mine", "3", "{}"])
def test_a_model_that_is_no_claim_is_not_taken_for_one(client, name, description):
    client.create_registered_model(f"{name}.moving.champion", description=description)
    with pytest.raises(RegistryError, match="is no claim; rename or delete it"):
        move(name, "1", None)
    assert claims_of(client, name) and read_alias(name, "champion") is None


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_many_at_once_exactly_one_wins(client, name, ended, left_behind):
    """All have seen the same champion; a claim that a dead command left is taken over by one of them."""
    move(name, "1", None)
    if left_behind:
        leave_claim(client, name, "2", "1", ended)
    together = threading.Barrier(6)
    ends: dict[int, object] = {}

    def go(number: int) -> None:
        together.wait()
        try:
            ends[number] = move(name, "23"[number % 2], "1", why=str(number))
        except (GateError, RegistryError) as error:
            ends[number] = error

    threads = [threading.Thread(target=go, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [number for number, end in ends.items() if end is None]
    version = "23"[winner % 2]
    assert aliases_of(client, name) == {"champion": version, "previous": "1"}
    assert json.loads(client.get_model_version(name, version).tags["stylejobs.moved.champion"])["why"] == str(winner)
    says = ("another command", "other commands", "has moved since")
    assert all(any(words in str(end) for words in says) for end in ends.values() if end is not None), ends
    settle_move(name, "champion", has_ended)
    assert not claims_of(client, name)


def test_every_alias_has_its_own_previous():
    assert (previous_alias("champion"), previous_alias("dark")) == ("previous", "dark-previous")
    assert os.getpid() == this_process()["pid"] and not has_ended(this_process())
