"""The way to MLflow: which server, how a client of it is opened, and how its errors become ours.

The only place that sets MLflow's environment and imports it (seconds, so never at import time of this package).
Nothing here touches MLflow's global state (`set_tracking_uri`, the active run).
"""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from stylejobs.errors import RegistryError, StylejobsError, UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"

# Two retries and 20 s instead of MLflow's 7 and 120 s: a dead server is known within seconds (refused) or about a
# minute (silent). What must survive a longer outage is kept and retried by `outbox`, not inside one HTTP call.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Else MLflow copies uv.lock and pyproject.toml of the working directory into every model.
    "MLFLOW_UV_AUTO_DETECT": "false",
}
# Forced: at the end of a run MLflow prints its link, with the password of the URI, on stdout, where the result goes.
_FORCED_ENVIRONMENT = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
_SECRETS = (
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN",
)  # fmt: skip
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_NOISY = ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "mlflow.tracking", "alembic")


def tracking_uri() -> str:
    """The tracking server of this process: MLFLOW_TRACKING_URI, or an SQLite file under ./.stylejobs.

    A relative SQLite path is made absolute, so that the answer means the same in a worker with another directory.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"{SQLITE}.stylejobs/mlflow.db"
    path = _sqlite_path(uri)
    return uri if path is None else SQLITE + path


def artifact_location(uri: str) -> str | None:
    """Where a new experiment of this store keeps its files: beside an SQLite file; None where the server decides."""
    path = _sqlite_path(uri)
    return None if path is None else str(Path(path).parent / "artifacts")


def _sqlite_path(uri: str) -> str | None:
    if not uri.startswith(SQLITE) or uri == SQLITE or ":memory:" in uri:
        return None
    return os.path.abspath(uri.removeprefix(SQLITE))


def redact(text: str) -> str:
    """Takes credentials out of a text: passwords in URLs, and the values of the credential variables.

    >>> redact("GET http://ann:pass@host:5000/x failed")
    'GET http://***@host:5000/x failed'
    """
    secrets = [os.environ.get(name, "") for name in _SECRETS]
    try:
        password = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).password or ""
    except ValueError:
        password = ""
    for secret in (*secrets, password, unquote(password)):
        if secret:
            text = text.replace(secret, "***")
    return re.sub(r"://[^/\s]*@", "://***@", text)


def set_environment() -> None:
    """Sets what MLflow reads of the environment, where the user has not; to be called before anything imports it."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(_FORCED_ENVIRONMENT)


def open_client(uri: str) -> "MlflowClient":
    """A client of one server; opening an SQLite store makes its tables the first time (seconds).

    Args:
        uri: as `tracking_uri` gives it.

    Raises:
        RegistryError: the store cannot be opened. A server that does not answer is found by the first call.
    """
    set_environment()
    from mlflow import MlflowClient

    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    with reaching(uri):
        _check_sqlite(uri)
        return MlflowClient(uri)


def _check_sqlite(uri: str) -> None:
    # MLflow tries an SQLite file that cannot be opened for minutes; asking SQLite first answers at once.
    path = _sqlite_path(uri)
    if path is None:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("PRAGMA schema_version").fetchone()


@contextmanager
def reaching(uri: str, refused: type[UsageError] = UsageError) -> Iterator[None]:
    """Turns what MLflow and its stores raise into our errors, without credentials.

    The original exception is not chained: its text may hold the password of the URI.

    Args:
        uri: the server that is talked to.
        refused: raised when the server answers that an argument is not allowed (a name, an alias).

    Raises:
        RegistryError: the server did not answer, or failed.
    """
    try:
        yield
    except StylejobsError:
        raise
    except Exception as error:
        message = " ".join(redact(str(error)).split())
        if error_code(error) in _REFUSED:
            raise refused(message) from None
        raise RegistryError(
            f"wanted the MLflow server {redact(uri)}; got {type(error).__name__}: {message}. Check that it runs and "
            "that MLFLOW_TRACKING_URI (and MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD) are right; unset "
            "MLFLOW_TRACKING_URI to track in a local SQLite file"
        ) from None


def error_code(error: Exception) -> str:
    """The server's name for what went wrong, or an empty text."""
    return str(getattr(error, "error_code", "") or "")


def is_missing(error: Exception) -> bool:
    """True when the server answered that the thing does not exist."""
    return error_code(error) in _MISSING


def is_permanent(error: Exception) -> bool:
    """True when sending the same again cannot help: a refused argument, a run or file that does not exist."""
    known = (*_REFUSED, *_MISSING, "RESOURCE_ALREADY_EXISTS")
    return error_code(error) in known or isinstance(error, ValueError | TypeError | FileNotFoundError)
