"""What the driver hears of a running training: the newest numbers and events of rank 0, and why it ended."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stylejobs import errors
from stylejobs.engine.progress import JobProgress


class Board:
    """An actor between rank 0 and the driver: the newest numbers, and all that was told since it was last read."""

    def __init__(self) -> None:
        self._news: tuple[int, dict[str, float], str] = (0, {}, "")
        self._told: list[str] = []
        self._failure: tuple[str, str] | None = None

    def post(self, images_seen: int, losses: dict[str, float], phase: str) -> None:
        self._news = (images_seen, losses, phase)

    def tell(self, text: str) -> None:
        self._told.append(text)

    def fail(self, kind: str, text: str) -> None:
        """An error of ours, by the name of its class; the first one counts."""
        self._failure = self._failure or (kind, text)

    def has_failed(self) -> bool:
        return self._failure is not None

    def failure(self) -> tuple[str, str] | None:
        return self._failure

    def read(self) -> tuple[tuple[int, dict[str, float], str], list[str]]:
        told, self._told = self._told, []
        return self._news, told


@contextmanager
def follow(board: Any, num_images: int, done: int) -> Iterator[None]:
    """Shows what the board (an actor's handle) says while the training runs: progress, and a line an event.

    Args:
        done: images that were seen before, of `num_images`.
    """
    import ray

    ended = threading.Event()

    def show() -> None:
        shown = done
        with JobProgress("train", num_images, "images", done) as progress:
            while True:
                last = ended.wait(1.0)
                try:
                    (seen, losses, phase), told = ray.get(board.read.remote())
                except ray.exceptions.RayError:
                    return  # the cluster is gone, which the training itself will say
                for text in told:
                    print(text, file=sys.stderr)
                totals = {name.removeprefix("loss/"): value for name, value in losses.items()}
                note = " ".join(f"{name} {value:.4g}" for name, value in totals.items() if "/" not in name)
                # Workers that start again go back to their checkpoint; the bar waits for them.
                seen = max(seen, shown)
                progress.advance(seen - shown, f"{phase}: {note}" if phase not in ("", "train") else note)
                shown = seen
                if last:
                    return

    thread = threading.Thread(target=show, name="train-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)


def cause(error: BaseException, board: Any) -> BaseException:
    """Why a training ended: an error of ours, if a worker left one or one is inside what Ray Train wraps around it.

    Lost workers are an error of the cluster, memory that ran out one of the training; anything else is given back.
    """
    import ray

    with contextlib.suppress(ray.exceptions.RayError):  # the board may be what was lost
        if told := ray.get(board.failure.remote(), timeout=30):
            kind, text = told
            return getattr(errors, kind)(text)
    found = list(_inside(error))
    for inner in found:
        if isinstance(inner, errors.StylejobsError):
            return inner
        if isinstance(inner, ray.exceptions.OutOfMemoryError):
            return errors.TrainingError(
                f"the machine had no memory left for a worker ({_first_line(inner)}); lower batch, size_px or "
                "generator.width, or give each worker more of the machine (workers, worker_cpus)"
            )
    lost = next((inner for inner in found if isinstance(inner, ray.exceptions.RayError | _LOST)), None)
    if lost is not None:
        return errors.ClusterError(
            f"lost workers more often than max_failures allows; the last time: {_first_line(lost)}"
        )
    return error


_LOST = (ConnectionError, TimeoutError)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _inside(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it wraps."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        inner = waiting.pop()
        if inner is None or inner in seen:
            continue
        seen.append(inner)
        yield inner
        waiting += [inner.__cause__, getattr(inner, "cause", None), *getattr(inner, "worker_failures", {}).values()]
