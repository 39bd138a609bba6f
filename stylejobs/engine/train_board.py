"""What the driver hears of a running training: the newest numbers and events of rank 0, and why it ended."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stylejobs.engine.progress import JobProgress
from stylejobs.errors import StylejobsError


class Board:
    """An actor between rank 0 and the driver: the newest numbers, and all that was told since it was last read."""

    def __init__(self) -> None:
        self._news: tuple[int, dict[str, float], str] = (0, {}, "")
        self._told: list[str] = []

    def post(self, images_seen: int, losses: dict[str, float], phase: str) -> None:
        self._news = (images_seen, losses, phase)

    def tell(self, text: str) -> None:
        self._told.append(text)

    def read(self) -> tuple[tuple[int, dict[str, float], str], list[str]]:
        told, self._told = self._told, []
        return self._news, told


@contextmanager
def follow(board: Any, num_images: int) -> Iterator[None]:
    """Shows what the board (an actor's handle) says while the training runs: progress, and a line an event."""
    import ray

    ended = threading.Event()

    def show() -> None:
        shown = 0
        with JobProgress("train", num_images, "images") as progress:
            while True:
                last = ended.wait(1.0)
                (seen, losses, phase), told = ray.get(board.read.remote())
                for text in told:
                    print(text, file=sys.stderr)
                totals = {name.removeprefix("loss/"): value for name, value in losses.items()}
                note = " ".join(f"{name} {value:.4g}" for name, value in totals.items() if "/" not in name)
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


def cause(error: BaseException) -> BaseException:
    """Our own error inside what Ray Train wraps around it, if there is one."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        inner = waiting.pop()
        if inner is None or inner in seen:
            continue
        seen.append(inner)
        if isinstance(inner, StylejobsError):
            return inner
        waiting += [inner.__cause__, getattr(inner, "cause", None), *getattr(inner, "worker_failures", {}).values()]
    return error
