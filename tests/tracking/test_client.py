"""Which server, what may be said about it, and how fast a dead one is known."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.errors import ModelError, RegistryError, UsageError
from stylejobs.tracking.client import artifact_location, open_client, reaching, redact, tracking_uri
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from stylejobs.tracking.registry import resolve_version

DEAD = "http://ann:s3cr%21et-word@127.0.0.1:9"


def test_without_a_setting_tracking_is_a_file_below_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == f"sqlite:///{tmp_path}/.stylejobs/mlflow.db"
    assert artifact_location(tracking_uri()) == f"{tmp_path}/.stylejobs/artifacts"


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("http://host:5000", "http://host:5000"),
        ("sqlite:///runs.db", "sqlite:///{cwd}/runs.db"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db"),
        ("postgresql://u:p@host/db", "postgresql://u:p@host/db"),
    ],
)
def test_the_setting_counts_and_means_the_same_in_every_directory(monkeypatch, tmp_path, setting, wanted):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", setting)
    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == wanted.format(cwd=tmp_path)


def test_only_local_stores_choose_where_artifacts_go():
    assert artifact_location("http://host:5000") is None
    assert artifact_location("sqlite:////data/runs.db") == "/data/artifacts"


@given(
    password=st.text(
        st.characters(codec="ascii", exclude_characters="/@: \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f#?"), min_size=8
    )
)
def test_no_password_of_a_url_survives(password):
    text = redact(f"GET http://ann:{password}@host:5000/api failed, http://ann:{password}@host:5000")
    assert password not in text and "host:5000/api failed" in text


def test_credential_variables_do_not_survive(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-123456")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    assert redact("Bearer tok-123456, s3cr!et-word, s3cr%21et-word") == "Bearer ***, ***, ***"


def _shown(error):
    import traceback

    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("call", ["start", "resolve"])
def test_a_dead_server_is_known_soon_and_named_without_its_password(monkeypatch, capfd, call):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    started = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        if call == "start":
            MlflowTracker.start("demo", "run")
        else:
            resolve_version("models:/demo@champion")
    assert time.monotonic() - started < 20
    assert caught.value.exit_code == 6
    assert "127.0.0.1:9" in str(caught.value) and "MLFLOW_TRACKING_URI" in str(caught.value)
    said = _shown(caught.value) + "".join(capfd.readouterr())
    assert "s3cr" not in said


def test_a_store_that_is_no_database_is_known_at_once(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"this is a text, not a database file. " * 40)
    started = time.monotonic()
    with pytest.raises(RegistryError, match="not a database"):
        open_client(f"sqlite:///{path}")
    assert time.monotonic() - started < 10


def test_a_store_in_a_place_that_cannot_be_is_known_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError):
        open_client(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_errors_become_ours():
    class Refused(Exception):
        error_code = "INVALID_PARAMETER_VALUE"

    with pytest.raises(UsageError, match="bad name"), reaching("http://h"):
        raise Refused("bad  name")
    with pytest.raises(ModelError), reaching("http://h", refused=ModelError):
        raise Refused("x")
    with pytest.raises(ModelError, match=r"^kept$"), reaching("http://h"):
        raise ModelError("kept")
    with pytest.raises(RegistryError, match="OSError: disk"), reaching("http://h"):
        raise OSError("disk")


def test_importing_the_floor_does_not_import_mlflow():
    code = (
        "import sys, stylejobs.tracking.mlflow_tracker, stylejobs.tracking.registry;"
        "import stylejobs.tracking.system_metrics, stylejobs.tracking.provenance;"
        "print([name for name in ('mlflow', 'ray', 'torch') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.stdout.strip() == "[]", done.stderr
