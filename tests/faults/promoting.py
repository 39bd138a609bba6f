"""The command `promote` as processes of its own, without the seconds that each would need to import MLflow."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Outcome

_RUNNER = """
import json, os, sys
import stylejobs.engine.promote, stylejobs.tracking.aliases, stylejobs.tracking.evidence
from mlflow import MlflowClient, artifacts
from pipelines.promote import main
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if not pid:
        os.environ.update(job["environment"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = main(job["arguments"])
        sys.stdout.flush()
        os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Promotions:
    """Each command is a fork of one process that has everything imported, and is reaped when it ends."""

    def __init__(self, folder: Path, process: subprocess.Popen):
        self._folder, self._process = folder, process

    def start(self, server_uri: str, *arguments: str) -> int:
        """Starts one; its process id."""
        # A request that fails is not tried again: what is lost is lost.
        environment = {"MLFLOW_TRACKING_URI": server_uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        environment |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}
        places = {name: str(self._folder / f"promote.{name}") for name in ("out", "err")}
        job = {"environment": environment, "arguments": arguments, **places}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def finish(self) -> Outcome:
        """Waits for the one that was started; its exit code is negative if a signal ended it."""
        code = int(self._process.stdout.readline())
        return Outcome(code, *((self._folder / f"promote.{name}").read_text() for name in ("out", "err")))

    def run(self, server_uri: str, *arguments: str) -> Outcome:
        self.start(server_uri, *arguments)
        return self.finish()


@contextmanager
def promotions(folder: Path) -> Iterator[Promotions]:
    process = subprocess.Popen(
        [sys.executable, "-c", _RUNNER],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield Promotions(folder, process)
    finally:
        process.stdin.close()
        process.wait(60)


def start_command(folder: Path, server_uri: str, arguments: Sequence[str]) -> subprocess.Popen:
    """The command as people start it, its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.promote", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": server_uri},
    )
