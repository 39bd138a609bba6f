"""The local Ray: nobody outside this machine can reach it, and a session inside a session is the same one."""

import os

import pytest

from stylejobs.engine.session import ray_session

pytestmark = pytest.mark.ray


def test_it_listens_on_loopback_only(ray_cluster: None) -> None:
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_an_open_session_is_used_and_left_open(ray_cluster: None) -> None:
    import ray

    before = ray.get_runtime_context().get_job_id()
    with ray_session(num_cpus=1):
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()
