"""`submit` as processes that tests follow, kill, and ask how they ended."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.ray_nodes import Cluster
from tests.conftest import Outcome


@dataclass
class Sent:
    """A command whose words go to files, which no full pipe can hold up."""

    process: subprocess.Popen
    out: Path
    err: Path

    def ended(self, timeout: float = 600) -> Outcome:
        """Waits for its end."""
        self.process.wait(timeout)
        return Outcome(self.process.returncode, self.out.read_text(), self.err.read_text())

    def wait_until(self, true: Callable[[], bool], timeout: float = 300) -> None:
        """Waits for something that must come while the command runs."""
        deadline = time.monotonic() + timeout
        while not true():
            assert self.process.poll() is None and time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.2)

    def wait_for(self, words: str) -> None:
        """Waits until it has said this."""
        self.wait_until(lambda: words in self.err.read_text())


@pytest.fixture
def send(tmp_path: Path, tracking_store: str) -> Iterator[Callable[..., Sent]]:
    """send(cluster, verb, *arguments, **environment): in the test's folder, allowed to use the cluster."""
    sent: list[Sent] = []
    numbers = itertools.count()

    def call(cluster: Cluster, verb: str, *arguments: str, **environment: str) -> Sent:
        line = [sys.executable, "-m", "pipelines.submit", verb, f"address={cluster.url}", *arguments]
        env = {**os.environ, **cluster.environment, "MLFLOW_TRACKING_URI": tracking_store, **environment}
        number = next(numbers)
        out, err = (tmp_path / f"submit-{number}.{stream}" for stream in ("out", "err"))
        with open(out, "w") as out_file, open(err, "w") as err_file:
            process = subprocess.Popen(line, cwd=tmp_path, stdout=out_file, stderr=err_file, text=True, env=env)
        sent.append(Sent(process, out, err))
        return sent[-1]

    yield call
    for one in sent:
        one.process.kill()
        one.process.wait()
