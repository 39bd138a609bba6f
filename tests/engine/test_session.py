"""The local Ray: nobody outside this machine can reach it, and a session inside a session is the same one."""

import subprocess
import sys

import pytest

from stylejobs.engine.session import ray_session

pytestmark = pytest.mark.ray


def test_it_listens_on_loopback_only() -> None:
    """In a process of its own, as commands are: Ray reads some of its settings when it is imported."""
    script = (
        "from stylejobs.engine.session import ray_session\n"
        "with ray_session(num_cpus=1):\n"
        "    import ray\n"
        "    print([node['NodeManagerAddress'] for node in ray.nodes()])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().splitlines()[-1] == "['127.0.0.1']", done.stderr


def test_an_open_session_is_used_and_left_open(ray_cluster: None) -> None:
    import ray

    before = ray.get_runtime_context().get_job_id()
    with ray_session(num_cpus=1):
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()
