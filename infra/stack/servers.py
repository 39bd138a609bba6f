"""Servers on loopback as processes of their own: an S3 server, MLflow, Ray nodes with a token.

The stack of `make stack-up` and the tests start them in the same way.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_BIN = Path(sys.executable).parent
# Ray replaces 127.0.0.1 by an address that the network reaches; another one of loopback it takes as it is.
RAY_IP = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
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
        path = f"{_BIN}:{os.environ['PATH']}"
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


@dataclass(frozen=True)
class S3Keys:
    """Who may write, and who may only read."""

    key: str = field(default_factory=lambda: secrets.token_hex(10))
    secret: str = field(default_factory=lambda: secrets.token_hex(20))
    reader_key: str = field(default_factory=lambda: secrets.token_hex(10))
    reader_secret: str = field(default_factory=lambda: secrets.token_hex(20))


def s3_environment(url: str, key: str, secret: str) -> dict[str, str]:
    """What leads any S3 client to a server, with its keys."""
    return {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


def s3_server(folder: Path, keys: S3Keys, buckets: tuple[str, ...], port: int = 0) -> Server:
    """SeaweedFS: signatures are checked, and `If-None-Match` holds, as on AWS."""
    folder.mkdir(parents=True, exist_ok=True)
    identities = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for name, key, secret, actions in (
            ("writer", keys.key, keys.secret, ["Admin", "Read", "List", "Tagging", "Write"]),
            ("reader", keys.reader_key, keys.reader_secret, ["Read", "List"]),
        )
    ]
    config = folder / "s3-identities.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": identities}))
    (folder / "s3-data").mkdir(exist_ok=True)
    port = free_port(port)
    ports = [f"-{part}.port{kind}={free_port()}" for part in ("master", "filer", "volume") for kind in ("", ".grpc")]
    line = [
        str(_BIN / "weed"), "mini", f"-dir={folder}/s3-data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false", "-webdav=false", "-admin.ui=false", f"-s3.config={config}", f"-s3.port={port}",
        f"-s3.port.grpc={free_port()}", "-s3.port.iceberg=0", "-s3.port.lance=0", *ports,
        f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock", f"-bucket={','.join(buckets)}",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    return Server("s3", folder, line, url, lambda: _has_buckets(url, keys, buckets))


def _has_buckets(url: str, keys: S3Keys, buckets: tuple[str, ...]) -> bool:
    import botocore.exceptions
    import botocore.session
    from botocore.config import Config

    client = botocore.session.get_session().create_client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=keys.key,
        aws_secret_access_key=keys.secret, config=Config(retries={"total_max_attempts": 1}, connect_timeout=2),
    )  # fmt: skip
    try:
        found = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
        return False
    return found >= set(buckets)


def mlflow_server(
    folder: Path,
    store: str | None = None,
    files: str | None = None,
    environment: Mapping[str, str] | None = None,
    port: int = 0,
) -> Server:
    """`mlflow server`, through which clients reach its artifacts.

    Args:
        store, files: URIs of the database and the artifacts; an SQLite file and a folder by default.
        environment: such as the keys of the artifacts' S3 server, which only this server needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port(port)
    line = [
        sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1",
        f"--backend-store-uri={store or f'sqlite:///{folder}/mlflow.db'}",
        f"--artifacts-destination={files or folder / 'files'}",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    # Seven more processes otherwise, for jobs that nobody gives it.
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Server("mlflow", folder, line, url, lambda: answers(f"{url}/health"), {**quick, **(environment or {})})


def ray_head(
    folder: Path, scratch: Path, num_cpus: int, environment: Mapping[str, str], port: int, dashboard_port: int = 0
) -> Server:
    """A head node whose dashboard wants the token of the environment.

    Args:
        scratch: for Ray's sockets and logs; short, since the path of a socket has at most 107 characters.
        environment: with RAY_AUTH_TOKEN, and what its jobs need: keys of storage, the address of MLflow.
        port: where other nodes find it.
    """
    dashboard_port = free_port(dashboard_port)
    url = f"http://127.0.0.1:{dashboard_port}"
    role = ["--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
    role += [f"--temp-dir={scratch}", "--disable-usage-stats"]
    token = environment["RAY_AUTH_TOKEN"]
    return _ray_node("ray", folder, role, num_cpus, environment, url, lambda: _count_nodes(url, token) > 0)


def ray_worker(
    name: str, folder: Path, head: Server, head_port: int, num_cpus: int, environment: Mapping[str, str]
) -> Server:
    """A node that joins a head's cluster; it answers when it says so, since a head counts dead nodes for a while.

    It has a folder of its own for sessions, as nodes of other machines have: each deletes what it no longer needs.
    """
    log = folder / f"{name}.log"
    role = [f"--address={RAY_IP}:{head_port}", f"--temp-dir={folder}/{name}"]
    return _ray_node(
        name, folder, role, num_cpus, environment, head.url, lambda: "Ray runtime started" in log.read_text()
    )


def _count_nodes(url: str, token: str) -> int:
    """Nodes that the head at `url` calls alive; 0 where it does not answer yet."""
    alive = "filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
    request = urllib.request.Request(f"{url}/api/v0/nodes?{alive}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return len(json.load(answer)["data"]["result"]["result"])
    except OSError:
        return 0


def _ray_node(
    name: str,
    folder: Path,
    role: list[str],
    num_cpus: int,
    environment: Mapping[str, str],
    url: str,
    ready: Callable[[], bool],
) -> Server:
    line = [
        str(_BIN / "ray"), "start", "--block", *role, f"--node-ip-address={RAY_IP}", f"--num-cpus={num_cpus}",
        f"--dashboard-agent-listen-port={free_port()}",
        f"--object-store-memory={150 * 2**20}", "--min-worker-port=0", "--max-worker-port=0",
    ]  # fmt: skip
    asked = {"RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0"}
    # Ray gives its node 30 s to start, which on a busy machine are too few.
    return Server(name, folder, line, url, ready, {**environment, **asked}, tries=4)
