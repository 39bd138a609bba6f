"""The Ray session of a command: the only place that calls `ray.init`."""

import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator

from stylejobs.errors import ClusterError

# Read by Ray when it is imported or started, so they are set before either. A value from outside wins.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray's C++ side prints to our stderr what belongs in its own log files, such as that actors have arguments.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Ray starts its workers at niceness 15. On a machine with anything else to do they then hardly run: a training was
    # seen to import torch for five minutes. The workers are the job, so they are as important as the command.
    "RAY_worker_niceness": "0",
}
_START_ATTEMPTS = 3


@contextlib.contextmanager
def ray_session(num_cpus: int | None = None, object_store_mb: float | None = None) -> Iterator[None]:
    """Connects to the cluster of RAY_ADDRESS, or starts Ray in this process and ends it afterwards.

    A session that is already open is used as it is and left open.

    Args:
        num_cpus: logical CPUs of a Ray that is started here; None for all of the machine.
        object_store_mb: its object store; None for Ray's default.

    Raises:
        ClusterError: there is no cluster at RAY_ADDRESS, or a local one does not start.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # A cluster of this process is nobody else's: no token file in the home folder, and loopback only. Ray turns
        # 127.0.0.1 into the machine's outer address unless it is told that this is not a cluster of machines.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    folder = tempfile.mkdtemp(prefix="stylejobs-ray-")
    try:
        with _our_sigterm():
            if address:
                _connect(address)
            else:
                _start(folder, num_cpus, object_store_mb)
        _quieten()
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _our_sigterm() -> Iterator[None]:
    """Ray's C++ side takes SIGTERM for a crash, prints a trace and aborts; here it is how schedulers stop a command."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _connect(address: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:
        raise ClusterError(f"cannot reach a Ray cluster at RAY_ADDRESS={address}: {error}") from error


def _start(folder: str, num_cpus: int | None, object_store_mb: float | None) -> None:
    import ray

    # Ray gives its own processes 30 seconds; a loaded machine sometimes needs another try.
    for attempt in range(_START_ATTEMPTS):
        try:
            with _stderr_into(os.path.join(folder, "start.log")):
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    object_store_memory=int(object_store_mb * 2**20) if object_store_mb else None,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,
                )
            return
        except Exception as error:
            ray.shutdown()
            if attempt == _START_ATTEMPTS - 1:
                raise ClusterError(
                    f"Ray did not start on this machine after {_START_ATTEMPTS} tries: {error}"
                ) from error


@contextlib.contextmanager
def _stderr_into(path: str) -> Iterator[None]:
    """Sends what native code prints on stderr into a file; exceptions still say what went wrong."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(path, "ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _quieten() -> None:
    """Ray Data's own lines stay in its session folder; people get our progress instead."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def available() -> dict[str, float]:
    """Resources of the cluster that this process is connected to, such as {"CPU": 2.0, "GPU": 1.0}."""
    import ray

    return ray.cluster_resources()


def num_nodes() -> int:
    """Nodes of that cluster that are alive."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())
