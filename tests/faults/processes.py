"""Commands as processes of their own, and what they have started."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Job:
    """A running command."""

    def __init__(self, folder: Path, dest: str, line: list[str], environment: dict[str, str], verb: str = "stylize"):
        self.dest = folder / dest
        self._out = open(folder / f"{dest}-{len(list(folder.glob('*.out')))}.out", "w")  # noqa: SIM115
        where = [f"dest={dest}"] if verb == "stylize" else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"pipelines.{verb}", *line, *where],
            cwd=folder, stdout=self._out, stderr=self._out, start_new_session=True, env={**os.environ, **environment},
        )  # fmt: skip

    def units_done(self) -> int:
        return len(list((self.dest / "_stylejobs" / "units").glob("*.json")))

    def wait_for_units(self, count: int, timeout: float = 180) -> None:
        deadline = time.monotonic() + timeout
        while self.units_done() < count:
            assert self.process.poll() is None, f"the job ended before {count} units: {self.text()}"
            assert time.monotonic() < deadline, f"{self.units_done()} of {count} units in {timeout} s: {self.text()}"
            time.sleep(0.02)

    def finish(self, timeout: float = 240) -> tuple[int, dict]:
        """Exit code and result."""
        code = self.process.wait(timeout)
        last = self.text().strip().splitlines()[-1:]
        return code, json.loads(last[0]) if last and last[0].startswith("{") else {}

    def text(self) -> str:
        self._out.flush()
        return Path(self._out.name).read_text()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Whatever is left of it: the session that the command started is its own."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        self._out.close()


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they started; the children before their children."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def named(pids: list[int], beginning: str) -> list[int]:
    """Those whose command line begins so."""
    found = []
    for pid in pids:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if line.rpartition("/")[2].startswith(beginning) or line.startswith(beginning):
            found.append(pid)
    return found
