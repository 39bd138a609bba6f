"""Verdicts on runs and versions of a real SQLite registry; artifacts and tags that were changed behind our back."""

import hashlib
import itertools
import json
from pathlib import Path

import pytest

from stylejobs.errors import GateError, RegistryError
from stylejobs.tracking.evidence import VERDICT_FILE, list_evidence, read_verdict, record_verdict
from tests.tracking.judging import judge, judged, make_versions

_names = (f"evidence-{number}" for number in itertools.count())
KEY = "stylejobs.verdict"


@pytest.fixture
def version(store, client):
    [made] = make_versions(client, next(_names), 1)
    return made


def artifact(client, evidence) -> Path:
    return Path(client.get_run(evidence.run_id).info.artifact_uri.removeprefix("file://")) / VERDICT_FILE


def test_a_verdict_comes_back_whole_and_its_tag_says_what_the_contract_says(client, version):
    verdict = judged(version)
    run = client.create_run(client.get_run(version.run_id).info.experiment_id)
    evidence = record_verdict(version, run.info.run_id, verdict)
    assert list_evidence(version) == [evidence] and read_verdict(evidence) == verdict
    tags = client.get_model_version(version.name, version.version).tags
    [key] = [key for key in tags if key.startswith(KEY)]
    assert key == f"{KEY}.{verdict['gates_sha256'][:12]}.{verdict['set_sha256'][:12]}"
    assert json.loads(tags[key]) == {
        "passed": True,
        "failed": [],
        "at": verdict["made_at"],
        "run_id": run.info.run_id,
        "verdict_sha256": hashlib.sha256(artifact(client, evidence).read_bytes()).hexdigest(),
        "model_sha256": version.sha256,
        "gates_sha256": verdict["gates_sha256"],
        "set_sha256": verdict["set_sha256"],
        "baseline_sha256": None,
    }


def test_numbers_that_are_not_finite_are_kept_as_null(client, version):
    measures = {"candidate": {"style": (float("nan"), float("-inf"), 0.5)}}
    evidence = judge(client, version, measures=measures)
    assert read_verdict(evidence)["measures"] == {"candidate": {"style": [None, None, 0.5]}}


def test_verdicts_are_listed_newest_first_and_one_of_the_same_gates_and_set_is_replaced(client, version):
    old = judge(client, version, hours_ago=9)
    other = judge(client, version, hours_ago=3, set_sha256="6" * 64, edge_cosine=0.1)
    assert list_evidence(version) == [other, old]
    assert other.failed == ("edge_cosine at least 0.3",) and not other.passed
    new = judge(client, version)
    assert list_evidence(version) == [new, other]


def test_an_artifact_that_was_changed_does_not_count(client, version):
    evidence = judge(client, version, edge_cosine=0.1)
    place = artifact(client, evidence)
    place.write_text(place.read_text().replace('"passed": false', '"passed": true'))
    with pytest.raises(GateError, match="was changed after it was written"):
        read_verdict(evidence)
    place.unlink()
    with pytest.raises(GateError, match=r"is gone: there is no verdict.json"):
        read_verdict(evidence)


def test_a_verdict_of_a_run_that_does_not_exist_is_gone(client, version):
    evidence = judge(client, version, edge_cosine=0.1)
    [key] = [key for key in client.get_model_version(version.name, "1").tags if key.startswith(KEY)]
    tag = {**json.loads(client.get_model_version(version.name, "1").tags[key]), "run_id": "0" * 32}
    client.set_model_version_tag(version.name, "1", key, json.dumps(tag))
    [found] = list_evidence(version)
    assert found != evidence
    with pytest.raises((GateError, RegistryError), match=r"gone|0{32}"):
        read_verdict(found)


@pytest.mark.parametrize(
    ("field", "value"), [("passed", True), ("failed", []), ("model_sha256", "8" * 64), ("baseline_sha256", "8" * 64)]
)
def test_a_tag_that_was_changed_does_not_count(client, version, field, value):
    judge(client, version, edge_cosine=0.1)
    [(key, text)] = [(k, v) for k, v in client.get_model_version(version.name, "1").tags.items() if k.startswith(KEY)]
    client.set_model_version_tag(version.name, "1", key, json.dumps({**json.loads(text), field: value}))
    [found] = list_evidence(version)
    with pytest.raises(GateError, match=f"does not say what .* says: {field}"):
        read_verdict(found)


@pytest.mark.parametrize("text", ["", "{}", "[]", "passed", '{"passed": true, "failed": 3}'])
def test_a_tag_that_is_no_verdict_is_refused(client, version, text):
    client.set_model_version_tag(version.name, "1", f"{KEY}.0.0", text or " ")
    with pytest.raises(GateError, match="is no verdict; delete it"):
        list_evidence(version)
