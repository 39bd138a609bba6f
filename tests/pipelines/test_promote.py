"""`promote` as people call it: what earns an alias, what does not, and the way back."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from mlflow import MlflowClient

from pipelines.promote import main
from stylejobs.tracking.client import open_client
from stylejobs.tracking.evidence import VERDICT_FILE
from stylejobs.tracking.registry import ModelVersion
from tests.conftest import Outcome
from tests.tracking.judging import DEMO_GATES, SET_SHA256, aliases_of, judge, make_versions

_names = (f"promote-{number}" for number in itertools.count())
Promote = Callable[..., Outcome]


@pytest.fixture
def client(tracking_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)
    return open_client(tracking_store)


@pytest.fixture
def versions(client: MlflowClient) -> list[ModelVersion]:
    return make_versions(client, next(_names), 3)


@pytest.fixture
def promote(capsys: pytest.CaptureFixture[str]) -> Promote:
    """promote(version, *more): the command, with the gates of the demo."""

    def call(version: ModelVersion, *more: str) -> Outcome:
        capsys.readouterr()
        exit_code = main([f"model={version.uri}", f"gates={DEMO_GATES}", *more])
        return Outcome(exit_code, *capsys.readouterr())

    return call


def aliases(client: MlflowClient, version: ModelVersion) -> dict[str, str]:
    return aliases_of(client, version.name)


def test_a_version_that_passed_is_promoted_and_a_better_one_after_it(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote
) -> None:
    one, two, _ = versions
    first = judge(client, one)
    outcome = promote(one, "reason=first", "junit=out/junit.xml", "summary=out/summary.md")
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.result["model"] == {"uri": one.uri, "name": one.name, "version": "1", "sha256": one.sha256}
    assert "champion of" in outcome.stderr and "(no version had it)" in outcome.stderr
    suite = ElementTree.parse("out/junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("5", "0")
    assert "**passed**, without a baseline" in Path("out/summary.md").read_text()
    judge(client, two, baseline=one)
    outcome = promote(two)
    assert outcome.exit_code == 0 and outcome.result["details"]["previous_version"] == "1"
    assert aliases(client, one) == {"champion": "2", "previous": "1"}
    record = json.loads(client.get_model_version(one.name, "1").tags["stylejobs.moved.champion"])
    assert (record["action"], record["why"], record["verdict_sha256"]) == ("promote", "first", first.verdict_sha256)
    assert "@" in record["by"] and record["from"] is None


def test_a_version_that_failed_is_refused_with_every_gate_and_number(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote
) -> None:
    one, two, _ = versions
    client.set_registered_model_alias(one.name, "champion", "1")
    judge(client, two, baseline=one, edge_cosine=0.21, clipped=0.3)
    outcome = promote(two, "junit=junit.xml", "summary=summary.md")
    assert outcome.exit_code == 4 and aliases(client, one) == {"champion": "1"}
    assert outcome.stderr.splitlines() == [
        f"promote: {two.uri} is refused, champion of {two.name} stays version 1:",
        "  edge_cosine at least 0.3: edge_cosine 0.21 (0.205 to 0.215), wanted at least 0.3",
        "  clipped at most 0.1: clipped 0.3 (0.295 to 0.305), wanted at most 0.1",
    ]
    failed = [gate["name"] for gate in outcome.result["details"]["failed"]]
    assert failed == ["edge_cosine at least 0.3", "clipped at most 0.1"] and outcome.result["exit_code"] == 4
    suite = ElementTree.parse("junit.xml").getroot()
    assert [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None] == failed
    summary = Path("summary.md").read_text()
    assert "**refused**, 2 failed" in summary and "| edge_cosine | 0.21 (0.205 to 0.215) |" in summary


def test_without_a_verdict_nothing_moves(client: MlflowClient, versions: list[ModelVersion], promote: Promote) -> None:
    one, *_ = versions
    outcome = promote(one, "junit=junit.xml")
    assert outcome.exit_code == 4 and aliases(client, one) == {}
    assert f"python -m pipelines.evaluate model={one.uri} gates={DEMO_GATES}" in outcome.stderr
    assert ElementTree.parse("junit.xml").getroot().get("failures") == "1"


@pytest.mark.parametrize(
    ("changes", "more", "says"),
    [
        ({"gates_sha256": "8" * 64}, [], "it has gates 888888888888 on 555555555555"),
        ({}, [f"evaluation_set={'6' * 12}"], "on the evaluation set 666666666666"),
        ({"hours_ago": 24 * 8}, [], "is 192.0 h old"),
        ({"hours_ago": 3}, ["max_age_hours=2"], "wanted at most 2 h"),
        ({"hours_ago": -24}, [], "is -24.0 h old"),
        ({"passed": False}, [], "says that the model did not pass"),
    ],
)
def test_a_verdict_that_does_not_fit_does_not_count(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote, changes: dict, more: list[str], says: str
) -> None:
    one, *_ = versions
    judge(client, one, **changes)
    outcome = promote(one, *more)
    assert outcome.exit_code == 4 and says in outcome.stderr and aliases(client, one) == {}


def test_the_evaluation_set_can_be_named(client: MlflowClient, versions: list[ModelVersion], promote: Promote) -> None:
    one, *_ = versions
    judge(client, one, hours_ago=5)
    judge(client, one, set_sha256="6" * 64, edge_cosine=0.1)
    assert promote(one).exit_code == 4
    assert promote(one, f"evaluation_set={SET_SHA256[:12]}").exit_code == 0


def test_a_verdict_on_other_weights_does_not_count(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote
) -> None:
    one, *_ = versions
    judge(client, one)
    client.set_model_version_tag(one.name, "1", "sha256", "9" * 64)
    outcome = promote(one)
    assert outcome.exit_code == 4 and f"is about {one.sha256}, and {one.uri} has {'9' * 64}" in outcome.stderr
    client.delete_model_version_tag(one.name, "1", "sha256")
    outcome = promote(one)
    assert outcome.exit_code == 4 and "has no sha256: it was registered by other means" in outcome.stderr
    assert aliases(client, one) == {}


@pytest.mark.parametrize("against", ["nothing", "another"])
def test_a_verdict_must_compare_with_the_present_champion(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote, against: str
) -> None:
    one, two, three = versions
    judge(client, two, baseline=three if against == "another" else None)
    client.set_registered_model_alias(one.name, "champion", "1")
    outcome = promote(two)
    assert outcome.exit_code == 4 and aliases(client, one) == {"champion": "1"}
    compared = three.uri if against == "another" else "nothing"
    assert f"compares with {compared}, and champion is version 1: it has moved since" in outcome.stderr
    # With no champion there is nothing that a verdict would have to compare with.
    client.delete_registered_model_alias(one.name, "champion")
    assert promote(two).exit_code == 0


def test_a_verdict_or_tag_that_was_changed_does_not_count(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote
) -> None:
    one, two, _ = versions
    evidence = judge(client, one, edge_cosine=0.1)
    place = Path(client.get_run(evidence.run_id).info.artifact_uri.removeprefix("file://")) / VERDICT_FILE
    place.write_text(place.read_text().replace('"passed": false', '"passed": true'))
    outcome = promote(one)
    assert outcome.exit_code == 4 and "was changed after it was written" in outcome.stderr
    judge(client, two, edge_cosine=0.1)
    tags = client.get_model_version(two.name, "2").tags
    [key] = [key for key in tags if key.startswith("stylejobs.verdict.")]
    client.set_model_version_tag(
        two.name, "2", key, json.dumps({**json.loads(tags[key]), "passed": True, "failed": []})
    )
    outcome = promote(two)
    assert outcome.exit_code == 4 and "tag does not say what" in outcome.stderr
    assert aliases(client, one) == {}


def test_an_override_needs_a_reason_and_is_recorded(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote
) -> None:
    one, *_ = versions
    outcome = promote(one, "override=true")
    assert outcome.exit_code == 2 and "wanted the reason why no verdict is needed" in outcome.stderr
    assert aliases(client, one) == {}
    outcome = promote(one, "override=true", "reason=ticket-7")
    assert outcome.exit_code == 0 and "WITHOUT A VERDICT: ticket-7" in outcome.stderr
    assert client.get_model_version(one.name, "1").tags["stylejobs.override.champion"] == "ticket-7"
    assert outcome.result["details"]["action"] == "override" and aliases(client, one) == {"champion": "1"}


def test_a_rollback_goes_back_and_forth(client: MlflowClient, versions: list[ModelVersion], promote: Promote) -> None:
    one, two, _ = versions
    for version in (one, two):
        assert promote(version, "override=true", "reason=test").exit_code == 0
    outcome = promote(one, "rollback=true")
    assert outcome.exit_code == 2 and "got " + one.uri in outcome.stderr, "it is not what champion points at"
    outcome = promote(two, "rollback=true", "reason=blurry")
    assert outcome.exit_code == 0 and aliases(client, one) == {"champion": "1", "previous": "2"}
    assert "is now version 1 (it was version 2), by rollback" in outcome.stderr
    record = json.loads(client.get_model_version(one.name, "1").tags["stylejobs.moved.champion"])
    assert (record["action"], record["from"], record["why"]) == ("rollback", "2", "blurry")
    assert promote(one, "rollback=true").exit_code == 0
    assert aliases(client, one) == {"champion": "2", "previous": "1"}


def test_there_must_be_something_to_go_back_to(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote
) -> None:
    one, *_ = versions
    outcome = promote(one, "rollback=true")
    assert outcome.exit_code == 2 and "champion is no alias of it" in outcome.stderr
    assert promote(one, "override=true", "reason=test").exit_code == 0
    outcome = promote(one, "rollback=true")
    assert outcome.exit_code == 2 and "nothing to go back to" in outcome.stderr
    assert aliases(client, one) == {"champion": "1"}


def test_other_aliases_have_their_own_way_back(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote
) -> None:
    one, two, _ = versions
    for version in (one, two):
        assert promote(version, "alias=dark", "override=true", "reason=test").exit_code == 0
    assert aliases(client, one) == {"dark": "2", "dark-previous": "1"}
    assert promote(two, "alias=dark", "rollback=true").exit_code == 0
    assert aliases(client, one) == {"dark": "1", "dark-previous": "2"}


def test_promoting_what_has_the_alias_changes_nothing(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote
) -> None:
    one, *_ = versions
    client.set_registered_model_alias(one.name, "champion", "1")
    before = client.get_model_version(one.name, "1").tags
    outcome = promote(one)
    assert outcome.exit_code == 0 and "is version 1 already" in outcome.stderr
    assert client.get_model_version(one.name, "1").tags == before and aliases(client, one) == {"champion": "1"}


def test_faulty_gates_are_found_before_anything_moves(
    client: MlflowClient, versions: list[ModelVersion], promote: Promote
) -> None:
    one, *_ = versions
    judge(client, one)
    Path("mine.yaml").write_text("hard: {edge_cosin: {at_least: 0.3}}\n")
    outcome = promote(one, "gates=mine.yaml")
    assert outcome.exit_code == 2 and "did you mean 'edge_cosine'" in outcome.stderr and aliases(client, one) == {}
