"""One job at a time on a dataset: refused while the owner lives, taken over when it has died."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stylejobs.errors import InfrastructureError, StorageError
from stylejobs.storage import locations
from stylejobs.storage.lease import hold
from stylejobs.storage.put import create

HOLD = """
import sys, time
from stylejobs.storage.lease import hold
with hold(sys.argv[1], "stylize", beat_seconds=0.2):
    print("held", flush=True)
    time.sleep(60)
"""


def lease_file(dest: Path) -> Path:
    return dest / "_stylejobs" / "lease.json"


def elsewhere(dest: Path, **changes: object) -> None:
    """A lease as another machine would have written it."""
    held = {"owner": "them", "verb": "stylize", "beat_seconds": 0.2, "beat": 1, "host": "there", "pid": 7}
    locations.write_atomic(
        str(lease_file(dest)), json.dumps({**held, "machine": "m", "started": "1", **changes}).encode()
    )


def test_it_is_there_while_it_is_held_and_beats(tmp_path: Path) -> None:
    with hold(str(tmp_path), "stylize", beat_seconds=0.05) as lease:
        first = json.loads(lease_file(tmp_path).read_text())
        time.sleep(0.4)
        later = json.loads(lease_file(tmp_path).read_text())
        assert later["beat"] > first["beat"] and later["owner"] == first["owner"] and lease.lost is None
    assert not lease_file(tmp_path).exists()


def test_a_living_owner_on_this_machine_is_named_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(
            InfrastructureError, match=f"being written by another job: stylize on .*, process {process.pid}"
        ):
            hold(str(tmp_path), "stylize").__enter__()
        assert lease_file(tmp_path).exists()
        process.kill()
        process.wait()
        assert lease_file(tmp_path).exists(), "a killed process cannot clean up"
        started = time.monotonic()
        with hold(str(tmp_path), "stylize"):
            assert time.monotonic() - started < 5
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_pid_that_is_used_again_is_not_the_owner(tmp_path: Path) -> None:
    with hold(str(tmp_path), "ingest"):
        mine = json.loads(lease_file(tmp_path).read_text())
    if mine["machine"] is None:
        pytest.skip("this system has no /proc")
    elsewhere(tmp_path, machine=mine["machine"], pid=mine["pid"], started="1")
    with hold(str(tmp_path), "stylize") as lease:
        assert lease.lost is None


def test_an_owner_elsewhere_is_watched_and_counts_while_it_beats(tmp_path: Path) -> None:
    stop = threading.Event()

    def beat() -> None:
        for number in range(1000):
            elsewhere(tmp_path, beat=number)
            if stop.wait(0.1):
                return

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        while not lease_file(tmp_path).exists():
            time.sleep(0.01)
        with pytest.raises(InfrastructureError, match="stylize on there, process 7"):
            hold(str(tmp_path), "stylize").__enter__()
    finally:
        stop.set()
        thread.join()


def test_a_lease_that_stands_still_is_taken_over(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    started = time.monotonic()
    with hold(str(tmp_path), "stylize"):
        assert json.loads(lease_file(tmp_path).read_text())["owner"] != "them"
    assert 0.6 < time.monotonic() - started < 20


def test_an_owner_that_was_taken_over_learns_it_and_leaves_the_new_lease_alone(tmp_path: Path) -> None:
    with hold(str(tmp_path), "stylize", beat_seconds=0.05) as lease:
        elsewhere(tmp_path)
        deadline = time.monotonic() + 10
        while lease.lost is None and time.monotonic() < deadline:
            # A beat that was under way may have come after it.
            if json.loads(lease_file(tmp_path).read_text())["owner"] != "them":
                elsewhere(tmp_path)
            time.sleep(0.02)
        assert lease.lost == "stylize on there, process 7"
    assert json.loads(lease_file(tmp_path).read_text())["owner"] == "them"


def test_a_beat_that_is_long_in_coming_does_not_take_back_a_lease_that_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Event(), threading.Event()
    read = locations.read_bytes

    def slow(uri: str) -> bytes:
        found = read(uri)
        if threading.current_thread().name == "lease":
            asked.set()
            assert answered.wait(30)
        return found

    monkeypatch.setattr(locations, "read_bytes", slow)
    monkeypatch.setattr("stylejobs.storage.lease._LAST_BEAT_SECONDS", 0.1)
    with hold(str(tmp_path), "stylize", beat_seconds=0.05) as lease:
        assert asked.wait(30)
    elsewhere(tmp_path)
    answered.set()
    lease._thread.join(30)
    assert not lease._thread.is_alive() and json.loads(lease_file(tmp_path).read_text())["owner"] == "them"


def test_of_many_who_try_at_once_one_gets_it(tmp_path: Path) -> None:
    won = []
    ready = threading.Barrier(8)

    def attempt(number: int) -> None:
        ready.wait()
        if create(str(tmp_path / "a" / "file"), str(number).encode()):
            won.append(number)

    for _ in range(10):
        threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1 and (tmp_path / "a" / "file").read_text() == str(won.pop())
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
        (tmp_path / "a" / "file").unlink()


def test_what_is_no_lease_is_not_deleted(tmp_path: Path) -> None:
    locations.write_atomic(str(lease_file(tmp_path)), b"precious")
    with pytest.raises(StorageError, match="not a lease of ours"):
        hold(str(tmp_path), "stylize").__enter__()
    assert lease_file(tmp_path).read_bytes() == b"precious"
