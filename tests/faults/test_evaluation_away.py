"""Evaluations through a real MLflow server that goes away at one kind of request: no verdict is half there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from infra.stack.processes import Server
from infra.stack.servers import mlflow_server
from stylejobs.core.networks import build_network
from stylejobs.engine.registering import register_folder
from stylejobs.storage.packages import save_package
from stylejobs.tracking.evidence import list_evidence
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from stylejobs.tracking.registry import ModelVersion, resolve_version
from tests.conftest import Outcome
from tests.faults.doorman import Doorman
from tests.pipelines.painters import NETWORK, OPTIONS, SIDE_PX, write_sets

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(900)]

STEPS = {
    "the version is looked up": "GET model-versions/get",
    "the package is fetched": "GET model-versions/get-download-uri",
    "the run is opened": "POST runs/create",
    "the verdict is written": "PUT /api/2.0/mlflow-artifacts/artifacts",
    "the version is told": "POST model-versions/set-tag",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = mlflow_server(tmp_path_factory.mktemp("server"))
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def version(server: Server, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("package")
    weights = build_network(NETWORK, **OPTIONS).state_dict()
    save_package(str(folder), NETWORK, OPTIONS, weights, {"amber": torch.zeros(0)}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.url)
        with MlflowTracker.start("away", "registers") as run:
            return register_folder(str(folder), "away", run.run_id, {})


@pytest.fixture(scope="module")
def sets(photos: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_sets(tmp_path_factory.mktemp("sets"), photos, num_styles=30)


@pytest.fixture
def evaluate(
    verb: Callable[..., Outcome],
    server: Server,
    version: ModelVersion,
    sets: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Outcome]]:
    """evaluate(let): the version's evaluation through a doorman who lets pass what `let` says."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "gates.yaml").write_text("hard:\n  constant: {at_most: 1}\n")
    doors: list[Doorman] = []

    def call(let: Callable[[str], bool]) -> Outcome:
        doors.append(Doorman(server.url, let))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", doors[-1].uri)
        return verb(
            "evaluate", f"model={version.uri}", f"data={sets[0]}", f"style={sets[1]}", "gates=gates.yaml", "images=50",
            f"size_px={SIDE_PX}", "cluster.actors=1",
        )  # fmt: skip

    yield call
    for door in doors:
        door.close()


@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_is_away_at_one_step_ends_it_with_6_and_leaves_no_verdict(
    step: str, evaluate: Callable[..., Outcome], server: Server, verb: Callable[..., Outcome], monkeypatch
):
    refused: list[str] = []

    def let(line: str) -> bool:
        if line.startswith(STEPS[step]):
            refused.append(line)
        return not line.startswith(STEPS[step])

    outcome = evaluate(let)
    assert refused, "the step was not taken"
    assert outcome.exit_code == 6, outcome.stderr
    assert "MLflow" in outcome.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    found = resolve_version("models:/away/1")
    assert list_evidence(found) == []
    promoted = verb("promote", f"model={found.uri}", "gates=gates.yaml")
    assert promoted.exit_code == 4 and "wanted a verdict" in promoted.stderr


def test_afterwards_the_same_command_gives_its_verdict(
    evaluate: Callable[..., Outcome], server: Server, monkeypatch: pytest.MonkeyPatch
):
    outcome = evaluate(lambda line: True)
    assert outcome.exit_code == 0, outcome.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    evidence = list_evidence(resolve_version("models:/away/1"))
    assert [one.passed for one in evidence] == [True]
