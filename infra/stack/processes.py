"""A server on loopback as a process of its own, with a log and a pid file, through several lives."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
"""Where the programs of this environment are."""
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass
class Server:
    """A process on loopback, with a log and a pid file in its folder.

    Attributes:
        line: its command.
        url: where it answers.
        answers: whether it does.
        environment: what it gets beside the caller's own variables.
        tries: how often it is started where it ends before it answers.
        process: of this life; None before and after.
    """

    name: str
    folder: Path
    line: list[str]
    url: str
    answers: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    tries: int = 1
    process: subprocess.Popen | None = None

    @property
    def pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Starts it in a session of its own, so that it outlives this command."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # `python` of what it starts is this one.
        path = f"{BIN}:{os.environ['PATH']}"
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                self.line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={**os.environ, **_QUIET, "PATH": path, **self.environment},
            )  # fmt: skip
        started = psutil.Process(self.process.pid).create_time()
        self.pid_file.write_text(json.dumps({"pid": self.process.pid, "started": started}))

    def wait(self, seconds: float = 180) -> None:
        """Starts it unless it runs, and waits until it answers.

        Raises:
            RuntimeError: it ended, or does not answer in time; with the end of its log.
        """
        if self.process is None:
            self.start()
        deadline, left = time.monotonic() + seconds, self.tries - 1
        while not self.answers():
            if self.process.poll() is not None and left:
                left -= 1
                self.start()
            if self.process.poll() is not None or time.monotonic() > deadline:
                told = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
                raise RuntimeError(f"{self.name} does not answer at {self.url}; {self.log} ends with\n{told}")
            time.sleep(0.2)

    def signal(self, number: int) -> None:
        """A signal to it and to all that it has started."""
        for one in _family(self.pid_file):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to it and all that it has started; it can be started again."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def end(self, patience_seconds: float = 20.0) -> None:
        """SIGTERM to it and all that it has started; SIGKILL to what is left after a while."""
        end(self.pid_file, patience_seconds)
        if self.process is not None:
            self.process.wait()
            self.process = None


def end(pid_file: Path, patience_seconds: float = 20.0) -> bool:
    """Ends the process that a pid file names, and all that it has started; False where it ran no more."""
    family = _family(pid_file)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    _, alive = psutil.wait_procs(family, patience_seconds)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(alive, 10)
    pid_file.unlink(missing_ok=True)
    return bool(family)


def runs(pid_file: Path) -> bool:
    """Whether the process that a pid file names is there."""
    return bool(_family(pid_file))


def _family(pid_file: Path) -> list[psutil.Process]:
    """The process and its descendants; none where it is gone, or its number belongs to another one now."""
    try:
        kept = json.loads(pid_file.read_text())
        process = psutil.Process(kept["pid"])
        if abs(process.create_time() - kept["started"]) > 1.0 or process.status() == psutil.STATUS_ZOMBIE:
            return []
        return [process, *process.children(recursive=True)]
    except (FileNotFoundError, psutil.NoSuchProcess):
        return []


def free_port(wanted: int = 0) -> int:
    """A port of loopback that nobody listens on: the wanted one, if it is free."""
    for port in (wanted, 0):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            return free.getsockname()[1]
    raise OSError("wanted a free port of 127.0.0.1, found none; end some servers")


def answers(url: str) -> bool:
    """Whether a GET there ends with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
