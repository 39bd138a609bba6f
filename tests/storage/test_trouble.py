"""Whoever counts what goes wrong at the storage hears of it: what a retry mends, and what it does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stylejobs.errors import StorageError
from stylejobs.storage import locations, trouble
from tests.storage.flaky_s3 import BODY, busy_at_first


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(trouble, "_listeners", set())
    trouble.listen(listener := lambda *what: told.append(what))
    trouble.listen(listener)
    yield told


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with busy_at_first(2) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        locations._filesystem.cache_clear()
        yield url
        locations._filesystem.cache_clear()


def test_requests_that_are_sent_again(heard: list, endpoint: str) -> None:
    assert locations.read_bytes("s3://bucket/object") == BODY
    assert heard == [("retry", "GetObject")] * 2


def test_errors_by_what_was_being_done(heard: list, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError):
        locations.write_atomic(str(tmp_path / "file" / "below"), b"y")
    assert heard == [("error", "write")]


def test_what_is_not_there_is_no_trouble(heard: list, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        locations.read_bytes(str(tmp_path / "nothing"))
    assert heard == []
