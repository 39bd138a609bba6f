"""The scripts that CI calls: the comment of a real plan and canary, the note on GitLab, the verdict that is kept."""

import importlib.util
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import Outcome

PLACE = Path(__file__).parents[2] / "infra/ci"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ci_{name}", PLACE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plan_comment, gitlab_note, verdict = map(load, ("plan_comment", "gitlab_note", "verdict"))


@pytest.mark.ray
def test_the_comment_says_rows_cost_and_gates_of_a_real_plan_and_canary(
    verb: Callable[..., Outcome],
    photo_folder: Path,
    style_image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = [f"source={photo_folder}", "model=builtin:moments", f"styles={style_image}", "rate=2", "prices.cpu_hour=3600"]
    bad = photo_folder / "bad.jpg"
    bad.write_bytes(b"no picture")
    # No picture is as like its source as that is asked here: a gate refuses.
    canary = ("canary=1", "max_bad=0.2", "canary_similarity=1")
    for name, exit_code, *keys in (("plan", 0, "plan=true"), ("canary", 4, *canary)):
        done = verb("stylize", *job, f"dest=out/{name}", *keys)
        assert done.exit_code == exit_code, done.stderr
        Path(f"{name}.jsonl").write_text(done.stdout)
    gates = Path("out/canary/_stylejobs/canary.json")
    arguments = ["plan.jsonl", "canary.jsonl", "--canary", str(gates), "--pictures", "https://ci.example/1"]
    assert plan_comment.main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("<!-- stylejobs plan -->\n")
    # 21 pictures at 2 a second, on one CPU at 1 a second.
    assert (
        "| rows | 21, " in text and "| **cost** | **10.50 (10.50 to 10.50)** |" in text and "| time | 10.5 s " in text
    )
    assert "**REFUSED**: 21 rows, bad: 1 `not_an_image`" in text and "| `constant` | ok | 0 | at most 0.1 |" in text
    assert (
        "| `content similarity` | **failed** | 0." in text
        and "exit code 4:\n\n```text\nstylize: canary: 1 gate" in text
    )
    assert "<https://ci.example/1>" in text and len(list(gates.with_name("canary").glob("*.jpg"))) == 8

    # Nothing that somebody else writes is Markdown or HTML of ours.
    evil = "a|b`c`\n<img src=x onerror=alert(1)> @everyone [x](http://evil.example) token=hunter2"
    plan, canary = (json.loads(Path(f"{name}.jsonl").read_text().splitlines()[-1]) for name in ("plan", "canary"))
    plan["model"]["name"] = evil
    hostile = plan_comment.render_comment(plan, {**canary, "message": f"```\n{evil}"}, None, None)
    (row,) = [line for line in hostile.splitlines() if line.startswith("| model |")]
    assert row.count("|") - row.count("\\|") == 3 and row.count("`") == 6 and "hunter2" not in hostile
    assert hostile.count("```") == 2 and "ended with exit code 4:" in hostile
    assert "<img" in row.split("`")[3]  # as text, inside code


def test_a_plan_that_failed_is_said_and_one_that_is_missing_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = {"exit_code": 2, "message": "stylize: source=s3://photos/shards: nothing is there", "model": None}
    Path("plan.jsonl").write_text(f"some text\n{json.dumps(failed)}\n")
    shutil.copy("plan.jsonl", "canary.jsonl")
    assert plan_comment.main(["plan.jsonl", "canary.jsonl", "--canary", "absent.json"]) == 0
    assert capsys.readouterr().out.count("ended with exit code 2:\n\n```text\nstylize: source=s3://photos/shards") == 2
    for text in ("", "[]", "no JSON"):
        Path("plan.jsonl").write_text(text)
        assert plan_comment.main(["plan.jsonl", "canary.jsonl"]) == 2
        assert "plan.jsonl: wanted what a verb printed" in capsys.readouterr().err
    assert plan_comment.main(["absent.jsonl", "canary.jsonl"]) == 2


class GitLab(BaseHTTPRequestHandler):
    """As much of GitLab's notes as is asked for, for one token."""

    notes: list[dict[str, Any]]

    def answer(self, status: int, value: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def do_GET(self) -> None:
        if self.headers["PRIVATE-TOKEN"] != "glpat":
            return self.answer(401, {"message": "401 Unauthorized"})
        if self.path == "/api/v4/user":
            return self.answer(200, {"id": 5})
        assert self.path.startswith("/api/v4/projects/7/merge_requests/3/notes?per_page=100&page=")
        page = int(self.path.rpartition("=")[2])
        return self.answer(200, self.notes[100 * (page - 1) : 100 * page])

    def do_POST(self) -> None:
        note = {"id": len(self.notes) + 1, "author": {"id": 5}, "body": self.read()["body"]}
        self.notes.append(note)
        self.answer(201, note)

    def do_PUT(self) -> None:
        note = self.notes[int(self.path.rpartition("/")[2]) - 1]
        note["body"] = self.read()["body"]
        self.answer(200, note)

    def read(self) -> dict[str, str]:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def gitlab(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The notes of a merge request; what others have written fills a page."""
    theirs = [{"id": number, "author": {"id": 9}, "body": f"{plan_comment.MARKER}\nmine"} for number in range(1, 101)]
    handler = type("OneGitLab", (GitLab,), {"notes": theirs})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("CI_API_V4_URL", f"http://127.0.0.1:{server.server_port}/api/v4")
        for name, value in (("PROJECT_ID", "7"), ("MERGE_REQUEST_IID", "3")):
            monkeypatch.setenv(f"CI_{name}", value)
        monkeypatch.setenv("GITLAB_NOTE_TOKEN", "glpat")
        yield theirs
        server.shutdown()
        thread.join()


def test_there_is_one_note_of_ours_which_changes(
    gitlab: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comment = tmp_path / "comment.md"
    for text, done in (("first", "made"), ("second", "changed")):
        comment.write_text(f"{plan_comment.MARKER}\n{text}\n")
        assert gitlab_note.main([str(comment)]) == 0 and done in capsys.readouterr().err
    assert len(gitlab) == 101 and gitlab[-1]["body"] == comment.read_text()
    assert all(note["body"].endswith("mine") for note in gitlab[:100])

    monkeypatch.setenv("GITLAB_NOTE_TOKEN", "another")
    assert gitlab_note.main([str(comment)]) == 6
    error = capsys.readouterr().err
    assert "401" in error and "another" not in error
    monkeypatch.delenv("GITLAB_NOTE_TOKEN")
    assert gitlab_note.main([str(comment)]) == 2 and "GITLAB_NOTE_TOKEN is not set" in capsys.readouterr().err
    monkeypatch.setenv("GITLAB_NOTE_TOKEN", "glpat")
    assert gitlab_note.main([str(tmp_path / "absent.md")]) == 2 and gitlab_note.main([]) == 2


def test_a_verdict_is_kept_and_a_version_only_where_it_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    monkeypatch.chdir(tmp_path)
    result = {"exit_code": 4, "model": {"name": "mosaic", "version": "3"}}
    Path("result.jsonl").write_text(json.dumps(result))
    assert verdict.main([str(reports), "result.jsonl"]) == 2 and "summary.md" in capsys.readouterr().err
    for name in verdict.REPORTS:
        (reports / name).write_text(name)
    assert verdict.main([str(reports), "result.jsonl"]) == 0
    assert Path("summary.md").read_text() == "summary.md" and not Path("model.env").exists()
    Path("result.jsonl").write_text(json.dumps({**result, "exit_code": 0}))
    assert verdict.main([str(reports), "result.jsonl"]) == 0
    assert Path("model.env").read_text() == "MODEL=models:/mosaic/3\n"
    for name in ("mosaic\nPATH=evil", "a/b", "", None):
        with pytest.raises(ValueError, match="wanted a version of a registered model"):
            verdict.version_of({"model": {"name": name, "version": "3"}})
    assert verdict.main([]) == 2
