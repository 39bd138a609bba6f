"""Ray nodes as processes of their own, on loopback, with their own ports and folders, and a token."""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra.stack.processes import Server, free_port
from infra.stack.servers import RAY_IP, ray_head, ray_worker


class Cluster:
    """A head node that wants a token, and nodes that join it.

    Attributes:
        folder: of its logs, Ray's sessions among them.
        environment: for commands that may use it; without the token's variables they are refused.
    """

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self.token, self._port = folder, secrets.token_hex(16), free_port()
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "HOME": str(folder)}
        self._given = {**self.environment, **environment}
        self.head = ray_head(folder, folder / "ray", 3, self._given, self._port)
        self.nodes: list[Server] = []

    @property
    def url(self) -> str:
        return self.head.url

    @property
    def address(self) -> str:
        """Where a driver on this machine connects."""
        return f"{RAY_IP}:{self._port}"

    def start(self) -> None:
        """Starts the head, and waits until it answers."""
        self.head.wait()

    def add_node(self, num_cpus: int) -> Server:
        """Starts a node, and waits until the head counts it."""
        name = f"node-{len(self.nodes)}"
        node = ray_worker(name, self.folder, self.head, self._port, num_cpus, self._given)
        self.nodes.append(node)
        node.wait()
        return node

    def kill(self) -> None:
        """SIGKILL to the head and all that it has started."""
        self.head.kill()

    def end(self) -> None:
        for server in (*self.nodes, self.head):
            server.kill()


@contextlib.contextmanager
def ray_cluster_of(
    num_nodes: int = 1, environment: dict[str, str] | None = None, num_cpus: int = 3
) -> Iterator[Cluster]:
    """A head, and nodes beside it, gone afterwards.

    Args:
        environment: what nodes and their jobs get beside the token.
    """
    folder = Path(tempfile.mkdtemp(prefix="head-"))  # short: the paths of Ray's sockets are limited to 107 characters
    cluster = Cluster(folder, environment or {})
    try:
        cluster.start()
        for _ in range(num_nodes - 1):
            cluster.add_node(num_cpus)
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)
