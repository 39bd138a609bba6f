"""One SQLite store for all tests here: making its tables takes seconds."""

import pytest

from stylejobs.tracking import outbox
from stylejobs.tracking.client import open_client


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def client(store_uri):
    return open_client(store_uri)


@pytest.fixture
def store(store_uri, client, monkeypatch):
    """The shared store as this process's tracking server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    return store_uri


@pytest.fixture
def quick(monkeypatch):
    """Retries without the waits that spare a real server."""
    monkeypatch.setattr(outbox, "LINGER_SECONDS", 0.0)
    monkeypatch.setattr(outbox, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(outbox, "LONGEST_WAIT_SECONDS", 0.002)
    monkeypatch.setattr(outbox, "FLUSH_WAIT_SECONDS", 0.001)
