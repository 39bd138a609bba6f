"""How a run comes to be: its experiment, a new run or one to go on with, and its page for a person."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stylejobs.errors import UsageError
from stylejobs.tracking.client import artifact_location, error_code, is_missing, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def open_run(
    client: "MlflowClient", uri: str, experiment: str, run_name: str, tags: dict[str, str], run_id: str | None
) -> "Run":
    """A new run of an experiment, which is made when it does not exist, or the run `run_id`, RUNNING again.

    Raises:
        UsageError: the run to go on with does not exist.
    """
    if run_id is None:
        return client.create_run(_ensure_experiment(client, uri, experiment), tags=tags, run_name=run_name)
    return _reopen_run(client, uri, run_id, tags)


def run_url(uri: str, experiment_id: str | None, run_id: str) -> str | None:
    """The run's page, without credentials; None where the store has no server."""
    if experiment_id is None or not uri.startswith(("http://", "https://")):
        return None
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def _reopen_run(client: "MlflowClient", uri: str, run_id: str, tags: dict[str, str]) -> "Run":
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if is_missing(error):
            raise UsageError(f"wanted to go on with the run {run_id}; {redact(uri)} has no such run") from None
        raise
    client.update_run(run_id, status="RUNNING")
    for name, value in tags.items():
        client.set_tag(run_id, name, value)
    return run


def _ensure_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=artifact_location(uri))
        except Exception as error:
            # Another job may have made it in between.
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    return experiment.experiment_id
