"""The CI templates: schemas, scripts and commands hold; who may what; and what happens at each exit code."""

import copy
import importlib.resources
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

from stylejobs.config.load import load_config
from stylejobs.config.submission import load_submission

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "infra/ci"
# YAML 1.1 reads the key `on` as true.
WORKFLOWS: dict[str, dict[Any, Any]] = {
    path.name: yaml.safe_load(path.read_text()) for path in sorted((PLACE / "github").glob("*.yml"))
}
GITLAB: dict[str, Any] = yaml.safe_load((PLACE / "gitlab-ci.yml").read_text())
GITLAB_JOBS = {name: job for name, job in GITLAB.items() if isinstance(job, dict) and "script" in job}
JOBS = [(file, name, job) for file, flow in WORKFLOWS.items() for name, job in flow["jobs"].items()]
VALUES = {
    "CANARY_SOURCE": "s3://photos/some",
    "CLUSTER": "https://ray.example",
    "STYLEJOBS_CLUSTER": "https://ray.example",
    "REPORTS": "s3://photos/ci",
    "STYLEJOBS_REPORTS": "s3://photos/ci",
    "folder": "s3://photos/ci/1-1",
    "MODEL": "models:/mosaic/3",
}


def scripts() -> Iterator[tuple[str, str]]:
    for file, name, job in JOBS:
        for number, step in enumerate(job["steps"]):
            if "run" in step:
                yield f"github-{file}-{name}-{number}", step["run"]
    for name, job in GITLAB_JOBS.items():
        for number, text in enumerate(job["script"]):
            yield f"gitlab-{name}-{number}", text


SCRIPTS = dict(scripts())


def commands() -> list[tuple[str, str, list[str]]]:
    found = []
    for place, script in SCRIPTS.items():
        for verb, text in re.findall(r"python -m pipelines\.(\w+) ([^|>&\n]+)", script.replace("\\\n", " ")):
            filled = re.sub(r"\$\{?(\w+)(:\?[^}]*\})?", lambda match: VALUES[match[1]], text)
            found.append((place, verb, shlex.split(filled)))
    return found


def validator(name: str) -> Validator:
    vendored = importlib.resources.files("check_jsonschema") / f"builtin_schemas/vendor/{name}.json"
    schema = json.loads(vendored.read_text())
    return validator_for(schema)(schema)


def test_the_schemas_of_github_and_gitlab_hold() -> None:
    github, gitlab = validator("github-workflows"), validator("gitlab-ci")
    for file, flow in WORKFLOWS.items():
        read = {("on" if key is True else key): value for key, value in flow.items()}
        assert [error.message for error in github.iter_errors(read)] == [], file
        spoilt = copy.deepcopy(read)
        next(iter(spoilt["jobs"].values()))["timeout"] = 5
        assert list(github.iter_errors(spoilt))
    assert [error.message for error in gitlab.iter_errors(GITLAB)] == []
    spoilt = copy.deepcopy(GITLAB)
    spoilt["stylize"]["retry"] = {"max": 9}
    assert list(gitlab.iter_errors(spoilt))


@pytest.mark.parametrize("place", SCRIPTS)
def test_scripts_hold_before_shellcheck(place: str, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text(SCRIPTS[place] + "\n")
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "--shell=bash", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("place", "verb", "arguments"), commands())
def test_commands_load(place: str, verb: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PLACE)  # where jobs/ lies, as in a repository that has copied it
    loaded = (load_submission if verb == "submit" else load_config)(verb, arguments)
    if verb == "submit":
        assert loaded.config.keys.address == VALUES["CLUSTER"]
    elif loaded.config.plan is not True:
        # On the runner: one worker, without a GPU, and nothing is written to the job's own dest.
        assert loaded.config.cluster.actors == 1 and loaded.config.cluster.actor_gpus == 0
        assert loaded.config.source == VALUES["CANARY_SOURCE"] and loaded.config.dest == "out/canary"
    else:
        assert loaded.config.dest == "out/plan" and loaded.config.cluster.actors and loaded.config.rate


def test_all_stages_are_there() -> None:
    verbs = sorted({(place.split("-")[0], verb, words[0]) for place, verb, words in commands()})
    both = [("stylize", "jobs/stylize.yaml"), ("submit", "evaluate"), ("submit", "promote"), ("submit", "stylize")]
    assert verbs == sorted((kind, *what) for kind in ("github", "gitlab") for what in both)


def test_scripts_of_ours_are_in_the_image() -> None:
    docker = (ROOT / "infra/docker/Dockerfile").read_text()
    (copied,) = re.findall(r"^COPY (infra/ci/.*) infra/ci/$", docker, re.MULTILINE)
    called = {name for script in SCRIPTS.values() for name in re.findall(r"/opt/stylejobs/(infra/\S+\.py)", script)}
    assert called == {*copied.split()} == {f"infra/ci/{path.name}" for path in PLACE.glob("*.py")}


@pytest.mark.parametrize(("file", "name", "job"), JOBS)
def test_jobs_of_github_may_little(file: str, name: str, job: dict[str, Any]) -> None:
    flow = WORKFLOWS[file]
    assert flow["permissions"] == {} and flow["concurrency"]["group"] and flow["defaults"]["run"] == {"shell": "bash"}
    allowed = [{"pull-requests": "write"}] if name == "comment" else [{}, {"contents": "read"}]
    assert job["permissions"] in allowed and 0 < job["timeout-minutes"] < 360
    for step in job["steps"]:
        # Text that others choose is no part of a script: it comes through the environment.
        assert "${{" not in step.get("run", "")
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
            assert not step["uses"].startswith("actions/checkout") or step["with"]["persist-credentials"] is False
    text = json.dumps(job)
    if "RAY_AUTH_TOKEN" in text:
        assert job["environment"] and True in flow and "pull_request" not in flow[True]
        assert "github.ref == 'refs/heads/main'" in job.get("if", "") or job["needs"] == "evaluate"


def test_a_pull_request_sees_no_secret_that_writes() -> None:
    assert not any("pull_request_target" in flow[True] for flow in WORKFLOWS.values())
    flow = WORKFLOWS["plan.yml"]
    assert {*flow[True]} == {"pull_request"}
    assert "head.repo.full_name == github.repository" in flow["jobs"]["plan"]["if"]
    assert flow["jobs"]["comment"]["needs"] == "plan" and "skipped" in flow["jobs"]["comment"]["if"]
    text = (PLACE / "github/plan.yml").read_text()
    secrets = re.findall(r"\bsecrets\.(\w+)", text)
    assert len(secrets) == 4 and all(name.startswith("PLAN_") for name in secrets)
    assert "secrets" not in json.dumps(flow["jobs"]["comment"])
    for name in ("plan", "comment"):
        (rule,) = GITLAB_JOBS[name]["rules"]
        assert "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID" in rule["if"]


def test_a_champion_needs_somebody_who_approves() -> None:
    job = WORKFLOWS["evaluate.yml"]["jobs"]["promote"]
    assert job["environment"] == "champion" and job["needs"] == "evaluate" and job["if"].endswith("model != ''")
    assert [step.keys() & {"uses"} for step in job["steps"]] == [set()]
    gitlab = GITLAB_JOBS["promote"]
    assert gitlab["environment"] == "champion" and gitlab["needs"] == ["evaluate"]
    assert [rule["when"] for rule in gitlab["rules"]] == ["manual"]
    assert GITLAB_JOBS["evaluate"]["artifacts"]["reports"] == {"junit": "gates.xml", "dotenv": "model.env"}


@pytest.mark.parametrize("name", ["stylize", "evaluate"])
def test_gitlab_goes_on_after_3_and_tries_6_again(name: str) -> None:
    job = GITLAB_JOBS[name]
    assert job["allow_failure"] == {"exit_codes": 3} and job["retry"] == {"max": 2, "exit_codes": 6}
    assert job["timeout"] and job["resource_group"] and job["environment"]


STUB = """#!/bin/sh
echo "$@" >> calls
case "$*" in
  *pipelines.submit*)
    echo '{"exit_code": '"$CODE"', "model": {"name": "mosaic", "version": "3"}}'
    exit "$CODE" ;;
  *) exec "$PYTHON" "$@" ;;
esac
"""


def run_script(place: str, code: int, folder: Path) -> tuple[int, str, list[str]]:
    """A script as CI runs it, with a cluster whose jobs end with `code`: exit code, output, and calls of python."""
    script = SCRIPTS[place].replace("/opt/stylejobs/", f"{ROOT}/")
    (folder / "bin").mkdir()
    (folder / "bin/python").write_text(STUB)
    (folder / "bin/python").chmod(0o755)
    reports = folder / "reports" / ("7-1" if "github" in place else "7")
    reports.mkdir(parents=True)
    (reports / "summary.md").write_text("## the gates\n")
    (reports / "gates.xml").write_text("<testsuite/>")
    environment = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "CODE": str(code),
        "PAUSES": "0 0 end",
        **dict.fromkeys(("CLUSTER", "STYLEJOBS_CLUSTER"), "https://ray.example"),
        **dict.fromkeys(("REPORTS", "STYLEJOBS_REPORTS"), str(folder / "reports")),
        **dict.fromkeys(("GITHUB_RUN_ID", "CI_PIPELINE_ID"), "7"),
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_OUTPUT": str(folder / "output"),
    }
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    calls = [line for line in (folder / "calls").read_text().splitlines() if "pipelines.submit" in line]
    return done.returncode, done.stdout + done.stderr, calls


def place_of(words: str) -> str:
    (place,) = [place for place in SCRIPTS if place.startswith(words) and "pipelines.submit" in SCRIPTS[place]]
    return place


@pytest.mark.parametrize(("code", "ends", "tries", "said"), [
    (0, 0, 1, ""), (1, 1, 1, ""), (3, 0, 1, "::warning::"), (4, 4, 1, "gate refused"), (5, 5, 1, "another source"),
    (6, 6, 3, "three tries"),
])  # fmt: skip
def test_what_github_does_at_each_exit_code(code: int, ends: int, tries: int, said: str, tmp_path: Path) -> None:
    returned, output, calls = run_script(place_of("github-stylize.yml"), code, tmp_path)
    assert returned == ends and len(calls) == tries and said in output
    assert '"version": "3"' in (tmp_path / "summary").read_text()


@pytest.mark.parametrize("kind", ["github-evaluate.yml-evaluate", "gitlab-evaluate"])
@pytest.mark.parametrize("code", [0, 3, 4, 6])
def test_only_a_version_that_passed_may_be_promoted(kind: str, code: int, tmp_path: Path) -> None:
    returned, _, calls = run_script(place_of(kind), code, tmp_path)
    assert returned == code and len(calls) == (3 if code == 6 and kind.startswith("github") else 1)
    assert (tmp_path / "gates.xml").exists() == (code in (0, 4))
    assert (tmp_path / "model.env").exists() == (code == 0)
    if code == 0:
        assert (tmp_path / "model.env").read_text() == "MODEL=models:/mosaic/3\n"
    if kind.startswith("github"):
        assert (tmp_path / "output").exists() == (code == 0)
        assert (tmp_path / "summary").exists() == (code in (0, 4))


def test_gitlab_offers_nothing_to_promote_without_a_verdict(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], **dict.fromkeys(("STYLEJOBS_CLUSTER", "STYLEJOBS_REPORTS"), "x")}
    command = ["bash", "-eo", "pipefail", "-c", SCRIPTS["gitlab-promote-0"]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "evaluate left no version that passed" in done.stderr
