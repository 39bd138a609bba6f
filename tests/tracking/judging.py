"""Versions that can be promoted, and verdicts on them: made by the real gates from numbers of the test's choice."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from stylejobs.config.gating import load_gates
from stylejobs.core.bootstrap import Interval
from stylejobs.core.gates import Table, decide
from stylejobs.tracking.client import artifact_location, tracking_uri
from stylejobs.tracking.evidence import Evidence, record_verdict
from stylejobs.tracking.registry import ModelVersion, resolve_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEMO_GATES = "conf/evaluate/gates-demo.yaml"
GOOD = {"edge_cosine": 0.6, "identification": 0.9, "clipped": 0.01, "constant": 0.01, "identity": 0.01}
SET_SHA256 = "5" * 64


def make_versions(client: "MlflowClient", name: str, count: int) -> list[ModelVersion]:
    """Registered versions 1 to `count` of a new model, with the digests 11..., 22..., and no package behind them."""
    experiment = client.get_experiment_by_name("judging")
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment("judging", artifact_location=artifact_location(tracking_uri()))
    )
    run = client.create_run(experiment_id)
    client.create_registered_model(name)
    for number in range(1, count + 1):
        tags = {"sha256": str(number) * 64}
        client.create_model_version(name, f"{run.info.artifact_uri}/package", run.info.run_id, tags=tags)
    return [resolve_version(f"models:/{name}/{number}") for number in range(1, count + 1)]


def aliases_of(client: "MlflowClient", name: str) -> dict[str, str]:
    """Where the aliases of a model point; MLflow gives numbers as text or not, as it comes from server or store."""
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def judged(version: ModelVersion, baseline: ModelVersion | None = None, **changes: Any) -> dict[str, Any]:
    """A verdict by the gates of the demo, as `evaluate` writes it.

    Args:
        changes: of measures, such as `edge_cosine=0.1`, or of the verdict; `hours_ago=3` of when it was made.
    """
    rules, gates_sha256 = load_gates(DEMO_GATES)
    hours_ago = changes.pop("hours_ago", 0.0)
    measures = {**GOOD, **{name: changes.pop(name) for name in GOOD if name in changes}}
    row = {name: Interval(value, value - 0.005, value + 0.005) for name, value in measures.items()}
    decision = decide(rules, {0.95: Table({"candidate": row})})
    return {
        "schema_version": 1,
        "model": _described(version),
        "baseline": baseline and _described(baseline),
        "gates_sha256": gates_sha256,
        "set_sha256": SET_SHA256,
        "measures": {"candidate": {name: list(interval) for name, interval in row.items()}},
        "gains": {},
        "gates": [outcome.as_dict() for outcome in decision.outcomes],
        "improved": list(decision.improved),
        "passed": decision.passed,
        "made_at": (datetime.now(UTC) - timedelta(hours=hours_ago)).isoformat(timespec="seconds"),
    } | changes


def judge(
    client: "MlflowClient", version: ModelVersion, baseline: ModelVersion | None = None, **changes: Any
) -> Evidence:
    """A verdict as `judged` makes it, with a run of its own, tied to the version."""
    run = client.create_run(client.get_run(version.run_id).info.experiment_id)
    return record_verdict(version, run.info.run_id, judged(version, baseline, **changes))


def _described(version: ModelVersion) -> dict[str, str]:
    return {"uri": version.uri, "name": version.name, "version": version.version, "sha256": version.sha256}
