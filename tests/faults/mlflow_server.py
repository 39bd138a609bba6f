"""A real MLflow server that is killed, hangs and comes back, and a doorman who decides what reaches it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.faults.processes import descendants


class Server:
    """`mlflow server` on one store and one port, through several lives.

    Args:
        folder: of its log, and of what is not said to be elsewhere.
        store, files: URIs of the database and the artifacts; an SQLite file and a folder by default.
        environment: more of it, such as the S3 server of the artifacts.
    """

    def __init__(
        self,
        folder: Path,
        store: str | None = None,
        files: str | None = None,
        environment: dict[str, str] | None = None,
    ):
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.database = folder / "mlflow.db"
        self._folder = folder
        self._store, self._files = store or f"sqlite:///{self.database}", files or str(folder / "files")
        self._environment = environment or {}
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        store = ["--backend-store-uri", self._store, "--artifacts-destination", self._files]
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with open(self._folder / "server.log", "a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *place],
                cwd=self._folder, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **self._environment},
            )  # fmt: skip

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait(self, timeout: float = 120) -> None:
        if self._process is None:
            self.start()
        deadline = time.monotonic() + timeout
        while not self.answers():
            waiting = self._process.poll() is None and time.monotonic() < deadline
            assert waiting, (self._folder / "server.log").read_text()
            time.sleep(0.1)

    def signal(self, number: int) -> None:
        if self._process is None:
            return
        for pid in [*descendants(self._process.pid), self._process.pid]:
            os.kill(pid, number)
        if number == signal.SIGKILL:
            self._process.wait()
            self._process = None


class Doorman:
    """Stands before a server: every request asks `let` first, with a line such as "POST registered-models/alias".

    What `let` refuses (by returning False) never reaches the server; the connection is closed without an answer.
    """

    def __init__(self, server_uri: str, let: Callable[[str], bool]):
        doorman = self
        self.let = let
        self.seen: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                line = f"{self.command} {self.path.partition('?')[0].removeprefix('/api/2.0/mlflow/')}"
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                doorman.seen.append(line)
                if not doorman.let(line):
                    self.close_connection = True
                    return
                status, headers, data = _send(server_uri + self.path, self.command, dict(self.headers), body)
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = forward

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _send(url: str, method: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "accept-encoding")}
    request = urllib.request.Request(url, body or None, kept, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
