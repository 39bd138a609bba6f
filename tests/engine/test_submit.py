"""What `submit` sends, without a cluster: the job's file, its code, its environment, and where results go."""

import json
from pathlib import Path

import pytest
import yaml

from pipelines.submit import main
from stylejobs.config.load import load_config
from stylejobs.config.submission import load_submission
from stylejobs.engine import submit
from stylejobs.engine.cluster_jobs import JobState
from stylejobs.engine.code_package import JOB_FILE, pack_code
from stylejobs.engine.command import run_command
from stylejobs.engine.results import JobResult
from stylejobs.errors import ClusterError, PartialError, StorageError, UsageError

ADDRESS = "address=http://127.0.0.1:9"  # the port of "discard": nobody answers


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    return tmp_path


def job_file(*arguments: str) -> dict:
    verb, *rest = arguments
    return yaml.safe_load(submit._job_file(load_config(verb, rest)))


def test_the_file_holds_what_differs_and_places_that_mean_the_same_there(folder: Path):
    (folder / "style.png").touch()
    found = job_file(
        "stylize", "source=photos", "dest=s3://b/out", "model=models:/m@champion", "styles=style.png,mosaic",
        "cluster.actors=2", "seed=0",
    )  # fmt: skip
    assert found == {
        "source": str(folder / "photos"),
        "dest": "s3://b/out",
        "model": "models:/m@champion",
        "styles": [str(folder / "style.png"), "mosaic"],  # a name of the model's stays a name
        "cluster": {"actors": 2},
    }


def test_a_default_place_is_this_folders_and_what_travels_is_found_where_it_arrives(folder: Path):
    found = job_file("evaluate", "model=models:/m/3", "data=s3://b/held-out")
    assert found["storage"] == str(folder / ".stylejobs/evaluations") and "gates" not in found
    assert job_file("evaluate", "model=models:/m/3", "data=s3://b/a", "gates=conf/evaluate/gates-demo.yaml")[
        "gates"
    ] == ("conf/evaluate/gates-demo.yaml")


def test_a_name_is_not_taken_for_a_folder_that_is_called_so(folder: Path):
    (folder / "stylejobs").mkdir()
    (folder / "label").mkdir()
    found = job_file("train", "method=fast", "content=s3://b/a", "style=s3://b/b", "name=label", "storage=s3://b/runs")
    assert found == {
        "method": "fast",
        "content": "s3://b/a",
        "style": "s3://b/b",
        "name": "label",
        "storage": "s3://b/runs",
    }


def test_the_file_means_what_the_command_meant(folder: Path):
    arguments = ["source=/a/photos", "dest=/a/out", "model=builtin:moments", "limits.max_mb=8", "strength=0.3-1"]
    loaded = load_config("stylize", arguments)
    (folder / JOB_FILE).write_text(submit._job_file(loaded))
    assert load_config("stylize", [JOB_FILE]).digest == loaded.digest


def test_only_code_and_shipped_texts_travel(folder: Path):
    pack_code(folder / "sent", "seed: 1\n")
    names = {str(path.relative_to(folder / "sent")) for path in (folder / "sent").rglob("*") if path.is_file()}
    assert {"job.yaml", "pipelines/stylize.py", "stylejobs/engine/submit.py", "conf/evaluate/gates.yaml"} <= names
    assert {Path(name).parts[0] for name in names} == {"job.yaml", "pipelines", "stylejobs", "conf"}
    assert {Path(name).suffix for name in names} <= {".py", ".yaml", ".typed", ".css", ".j2", ".js"}


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"])
def test_a_password_in_what_would_travel_is_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "http://me:hunter2@server:5000")
    with pytest.raises(UsageError, match=name) as caught:
        submit._environment()
    assert "hunter2" not in str(caught.value)


def test_secrets_do_not_travel(monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "canary")
    assert "canary" not in str(submit._environment())


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("stylize", "source=a", "dest=s3://b/out", "model=builtin:fda"), "s3://b/out/_stylejobs/submitted"),
        (("train", "method=fast", "content=a", "name=m", "style=b", "storage=s3://b/runs"), "s3://b/runs/submitted"),
        (("promote", "model=models:/m/1", "results=s3://b/results"), "s3://b/results"),
    ],
)
def test_results_have_a_place(arguments: tuple[str, ...], place: str):
    submission = load_submission("submit", [*arguments, ADDRESS]).config
    assert submit._results_folder(submission.keys, submission.job) == place


def test_a_verb_without_a_place_must_be_given_one(capsys: pytest.CaptureFixture[str]):
    assert main(["promote", ADDRESS, "model=models:/m/1"]) == 2
    assert "results=: promote has no dest or storage" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_ends_with_6(capsys: pytest.CaptureFixture[str]):
    assert main(["stylize", ADDRESS, "source=a", "dest=out", "model=builtin:fda", "styles=a.png"]) == 6
    assert "nothing answers there" in capsys.readouterr().err


def test_what_is_to_be_done_decides_the_name(folder: Path):
    def name(*arguments: str) -> str:
        loaded = load_config("stylize", ["source=a", "dest=b", "model=builtin:fda", *arguments])
        return submit._digest(loaded, submit._job_file(loaded))

    (folder / "plan.json").write_text("{}")
    planned = name("plan=plan.json")
    assert name() == name("seed=0") != name("seed=1")
    (folder / "plan.json").write_text("{ }")
    assert name("plan=plan.json") != planned


KEYS = load_submission("submit", ["stylize", ADDRESS, "source=a", "dest=b", "model=builtin:fda"]).config.keys


@pytest.mark.parametrize("status", ["SUCCEEDED", "STOPPED", "FAILED"])
def test_the_result_on_storage_is_the_truth_whatever_ray_says(status: str, folder: Path):
    kept = JobResult(
        "stylize", exit_code=3, message="the deadline", resume_command="python -m pipelines.stylize job.yaml"
    )
    (folder / "sty-a1.json").write_text(json.dumps(kept.as_dict()))
    found = submit._ending(JobState(status, "", None), "sty-a1", str(folder), KEYS)
    assert (found.verb, found.exit_code, found.goes_on) == ("stylize", 3, True)
    assert found.details["submission"]["id"] == "sty-a1"


@pytest.mark.parametrize(
    ("state", "error", "says"),
    [
        (JobState("SUCCEEDED", "", 0), StorageError, "no result at"),
        (JobState("STOPPED", "", None), PartialError, "was stopped"),
        (JobState("FAILED", "the driver was killed", None), ClusterError, "the driver was killed"),
        (JobState("FAILED", "exit code -9", -9), ClusterError, "was killed or never started"),
        (None, ClusterError, "has lost sty-a1"),
    ],
)
def test_without_a_result_nothing_is_called_a_success(
    state: JobState | None, error: type[Exception], says: str, folder: Path
):
    with pytest.raises(error, match=says):
        submit._ending(state, "sty-a1", str(folder), KEYS)


def test_a_command_that_could_not_leave_its_result_keeps_its_exit_code(folder: Path):
    found = submit._ending(JobState("FAILED", "exit code 5\nmore", 5), "sty-a1", str(folder), KEYS)
    assert found.exit_code == 5 and "exit code 5" in found.message and "more" not in found.message


def test_a_result_that_is_torn_is_said_to_be(folder: Path):
    (folder / "sty-a1.json").write_text('{"exit_code": 0, ')
    with pytest.raises(StorageError, match="not a result"):
        submit._ending(JobState("SUCCEEDED", "", 0), "sty-a1", str(folder), KEYS)


def test_a_command_leaves_its_result_where_it_was_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("STYLEJOBS_RESULT_URI", str(folder / "results" / "sty-a1.json"))
    code = run_command("verify", lambda config: JobResult("verify", exit_code=4, message="faults"), ["dest=out"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 4 and json.loads((folder / "results" / "sty-a1.json").read_text()) == printed


def test_a_result_that_cannot_be_left_is_an_error_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (folder / "file").touch()
    monkeypatch.setenv("STYLEJOBS_RESULT_URI", str(folder / "file" / "sty-a1.json"))
    assert run_command("verify", lambda config: JobResult("verify"), ["dest=out"]) == 6
    assert "file" in capsys.readouterr().err
