"""The tracker that writes to MLflow, from the driver or from a worker process.

Built on MlflowClient alone: no global tracking URI, no active run, so several runs can live in one process. Models and
aliases are in `registry`.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np

from stylejobs.errors import UsageError
from stylejobs.tracking.client import (
    artifact_location,
    error_code,
    is_missing,
    open_client,
    reaching,
    redact,
    tracking_uri,
)
from stylejobs.tracking.outbox import Lane, Outbox
from stylejobs.tracking.tracker import Delivery, Status, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["MlflowTracker", "tracking_uri"]

log = logging.getLogger(__name__)


class MlflowTracker(Tracker):
    """One MLflow run.

    Everything but files is delivered by a background thread: metrics in batches, repeated until the server takes them.
    What waits is bounded (`max_metrics` values, 10 000 params and tags each, 256 images and texts); beyond that the
    oldest is dropped and counted. `finish` delivers the rest for at most `flush_seconds`. It never raises: what is
    missing is in the `Delivery` that it returns, and its first cause is logged once as a warning.

    Args:
        client: the client to send with; tests pass one that fails.
        run_id: an existing run.
        uri: the server, for messages and the link.
        experiment_id: for the link.
        owns_run: False in a worker: `finish` delivers but leaves the run's status to the driver.
    """

    def __init__(
        self,
        client: "MlflowClient",
        run_id: str,
        *,
        uri: str,
        experiment_id: str | None = None,
        owns_run: bool = True,
        max_metrics: int = 100_000,
        flush_seconds: float = 60.0,
    ) -> None:
        self.run_id = run_id
        self.uri = uri
        self.url = _run_url(uri, experiment_id, run_id)
        self._client = client
        self._owns_run = owns_run
        self._flush_seconds = flush_seconds
        self._delivery: Delivery | None = None
        self._finishing = threading.Lock()
        lanes = {
            "metrics": Lane(self._send_metrics, batch=1000, bound=max_metrics),
            "params": Lane(self._send_params, batch=100, bound=10_000),
            "tags": Lane(self._send_tags, batch=100, bound=10_000),
            "artifacts": Lane(lambda calls: calls[0](), batch=1, bound=256),
        }
        self._outbox = Outbox(lanes, redact(uri))

    @classmethod
    def start(
        cls,
        experiment: str,
        run_name: str,
        tags: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        client: "MlflowClient | None" = None,
    ) -> Self:
        """Starts a run on `tracking_uri()`, or goes on with the run `run_id`; for the driver.

        Args:
            experiment: its name; made when it does not exist.
            tags: set on the run.
            run_id: of a run to go on with (a resumed training); its status becomes RUNNING again.
            client: to use instead of opening one.

        Raises:
            RegistryError: the server cannot be reached.
            UsageError: the run to go on with does not exist; the experiment was deleted, or its name is not allowed.
        """
        uri = tracking_uri()
        client = client or open_client(uri)
        texts = _texts(tags or {})
        with reaching(uri):
            if run_id is None:
                run = client.create_run(_ensure_experiment(client, uri, experiment), tags=texts, run_name=run_name)
            else:
                run = _reopen_run(client, uri, run_id, texts)
        return cls(client, run.info.run_id, uri=uri, experiment_id=run.info.experiment_id)

    @classmethod
    def attach(cls, tracking_uri: str, run_id: str, *, client: "MlflowClient | None" = None) -> Self:
        """Joins a run that a driver started; for a worker process. Asks the server nothing.

        Args:
            tracking_uri: the driver's `tracker.uri`; may hold credentials, so keep it out of logs.
            run_id: the driver's `tracker.run_id`.

        Raises:
            RegistryError: the store cannot be opened.
        """
        return cls(client or open_client(tracking_uri), run_id, uri=tracking_uri, owns_run=False)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Records settings; credentials in URLs are taken out. A changed value of a name is refused and counted."""
        self._outbox.put("params", _texts(params).items())

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Records numbers at a step and the present time; a value that is not a number is counted as lost."""
        now_ms = time.time_ns() // 1_000_000
        values = []
        for name, value in metrics.items():
            try:
                values.append((name, float(value), now_ms, int(step)))
            except (TypeError, ValueError, RuntimeError) as error:
                self._outbox.lose(1, f"metric {name!r} is not a number: {error}")
        self._outbox.put("metrics", values)

    def log_image(self, image_HWC: np.ndarray, name: str, step: int) -> None:
        """Records an RGB uint8 image; copied now, encoded and sent later."""
        image_HWC = np.array(image_HWC)
        self._outbox.put(
            "artifacts",
            [lambda: self._client.log_image(self.run_id, image_HWC, key=name, step=int(step), synchronous=True)],
        )

    def log_file(self, local_path: str, folder: str = "") -> None:
        """Uploads a file before it returns, since the caller may delete it next; never raises.

        When the server does not take it, it is tried again later, with what the file holds then.
        """

        def upload() -> None:
            self._client.log_artifact(self.run_id, local_path, folder or None)

        if self._outbox.is_failing("artifacts") or self._delivery is not None:
            self._outbox.put("artifacts", [upload])
            return
        try:
            upload()
        except Exception as error:
            log.debug("tracking: %s goes to the outbox: %s", local_path, redact(str(error)))
            self._outbox.put("artifacts", [upload])
        else:
            self._outbox.count(1)

    def log_text(self, text: str, path: str) -> None:
        """Records a text as the file `path` of the run's artifacts."""
        self._outbox.put("artifacts", [lambda: self._client.log_text(self.run_id, text, path)])

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; credentials in URLs are taken out."""
        self._outbox.put("tags", _texts(tags).items())

    def finish(self, status: Status = "FINISHED") -> Delivery:
        """Delivers what waits, for at most `flush_seconds`, then sets the run's status (driver only). Never raises."""
        with self._finishing:
            if self._delivery is None:
                delivery = self._outbox.close(self._flush_seconds)
                error = self._end_run(status) if self._owns_run else None
                self._delivery = Delivery(delivery.num_delivered, delivery.num_lost, delivery.first_error or error)
            return self._delivery

    def _end_run(self, status: Status) -> str | None:
        for wait_seconds in (0.5, 2.0, None):
            try:
                self._client.set_terminated(self.run_id, status)
                return None
            except Exception as error:
                reason = f"the run could not be marked {status}: {' '.join(redact(str(error)).split())}"
            if wait_seconds is not None:
                time.sleep(wait_seconds)
        log.warning("tracking: %s", reason)
        return reason

    def _send_metrics(self, values: list[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        # The time was taken when the value was logged: MLflow keeps one of two equal (name, time, step, value), so
        # sending a batch again adds nothing twice.
        self._client.log_batch(self.run_id, metrics=[Metric(*value) for value in values], synchronous=True)

    def _send_params(self, params: list[tuple[str, str]]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self.run_id, params=[Param(*param) for param in params], synchronous=True)

    def _send_tags(self, tags: list[tuple[str, str]]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(*tag) for tag in tags], synchronous=True)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): redact(str(value)) for name, value in values.items()}


def _run_url(uri: str, experiment_id: str | None, run_id: str) -> str | None:
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
