"""A server on loopback that holds one S3 object and is busy at first."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = b"the object"
_BUSY = b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>"


@contextmanager
def busy_at_first(num_refused: int) -> Iterator[str]:
    """The URL of an endpoint that refuses so many reads with 503 SlowDown, and answers all others with `BODY`."""
    left = iter(range(num_refused))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(200, BODY)

        def do_GET(self) -> None:
            status, body = (200, BODY) if next(left, None) is None else (503, _BUSY)
            self._answer(status, body)
            self.wfile.write(body)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
