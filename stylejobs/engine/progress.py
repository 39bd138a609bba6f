"""Progress of long work on stderr: a bar with rate and ETA on a terminal, a line a minute in a log."""

import sys
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LOG_EVERY_SECONDS = 60.0


class JobProgress:
    """Counts items of one kind; `total` None when it is not known beforehand.

    with JobProgress("stylize", total=1000, unit="images") as progress:
        progress.advance(20, "0 bad")
    """

    def __init__(self, verb: str, total: int | None, unit: str, done: int = 0):
        self._verb, self._total, self._unit = verb, total, unit
        self._first, self._done, self._note = done, done, ""
        self._started = self._logged = time.monotonic()
        console = Console(stderr=True)
        self._bar = _bar(console) if console.is_terminal else None

    def __enter__(self) -> "JobProgress":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._verb, total=self._total, completed=self._done, note="starting")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        else:
            self._log()

    def advance(self, count: int, note: str = "") -> None:
        """`count` more items are done; `note` says what else is worth knowing."""
        self._done += count
        self._note = note
        if self._bar:
            self._bar.update(self._task, advance=count, note=", ".join(filter(None, [self._rate_text(), note])))
        elif time.monotonic() - self._logged >= _LOG_EVERY_SECONDS:
            self._log()

    @property
    def rate(self) -> float:
        """Items a second since the start."""
        return (self._done - self._first) / max(1e-9, time.monotonic() - self._started)

    def _rate_text(self) -> str:
        return f"{self.rate:.1f} {self._unit}/s"

    def _log(self) -> None:
        self._logged = time.monotonic()
        parts = [f"{self._done:,}" + (f"/{self._total:,}" if self._total else "") + f" {self._unit}", self._rate_text()]
        if self._total and self._done < self._total and self.rate > 0:
            parts.append(f"ETA {timedelta(seconds=round((self._total - self._done) / self.rate))}")
        print(f"{self._verb}: " + ", ".join(filter(None, [*parts, self._note])), file=sys.stderr, flush=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
