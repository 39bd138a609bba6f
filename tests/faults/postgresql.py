"""A PostgreSQL of a test's own: Debian's binaries, a folder that is thrown away, a free port of this machine."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.stack.processes import free_port

_USERS = ("postgres", "nobody")


@contextmanager
def postgresql() -> Iterator[str]:
    """The URI of an empty database. Skips the test where PostgreSQL is not installed."""
    binaries = _binaries()
    # Not below pytest's folders: these are closed to the user that a server started by root must run as.
    folder = Path(tempfile.mkdtemp(prefix="stylejobs-postgresql-"))
    port = free_port()
    try:
        with _server(binaries, folder, port):
            yield f"postgresql+psycopg2://stylejobs@127.0.0.1:{port}/stylejobs"
    finally:
        shutil.rmtree(folder)


@contextmanager
def _server(binaries: Path, folder: Path, port: int) -> Iterator[None]:
    user = _other_user(folder)
    data = str(folder / "data")
    line = [binaries / "initdb", "-D", data, "-U", "stylejobs", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
    subprocess.run(line, check=True, capture_output=True, cwd=folder, **user)
    place = ["-h", "127.0.0.1", "-p", str(port)]
    with open(folder / "server.log", "w") as log:
        line = [binaries / "postgres", "-D", data, *place, "-k", str(folder), "-F"]
        server = subprocess.Popen(line, cwd=folder, stdout=log, stderr=log, **user)
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([binaries / "pg_isready", "-q", *place]).returncode:
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.1)
        subprocess.run([binaries / "createdb", *place, "-U", "stylejobs", "stylejobs"], check=True)
        yield
    finally:
        server.terminate()
        server.wait(60)


def _binaries() -> Path:
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *filter(None, [shutil.which("initdb")])]
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    return Path(found[0]).parent


def _other_user(folder: Path) -> dict[str, int]:
    """PostgreSQL refuses to run as root: then the folder belongs to another user, who runs it."""
    if os.getuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(known[name] for name in _USERS if name in known)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
