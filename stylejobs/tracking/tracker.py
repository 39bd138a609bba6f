"""What a job tells about itself, and to whom: the abstract tracker, one that ignores all, one that remembers all.

Nothing here knows MLflow (see `mlflow_tracker`). Training and jobs take a `Tracker` and never ask which one it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class Delivery:
    """What became of everything that was logged.

    Attributes:
        num_delivered: metric values, params, tags, datasets, images, texts and files that the tracking server has.
        num_lost: those that it does not have and will not get.
        first_error: why the first of them was lost, or why the run could not be closed; no credentials in it.
    """

    num_delivered: int = 0
    num_lost: int = 0
    first_error: str | None = None

    @property
    def complete(self) -> bool:
        """True when nothing is missing."""
        return self.num_lost == 0 and self.first_error is None


@dataclass(frozen=True)
class Backlog:
    """What the tracking server does not have yet: how many items, and for how long it has not had everything [s]."""

    num_waiting: int = 0
    seconds: float = 0.0


class Tracker(ABC):
    """Where params, metrics, images and files of one run go.

    No `log_*` or `set_tags` call raises because of the tracking server. As a context manager it finishes the run:
    FINISHED, or KILLED on KeyboardInterrupt and SystemExit, or FAILED on any other exception (which goes on).

    Attributes:
        run_id: the run's id, or None where there is no server.
        url: the run's page for a person, without credentials, or None.
    """

    run_id: str | None = None
    url: str | None = None

    @abstractmethod
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Records settings, `str(value)` each; a name keeps its first value."""

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Records numbers at a step; not-a-number and infinity are allowed."""

    @abstractmethod
    def log_image(self, image_HWC: np.ndarray, name: str, step: int) -> None:
        """Records an RGB uint8 image at a step."""

    @abstractmethod
    def log_file(self, local_path: str, folder: str = "") -> None:
        """Records a file, as `folder/<file name>` of the run's artifacts."""

    @abstractmethod
    def log_text(self, text: str, path: str) -> None:
        """Records a text as the file `path` of the run's artifacts."""

    @abstractmethod
    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags, `str(value)` each; the last value of a name counts."""

    @abstractmethod
    def log_dataset(
        self, name: str, source_uri: str, digest: str, context: str, profile: Mapping[str, Any] | None = None
    ) -> None:
        """Records data that the run reads.

        Args:
            name: of the data; with `digest` it says which data this is, so that a run has each pair once, with the
                context that came first. A set that is read in two roles needs two names.
            source_uri: where it lies.
            digest: of its content.
            context: what the run reads it for, such as "training".
            profile: what is true of the data in every run, such as its number of rows; numbers and texts.
        """

    def backlog(self) -> Backlog:
        """What waits to be delivered."""
        return Backlog()

    def undelivered_metrics(self) -> list[list]:
        """Numbers that the server is not known to have, as `log_again` takes them:
        [name, value, time in ms, step] each."""
        return []

    @abstractmethod
    def log_again(self, metrics: list[list]) -> None:
        """Records what `undelivered_metrics` gave in another process; what the server has after all stays single."""

    @abstractmethod
    def finish(self, status: Status = "FINISHED") -> Delivery:
        """Delivers what is still waiting and closes the run. Never raises; a second call changes nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish("FINISHED")
        else:
            self.finish("KILLED" if issubclass(kind, KeyboardInterrupt | SystemExit) else "FAILED")


class NullTracker(Tracker):
    """Ignores everything: for ranks other than 0, and for jobs without tracking."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Ignored."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Ignored."""

    def log_again(self, metrics: list[list]) -> None:
        """Ignored."""

    def log_image(self, image_HWC: np.ndarray, name: str, step: int) -> None:
        """Ignored."""

    def log_file(self, local_path: str, folder: str = "") -> None:
        """Ignored."""

    def log_text(self, text: str, path: str) -> None:
        """Ignored."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Ignored."""

    def log_dataset(
        self, name: str, source_uri: str, digest: str, context: str, profile: Mapping[str, Any] | None = None
    ) -> None:
        """Ignored."""

    def finish(self, status: Status = "FINISHED") -> Delivery:
        """Nothing was logged, so nothing is missing."""
        return Delivery()


@dataclass
class MemoryTracker(Tracker):
    """Remembers everything: the tracker for tests.

    Attributes:
        metrics: name -> [(step, value), ...] in the order logged.
        images: (name, step) -> a copy of the image; `files` and `texts` by artifact path.
        datasets: (name, digest) -> (source URI, context, profile).

    >>> tracker = MemoryTracker()
    >>> tracker.log_metrics({"loss": 0.5}, step=10)
    >>> tracker.metrics
    {'loss': [(10, 0.5)]}
    """

    run_id: str | None = "memory"
    url: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    images: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: dict[tuple[str, str], tuple[str, str, dict[str, Any]]] = field(default_factory=dict)
    status: Status | None = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keeps the first value of each name, as MLflow does."""
        for name, value in params.items():
            self.params.setdefault(name, str(value))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Appends to each metric's history."""
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append((step, float(value)))

    def log_again(self, metrics: list[list]) -> None:
        """Appends to each metric's history."""
        for name, value, _, step in metrics:
            self.log_metrics({name: value}, step)

    def log_image(self, image_HWC: np.ndarray, name: str, step: int) -> None:
        """Keeps a copy."""
        self.images[name, step] = np.array(image_HWC)

    def log_file(self, local_path: str, folder: str = "") -> None:
        """Keeps the file's bytes."""
        name = local_path.rstrip("/").rsplit("/", 1)[-1]
        with open(local_path, "rb") as file:
            self.files[f"{folder}/{name}" if folder else name] = file.read()

    def log_text(self, text: str, path: str) -> None:
        """Keeps the text."""
        self.texts[path] = text

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Keeps the last value of each name."""
        self.tags.update({name: str(value) for name, value in tags.items()})

    def log_dataset(
        self, name: str, source_uri: str, digest: str, context: str, profile: Mapping[str, Any] | None = None
    ) -> None:
        """Keeps the first of each name and digest, as MLflow does."""
        self.datasets.setdefault((name, digest), (source_uri, context, dict(profile or {})))

    def finish(self, status: Status = "FINISHED") -> Delivery:
        """Keeps the first status."""
        self.status = self.status or status
        num_metrics = sum(len(history) for history in self.metrics.values())
        others = (self.params, self.tags, self.datasets, self.images, self.files, self.texts)
        return Delivery(num_delivered=num_metrics + sum(len(kept) for kept in others))
