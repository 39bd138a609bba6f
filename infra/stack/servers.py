"""Servers on loopback as processes of their own: an S3 server, MLflow, Ray nodes with a token.

The stack of `make stack-up` and the tests start them in the same way.
"""

import json
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.stack.processes import BIN, Server, answers, free_port

# Ray replaces 127.0.0.1 by an address that the network reaches; another one of loopback it takes as it is.
RAY_IP = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"


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
        str(BIN / "weed"), "mini", f"-dir={folder}/s3-data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
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
        str(BIN / "ray"), "start", "--block", *role, f"--node-ip-address={RAY_IP}", f"--num-cpus={num_cpus}",
        f"--dashboard-agent-listen-port={free_port()}",
        f"--object-store-memory={150 * 2**20}", "--min-worker-port=0", "--max-worker-port=0",
    ]  # fmt: skip
    asked = {"RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0"}
    # Ray gives its node 30 s to start, which on a busy machine are too few.
    return Server(name, folder, line, url, ready, {**environment, **asked}, tries=4)
