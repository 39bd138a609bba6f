"""What a plan says, and what it is compared with when it is applied; no Ray."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stylejobs.config.schema import StylizeConfig
from stylejobs.engine.models import PinnedModel
from stylejobs.engine.plans import check_drift, describe_plan, list_inputs, read_plan
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import DriftError, SourceError
from stylejobs.storage.packages import read_package, save_package
from stylejobs.storage.sources import plan_source
from stylejobs.tracking import registry
from stylejobs.tracking.registry import ModelVersion
from tests.engine.planning import plan_job, write_source


@pytest.fixture
def plan(tmp_path: Path, style_image: Path) -> Callable[..., tuple[StylizeConfig, UnitJob, PinnedModel]]:
    """plan("photos", rate=2): see `plan_job`."""
    return functools.partial(plan_job, tmp_path, style_image)


class TestDrift:
    @pytest.mark.parametrize("kind", ["shards", "tar", "files", "list"])
    def test_inputs_change_with_their_files_and_with_nothing_else(self, tmp_path: Path, kind: str) -> None:
        uri = write_source(tmp_path / "in", kind)
        before = list_inputs(plan_source(str(uri), 20_000))
        assert list_inputs(plan_source(str(uri), 20_000)) == before
        changed = sorted(path for path in (tmp_path / "in").iterdir() if path.suffix != ".txt")[-1]
        changed.write_bytes(changed.read_bytes())
        after = list_inputs(plan_source(str(uri), 20_000))
        differing = [name for name in before if before[name] != after[name]]
        assert before.keys() == after.keys() and len(differing) == 1
        assert differing == [changed.name] or kind == "list"

    def test_every_difference_is_named_up_to_twenty(self) -> None:
        plan = {
            "identity": {"model": {"version": "3"}},
            "styles": {"a": "1"},
            "inputs": {"same": "1", "gone": "1", "other": "1"},
        }
        check_drift(plan, "p", plan["identity"], plan["styles"], plan["inputs"])
        with pytest.raises(DriftError) as caught:
            check_drift(plan, "p", {"model": {"version": "4"}}, {"a": "2"}, {"same": "1", "new": "1", "other": "2"})
        assert str(caught.value).splitlines()[1:-1] == [
            "  model.version: it was made with '3', this command says '4'",
            "  styles.a: it was made with '1', this command says '2'",
            "  added: new",
            "  gone: gone",
            "  changed: other",
        ]
        with pytest.raises(DriftError, match="1,000 difference") as caught:
            check_drift(plan | {"inputs": {}}, "p", plan["identity"], {"a": "1"}, {f"f{n}": "1" for n in range(1000)})
        lines = str(caught.value).splitlines()
        assert len(lines) == 23 and lines[-2] == "  ... and 980 more"

    @pytest.mark.parametrize(
        ("text", "said"),
        [(None, "nothing is there"), ("{", "not a plan.json"), ("{}", "lists no inputs"), ("[]", "lists")],
    )
    def test_what_is_no_plan_is_refused(self, tmp_path: Path, text: str | None, said: str) -> None:
        if text is not None:
            (tmp_path / "plan.json").write_text(text)
        with pytest.raises(SourceError, match=said):
            read_plan(str(tmp_path / "plan.json"))


ALIAS = "models:/demo@champion"


class TestApplied:
    @pytest.fixture
    def versions(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """A registry with two versions of a model; versions["champion"] moves the alias."""
        aliases = {"champion": "1"}
        for number in ("1", "2"):
            save_package(str(tmp_path / "registry" / number), "moments", {}, {}, {"s": torch.ones(6) * int(number)}, {})

        def resolve(uri: str) -> ModelVersion:
            version = aliases["champion"] if "@" in uri else uri.rsplit("/", 1)[-1]
            sha256 = read_package(str(tmp_path / "registry" / version)).sha256
            return ModelVersion("demo", version, None, sha256, (), f"models:/demo/{version}")

        monkeypatch.setattr(registry, "resolve_version", resolve)
        monkeypatch.setattr(
            registry, "download_package", lambda version, into: str(tmp_path / "registry" / version.version)
        )
        return aliases

    @pytest.fixture
    def planned(self, plan: Callable[..., tuple], tmp_path: Path, versions: dict[str, str]) -> Path:
        folder = write_source(tmp_path / "in", "shards")
        describe_plan(*plan(folder, model=ALIAS, rate=1))
        return Path(shutil.copy(tmp_path / "out" / "_stylejobs" / "plan.json", tmp_path / "reviewed.json"))

    @pytest.mark.parametrize("dest", ["out", "elsewhere"])
    def test_an_alias_that_has_moved_means_what_it_meant_in_the_plan(
        self, plan: Callable[..., tuple], tmp_path: Path, versions: dict[str, str], planned: Path, dest: str
    ) -> None:
        versions["champion"] = "2"
        keys = {"model": ALIAS, "dest": str(tmp_path / dest)}
        for _ in range(2):
            _, job, model = plan(tmp_path / "in", plan=str(planned), **keys)
            assert (model.uri, model.version) == (ALIAS, "1")
            assert job.identity == json.loads(planned.read_text())["identity"]
        held = json.loads((tmp_path / dest / "_stylejobs" / "plan.json").read_text())
        assert held["inputs"] == json.loads(planned.read_text())["inputs"] and held["forecast"]["rate"]["value"] == 1
        assert plan(tmp_path / "in", plan=False, **keys)[2].version == "1"
        fresh = {"model": ALIAS, "dest": str(tmp_path / "fresh")}
        assert plan(tmp_path / "in", plan=False, **fresh)[2].version == "2"

    def test_another_model_or_parameter_is_drift_and_takes_nothing(
        self, plan: Callable[..., tuple], tmp_path: Path, planned: Path
    ) -> None:
        dest = tmp_path / "new"
        keys = {"plan": str(planned), "dest": str(dest)}
        with pytest.raises(DriftError, match=r"model.version: it was made with '1', this command says '2'"):
            plan(tmp_path / "in", model="models:/demo/2", **keys)
        with pytest.raises(DriftError, match=r"parameters.strength"):
            plan(tmp_path / "in", model=ALIAS, strength=0.5, **keys)
        assert not dest.exists()

    def test_after_a_failed_canary_an_alias_is_asked_for_a_better_model(
        self, plan: Callable[..., tuple], tmp_path: Path, versions: dict[str, str], planned: Path
    ) -> None:
        versions["champion"] = "2"
        assert plan(tmp_path / "in", model=ALIAS)[2].version == "1"
        (tmp_path / "out" / "_stylejobs" / "canary.json").write_text('{"passed": false}')
        assert plan(tmp_path / "in", model=ALIAS)[2].version == "2"


def test_a_table_for_people_and_the_numbers_for_programs(
    plan: Callable[..., tuple], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = describe_plan(*plan(write_source(tmp_path / "in", "shards"), rate=2, prices={"cpu_hour": 36}))
    said = capsys.readouterr()
    assert said.out == ""
    for words in ("12 rows", "up to 0.25 MP", "8 pictures", "given with rate=", "0:00:03", "0.06"):
        assert words in said.err
    held = json.loads((tmp_path / "out" / "_stylejobs" / "plan.json").read_text())
    assert held["forecast"] == result.details["forecast"] and held["inputs"].keys() == {"0.parquet", "1.parquet"}
    assert held["model"]["sha256"] == result.model["sha256"] and np.isfinite(held["forecast"]["hours"]["expected"])
