"""The compose file: its schema, who gets in, what is pinned; the store and the buckets as its commands start them."""

import copy
import importlib.resources
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema.validators import validator_for

from stylejobs import __version__

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "infra/compose"
TEXT = (PLACE / "compose.yaml").read_text()
STACK: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
VARIABLE = re.compile(r"\$\{(\w+)(:[?-])?([^}]*)\}")


def test_the_schema_of_compose_holds() -> None:
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text())
    validator = validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(STACK)] == []
    spoilt = copy.deepcopy(STACK)
    spoilt["services"]["mlflow"]["health_check"] = spoilt["services"]["mlflow"].pop("healthcheck")
    assert list(validator.iter_errors(spoilt))


def test_ports_are_those_of_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 3 and all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in SERVICES["postgres"] and SERVICES["postgres"]["networks"] == ["database"]
    assert STACK["networks"]["database"]["internal"] is True
    assert not [name for name, service in SERVICES.items() if service.get("network_mode") or service.get("privileged")]


def test_secrets_come_from_outside_and_nothing_starts_without_them() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
    seen = set()
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name):
                match = VARIABLE.fullmatch(value)
                assert match and match[2] == ":?" and match[3], f"{name} starts without a value"
                seen.add(name)
        assert not secret.search(" ".join(service.get("command", ())))
    assert {"POSTGRES_PASSWORD", "PGPASSWORD", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY"} <= seen
    assert SERVICES["ray"]["environment"]["RAY_AUTH_MODE"] == "token"


def test_variables_are_those_of_the_example_which_has_no_values() -> None:
    lines = (PLACE / ".env.example").read_text().splitlines()
    named = {line for line in lines if line and not line.startswith("#")}
    assert named == {f"{name}=" for name, _, _ in VARIABLE.findall(TEXT)}
    ignored = subprocess.run(["git", "check-ignore", "infra/compose/.env"], cwd=ROOT, capture_output=True)
    assert ignored.returncode == 0


def test_images_are_pinned_or_built_from_this_checkout() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "infra/docker/Dockerfile").read_text(), re.MULTILINE)
    for service in SERVICES.values():
        name, _, tag = service["image"].partition(":")
        if "build" in service:
            build = service["build"]
            assert (PLACE / build["context"]).resolve() == ROOT
            assert (ROOT / build["dockerfile"]).is_file() and build["target"] in stages
            assert (name, tag) == ("stylejobs", f"{__version__}-{build['target']}")
        else:
            assert re.fullmatch(r"\d+\.\d+-[a-z]+(@sha256:[0-9a-f]{64})?", tag)


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_no_rights_and_limits(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] and service["restart"]
    # Ray unpacks and runs what comes with jobs.
    assert name == "ray" or (service["read_only"] and "/tmp" in service["tmpfs"])
    limits = service["deploy"]["resources"]["limits"]
    assert limits["cpus"] and limits["memory"] and limits["pids"] > 0
    for volume in service.get("volumes", ()):
        source, _, rest = volume.partition(":")
        assert source in STACK["volumes"] or ((PLACE / source).is_file() and rest.endswith(":ro"))


def test_each_waits_until_what_it_needs_is_there() -> None:
    once = {name for name, service in SERVICES.items() if service["restart"].startswith("on-failure")}
    assert once == {"buckets"}
    assert all("healthcheck" in service for name, service in SERVICES.items() if name not in once)
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in once else "service_healthy"
            assert how == {"condition": wanted}
    assert {*SERVICES["mlflow"]["depends_on"]} == {"postgres", "buckets"}


def test_mlflow_starts_with_flags_that_it_has_and_answers_to_the_names_that_it_is_called_by() -> None:
    from mlflow.cli import server

    program, verb, *flags = SERVICES["mlflow"]["command"]
    assert (program, verb) == ("mlflow", "server")
    given = dict(flag.split("=", 1) for flag in flags)
    known = {name for option in server.params for name in option.opts}
    assert given.keys() <= known
    assert given["--workers"] == "1"
    assert SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    called = SERVICES["ray"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    assert called in given["--allowed-hosts"].split(",") and called == f"mlflow:{given['--port']}"
    bucket = given["--artifacts-destination"].removeprefix("s3://").partition("/")[0]
    assert bucket in SERVICES["buckets"]["command"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """The store as the compose file starts it, but on other ports, on loopback, in a folder of its own."""
    program, *flags = SERVICES["s3"]["command"]
    port = free_port()
    ours = {"-dir": tmp_path, "-s3.ip.bind": "127.0.0.1", "-s3.port": port}
    ours |= {f"-{part}.port{kind}": free_port() for part in ("master", "volume", "filer") for kind in ("", ".grpc")}
    ours["-s3.port.grpc"] = free_port()
    named = {flag.partition("=")[0] for flag in flags}
    assert {"-dir", "-s3.ip.bind", "-s3.port"} <= named
    kept = [flag for flag in flags if flag.partition("=")[0] not in ours]
    command = [Path(sys.executable).with_name(program), *kept, *(f"{name}={value}" for name, value in ours.items())]
    keys = {"AWS_ACCESS_KEY_ID": "alice", "AWS_SECRET_ACCESS_KEY": "wonderland"}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **keys}
    with open(tmp_path / "weed.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        healthy = SERVICES["s3"]["healthcheck"]["test"][-1].replace("8333", str(port))
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(healthy, timeout=2).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "weed.log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # it would take its time, and nobody reads its folder again
        process.wait()


def test_the_store_wants_its_key_and_the_buckets_are_made_once(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    spec = importlib.util.spec_from_file_location("compose_buckets", PLACE / "buckets.py")
    buckets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(buckets)
    _, _, *names = SERVICES["buckets"]["command"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    monkeypatch.setenv("AWS_DEFAULT_REGION", SERVICES["buckets"]["environment"]["AWS_DEFAULT_REGION"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "alice")
    for wrong in ("looking-glass", "wonderland "):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            buckets.make_buckets(names)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(store, timeout=5)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wonderland")
    assert buckets.make_buckets(names) == names
    assert buckets.make_buckets(names) == []
    assert buckets.main([]) == 2
