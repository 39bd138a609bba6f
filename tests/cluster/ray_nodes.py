"""Ray nodes as processes of their own, on loopback, with their own ports and folders, and a token."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.processes import descendants

_SESSION_SECONDS = 180


@dataclass
class Head:
    """A head node that wants a token.

    Attributes:
        environment: for commands that may use it; without the token's variables they are refused.
    """

    folder: Path
    port: int
    dashboard_port: int
    token: str
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        # `python` of a job is the one of these tests.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        line = [
            Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={self.port}",
            "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard_port}",
            f"--dashboard-agent-listen-port={_free_port()}",  # its default belongs to the first Ray of a machine
            "--num-cpus=3", f"--object-store-memory={150 * 2**20}", f"--temp-dir={self.folder}/ray",
            "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats",
        ]  # fmt: skip
        with open(self.folder / "head.log", "a") as log:
            self.process = subprocess.Popen(
                line, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={**os.environ, **self.environment, "PATH": path, "RAY_worker_niceness": "0"},
            )  # fmt: skip
        deadline = time.monotonic() + _SESSION_SECONDS
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < deadline, (self.folder / "head.log").read_text()
            time.sleep(0.3)

    def _answers(self) -> bool:
        request = urllib.request.Request(f"{self.url}/api/version", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL to all that it has started, and to it."""
        if self.process is None:
            return
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


@contextlib.contextmanager
def ray_head() -> Iterator[Head]:
    """A head node with a token of its own, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="head-"))  # short: the paths of Ray's sockets are limited to 107 characters
    token = secrets.token_hex(16)
    head = Head(folder, _free_port(), _free_port(), token)
    head.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "HOME": str(folder)}
    try:
        head.start()
        yield head
    finally:
        head.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
