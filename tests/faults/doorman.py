"""A doorman before a real MLflow server, who decides what reaches it."""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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
