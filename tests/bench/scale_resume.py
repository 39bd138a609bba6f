"""Number 2: what it costs to go on with a job that is 95 % done, in bytes of the source and in time.

The source lies on an S3 server of this process that counts the bytes which leave it, so that what is counted is what
is read, by whomever and with all read-ahead, and not what we say of ourselves. The command runs as people run it.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.pictures import photo_crops, write_model, write_parquet

BUCKET = "bench"
SIDES_PX = (640, 720, 800, 900, 1024)
ROWS_A_UNIT, UNITS_A_FILE = 16, 10  # 1.7 MB a unit; in smaller ones the 64 kB that reading a footer takes count


class CountingServer:
    """A WSGI application that counts what it sends of objects of one prefix."""

    def __init__(self, application: Callable, prefix: str):
        self._application, self._prefix = application, prefix
        self._sent: list[tuple[float, int]] = []  # appending is atomic: many threads do

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        counts = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].startswith(self._prefix)
        for part in self._application(environ, start_response):
            if counts:
                self._sent.append((time.time(), len(part)))
            yield part

    def num_bytes(self, start: float, end: float) -> int:
        """What was sent between two moments."""
        return sum(size for moment, size in self._sent if start <= moment < end)


@contextmanager
def s3_server() -> Iterator[tuple[str, CountingServer]]:
    """An S3 server on loopback; its endpoint and its counter."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Requests are counted, not listed."""

    counting = CountingServer(DomainDispatcherApplication(create_backend_app), f"/{BUCKET}/source/")
    server = make_server("127.0.0.1", 0, counting, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", counting
    finally:
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Run:
    """One run of the command.

    Attributes:
        first_seconds: until its first new file.
        num_bytes: read of the source; `report_bytes` of them when all units were done.
    """

    seconds: float
    first_seconds: float
    units_done: int
    num_bytes: int
    report_bytes: int


def fill(place: Path, num_units: int, filesystem: object) -> int:
    """The source, a row group a unit; its bytes."""
    num_bytes = 0
    images = photo_crops(num_units * ROWS_A_UNIT, SIDES_PX)
    for number in range(-(-num_units // UNITS_A_FILE)):
        units = min(UNITS_A_FILE, num_units - number * UNITS_A_FILE)
        part = [next(images) for _ in range(units * ROWS_A_UNIT)]
        path = write_parquet(place / f"{number:04d}.parquet", part, ROWS_A_UNIT)
        filesystem.pipe_file(f"{BUCKET}/source/{path.name}", path.read_bytes())
        num_bytes += path.stat().st_size
    return num_bytes


def forget(dest: Path, fraction: float) -> int:
    """Takes the markers and the files of some units away, spread over the job; how many."""
    markers = sorted((dest / "_stylejobs" / "units").glob("*.json"))
    num = max(1, round(fraction * len(markers)))
    for number in range(num):
        marker = markers[number * len(markers) // num]
        (dest / json.loads(marker.read_text())["file"]).unlink()
        marker.unlink()
    return num


def run_command(dest: Path, package: str, endpoint: str, counting: CountingServer) -> Run:
    """The command, once."""
    words = [f"source=s3://{BUCKET}/source", f"dest={dest}", f"model={package}", "unit_mb=0.001"]
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.stylize", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **_environment(endpoint), "MLFLOW_TRACKING_URI": f"sqlite:///{dest.parent}/mlflow.db"},
    )
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"stylize ended with {done.returncode}:\n{done.stderr[-4000:]}")
    written = [path.stat().st_mtime for path in (dest / "data").iterdir()]
    new = [moment for moment in written if moment > started]
    return Run(
        seconds=ended - started,
        first_seconds=min(new) - started,
        units_done=json.loads(done.stdout.splitlines()[-1])["units"]["done"],
        num_bytes=counting.num_bytes(started, ended),
        report_bytes=counting.num_bytes(max(new), ended),
    )


def measure(scratch: Path, num_units: int) -> tuple[Run, Run, int]:
    """The full run, the resumed one, and the bytes of the source."""
    package = write_model(scratch, "moments")
    with s3_server() as (endpoint, counting):
        import fsspec

        s3 = fsspec.filesystem("s3", endpoint_url=endpoint, key="bench", secret="bench")
        s3.mkdir(BUCKET)
        num_bytes = fill(scratch / "photos", num_units, s3)
        full = run_command(scratch / "made", package, endpoint, counting)
        forget(scratch / "made", 0.05)
        resumed = run_command(scratch / "made", package, endpoint, counting)
    return full, resumed, num_bytes


def _environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


if __name__ == "__main__":
    print(measure(Path(sys.argv[1]), int(sys.argv[2])))
