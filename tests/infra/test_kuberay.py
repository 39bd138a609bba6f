"""The KubeRay manifests: their commands load, their schemas hold, and nobody gets in.

The custom resources' schemas are KubeRay's own and are not kept here: that part is skipped where they are not beside
the checkout.
"""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from stylejobs.config.load import load_config

ROOT = Path(__file__).parents[2]
BASE = ROOT / "infra/kuberay/base"
CRDS = ROOT.parent / "shared/data/kuberay-crds"
FILES = sorted(path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((BASE / name).read_text())


def find(node: Any, key: str) -> Iterator[Any]:
    """Every value below this key, wherever it stands."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from find(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from find(value, key)


def job_of(name: str) -> dict[str, Any]:
    spec = read(name)["spec"]
    return spec.get("jobTemplate", spec)


def cluster_of(name: str) -> dict[str, Any]:
    return job_of(name).get("rayClusterSpec", job_of(name))


CLUSTERS = ("cluster.yaml", "nightly.yaml", "stylize.yaml", "train.yaml")
JOBS = CLUSTERS[1:]


@pytest.mark.parametrize("name", JOBS)
def test_the_command_of_a_job_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    python, m, module, *arguments = job_of(name)["entrypoint"].split()
    assert (python, m) == ("python", "-m") and module.startswith("pipelines.")
    loaded = load_config(module.removeprefix("pipelines."), arguments)
    assert all(
        place.startswith("s3://") for place in re.findall(r"(?:source|dest|storage|content)=(\S+)", " ".join(arguments))
    )
    assert loaded.verb in ("stylize", "train")


@pytest.mark.parametrize("name", JOBS)
def test_a_job_asks_for_the_nodes_that_the_autoscaler_may_bring(name: str) -> None:
    """At its start there are none, from which it could choose a number by itself."""
    asked = re.search(r"(?:cluster\.actors|workers)=(\d+)", job_of(name)["entrypoint"])
    assert int(asked[1]) == sum(group["maxReplicas"] for group in cluster_of(name)["workerGroupSpecs"])


@pytest.mark.parametrize("name", JOBS)
def test_a_job_ends_and_leaves_nothing_running(name: str) -> None:
    job = job_of(name)
    assert job["shutdownAfterJobFinishes"] and job["ttlSecondsAfterFinished"] > 0 and job["activeDeadlineSeconds"] > 0
    # What a retry would do: stylize goes on from its dest, train begins anew.
    assert (job["backoffLimit"] > 0) == ("pipelines.stylize" in job["entrypoint"])
    assert "pipelines.train" not in job["entrypoint"] or "storage=" in job["entrypoint"]


def test_the_nightly_command_ends_by_itself_before_it_is_ended() -> None:
    minute, hour = map(int, read("nightly.yaml")["spec"]["schedule"].split()[:2])
    job = job_of("nightly.yaml")
    until_hour, until_minute = map(int, re.search(r"deadline=(\d+):(\d+)", job["entrypoint"]).groups())
    seconds = ((until_hour * 60 + until_minute) - (hour * 60 + minute)) % 1440 * 60
    assert seconds < job["activeDeadlineSeconds"] < seconds + 3600


@pytest.mark.parametrize("name", CLUSTERS)
def test_nobody_gets_in_and_nothing_is_root(name: str) -> None:
    cluster = cluster_of(name)
    assert cluster["authOptions"]["mode"] == "token" and cluster["authOptions"]["secretName"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in pods:
        spec = pod["template"]["spec"]
        assert pod["template"]["metadata"]["labels"] == {
            "app.kubernetes.io/part-of": "stylejobs"
        }  # the network policy's
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert "env" not in container  # what opens things comes by reference


def test_no_secret_is_written_here() -> None:
    words = re.compile(r"(key|token|password|secret)[^\n:]*:\s*[\"']?[A-Za-z0-9+/=]{16,}", re.IGNORECASE)
    for path in (ROOT / "infra").rglob("*.yaml"):
        assert not words.search(path.read_text()), path


def test_all_clusters_are_one_cluster_of_several_sizes() -> None:
    """Files of YAML cannot share a part, so that a test holds their copies together."""

    def without_size(name: str) -> str:
        cluster = copy.deepcopy(cluster_of(name))
        for group in cluster["workerGroupSpecs"]:
            group.pop("maxReplicas")
        return json.dumps(cluster, sort_keys=True)

    assert len({without_size(name) for name in CLUSTERS}) == 1
    nightly, stylize = job_of("nightly.yaml"), job_of("stylize.yaml")
    assert {key for key in nightly if nightly[key] != stylize[key]} == {"entrypoint", "activeDeadlineSeconds"}


@pytest.mark.parametrize("folder", ["base", "overlays/dev", "overlays/prod"])
def test_what_a_kustomization_names_is_there(folder: str) -> None:
    place = ROOT / "infra/kuberay" / folder
    kustomization = yaml.safe_load((place / "kustomization.yaml").read_text())
    assert all((place / resource).exists() for resource in kustomization["resources"])
    if folder == "base":
        assert {*kustomization["resources"]} == {path.name for path in FILES}
    kinds = {read(path.name)["kind"] for path in FILES}
    for patch in kustomization.get("patches", ()):
        assert patch["target"]["kind"] in kinds
        for step in yaml.safe_load(patch["patch"]):
            assert step["op"] in ("add", "replace") and step["path"].startswith("/spec/")


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of Kubernetes as one of JSON that refuses unknown fields, as the server does when it is strict."""
    made = {
        key: value
        for key, value in schema.items()
        if key in ("type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "required")
    }
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema:
        made["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        made["additionalProperties"] = strict(more)
    elif schema.get("type") == "object" and "properties" in schema:
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if "items" in schema:
        made["items"] = strict(schema["items"])
    return made


@pytest.fixture(scope="module")
def validators() -> dict[tuple[str, str], Draft202012Validator]:
    if not CRDS.is_dir():
        pytest.skip("KubeRay's schemas are not beside this checkout")
    found = {}
    for path in CRDS.glob("*.yaml"):
        crd = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for version in crd["spec"]["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= {"metadata": {"type": "object"}}
            key = f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]
            found[key] = Draft202012Validator(schema)
    return found


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_schemas_of_kuberay_hold(name: str, validators: dict[tuple[str, str], Draft202012Validator]) -> None:
    manifest = read(name)
    validator = validators[manifest["apiVersion"], manifest["kind"]]
    assert [error.message for error in validator.iter_errors(manifest)] == []
    # The check sees what it should: a field that is spelt wrongly, and a number that is text.
    for spoil in (lambda cluster: cluster.update(headGroupSpecs={}), lambda cluster: cluster.update(rayVersion=2)):
        spoilt = copy.deepcopy(manifest)
        inner = spoilt["spec"].get("jobTemplate", spoilt["spec"])
        spoil(inner.get("rayClusterSpec", inner))
        assert list(validator.iter_errors(spoilt))
    assert all(version == "2.60.0" for version in find(manifest, "rayVersion"))


def test_nodes_run_the_ray_of_the_lock() -> None:
    (locked,) = re.findall(r"^ray(?:\[[^]]*\])?==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {version for name in CLUSTERS for version in find(read(name), "rayVersion")} == {locked}
