"""The tracker that writes to MLflow, from the driver or from a worker process.

Built on MlflowClient alone: no global tracking URI, no active run, so several runs can live in one process. Models and
aliases are in `registry`.
"""

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stylejobs.tracking.client import open_client, reaching, redact, tracking_uri
from stylejobs.tracking.outbox import Lane, Outbox
from stylejobs.tracking.runs import open_run, run_url
from stylejobs.tracking.tracker import Backlog, Delivery, Status, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowTracker", "tracking_uri"]

log = logging.getLogger(__name__)

END_SECONDS = 10.0
"""For the run's status when `flush_seconds` are over: a server that takes nothing shall not hold the job's end."""
MOST_DIGEST_CHARACTERS = 36
"""MLflow refuses longer digests of datasets."""


class MlflowTracker(Tracker):
    """One MLflow run.

    Everything but files is delivered by a background thread: metrics in batches, repeated until the server takes them.
    What waits is bounded (`max_metrics` values, 10 000 params and tags each, 1 000 datasets, 256 images and texts);
    beyond that the oldest is dropped and counted. `finish` delivers the rest for at most `flush_seconds`. It never
    raises: what is missing is in the `Delivery` that it returns, and its first cause is logged once as a warning.

    No point of a metric can be taken back. A training that goes on from a checkpoint logs the steps since then again:
    the run then has two points at such a step. Of two points at the last step MLflow shows the later as the value.

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
        self.url = run_url(uri, experiment_id, run_id)
        self._client = client
        self._owns_run = owns_run
        self._flush_seconds = flush_seconds
        self._delivery: Delivery | None = None
        self._finishing = threading.Lock()
        lanes = {
            "metrics": Lane(self._send_metrics, batch=1000, bound=max_metrics),
            "params": Lane(self._send_params, batch=100, bound=10_000),
            "tags": Lane(self._send_tags, batch=100, bound=10_000),
            "datasets": Lane(self._send_datasets, batch=100, bound=1000),
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
            run = open_run(client, uri, experiment, run_name, texts, run_id)
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

    def log_dataset(
        self, name: str, source_uri: str, digest: str, context: str, profile: Mapping[str, Any] | None = None
    ) -> None:
        """Records an input of the run; credentials in URLs are taken out, a long digest is whole in the profile only.

        MLflow keeps URI and profile of a name and digest once for all runs of an experiment, as they first came.
        """
        source_uri = redact(source_uri)
        scheme, is_uri, _ = source_uri.partition("://")
        described = {"digest": digest, **(profile or {})}
        dataset = {
            "name": name,
            "digest": digest[:MOST_DIGEST_CHARACTERS],
            # In the words of MLflow's own sources, for its UI and `mlflow.data.get_source`.
            "source_type": scheme if is_uri and scheme != "file" else "local",
            "source": json.dumps({"uri": source_uri}),
            "profile": json.dumps({key: _plain(value) for key, value in described.items()}),
        }
        self._outbox.put("datasets", [(dataset, redact(context))])

    def backlog(self) -> Backlog:
        """What waits to be delivered, and for how long something has."""
        return self._outbox.backlog()

    def undelivered_metrics(self) -> list[list]:
        """Of all that were logged here, those that wait or are on their way."""
        return [list(value) for value in self._outbox.left("metrics")]

    def log_again(self, metrics: list[list]) -> None:
        """With the time at which they were logged first: MLflow keeps one of two points that are equal in all."""
        self._outbox.put("metrics", [tuple(value) for value in metrics])

    def finish(self, status: Status = "FINISHED") -> Delivery:
        """Delivers what waits, then sets the run's status (driver only). Never raises.

        Takes at most `flush_seconds`, and `END_SECONDS` more for the status of a server that did not answer.
        """
        with self._finishing:
            if self._delivery is None:
                deadline = time.monotonic() + self._flush_seconds
                delivery = self._outbox.close(self._flush_seconds)
                end_seconds = max(END_SECONDS, deadline - time.monotonic())
                error = self._end_run(status, end_seconds) if self._owns_run else None
                self._delivery = Delivery(delivery.num_delivered, delivery.num_lost, delivery.first_error or error)
            return self._delivery

    def _end_run(self, status: Status, seconds: float) -> str | None:
        """Why the run could not be ended, or None."""

        def send(batch: list[Status]) -> None:
            self._client.set_terminated(self.run_id, batch[0])

        # An outbox of its own bounds the time: one call to a server that hangs takes a minute.
        outbox = Outbox({"status": Lane(send, batch=1, bound=1)}, redact(self.uri))
        outbox.put("status", [status])
        reason = outbox.close(seconds).first_error
        return None if reason is None else f"the run could not be marked {status}: {reason}"

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

    def _send_datasets(self, datasets: list[tuple[dict[str, str], str]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", context)])
            for dataset, context in datasets
        ]
        self._client.log_inputs(self.run_id, inputs)


def _plain(value: Any) -> Any:
    """As JSON has it: numbers and None as they are, all else as text."""
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): redact(str(value)) for name, value in values.items()}
