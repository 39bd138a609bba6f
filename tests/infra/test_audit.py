"""infra/audit.py against a service that answers as OSV does, one that is away, and one that hangs."""

import contextlib
import datetime
import importlib.util
import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
LOCK = f"alpha==1.0 \\\n    --hash=sha256:{'a' * 64}\nbeta==2.0 \\\n    --hash=sha256:{'b' * 64}\n"
HOLE = {
    "id": "GHSA-test", "aliases": ["CVE-2026-1"], "summary": "runs code", "schema_version": "1.6.0",
    "affected": [
        {
            "package": {"name": "beta", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}],
        }
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "infra/audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict]]:
    """Answers that `beta` has a hole; the list is of what it was asked."""
    asked: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            found = {"vulns": [HOLE]} if asked[-1]["package"]["name"] == "beta" else {}
            data = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_address[1]}/v1/query")
    yield asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    (tmp_path / "lock").write_text(LOCK)
    (tmp_path / "accepted").write_text("# none\n")
    return ["--lock", str(tmp_path / "lock"), "--accepted", str(tmp_path / "accepted")]


def test_a_known_hole_fails_and_says_what_to_do(
    audit: ModuleType, service: list[dict], line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(line) == 1
    said = capsys.readouterr().err
    assert "2 packages, 1 known hole(s)" in said and "beta 2.0: CVE-2026-1, mended in 2.1" in said
    assert "make lock" in said
    assert {(one["package"]["name"], one["version"]) for one in service} == {("alpha", "1.0"), ("beta", "2.0")}


def test_an_accepted_hole_passes_until_its_day(
    audit: ModuleType, service: list[dict], line: list[str], tmp_path: Path
) -> None:
    today = datetime.date.today()
    (tmp_path / "accepted").write_text(f"CVE-2026-1 {today} nothing of it is used\n")
    assert audit.main(line) == 0
    (tmp_path / "accepted").write_text(f"CVE-2026-1 {today - datetime.timedelta(days=1)} nothing of it is used\n")
    assert audit.main(line) == 1


def test_without_a_network_it_says_so_and_passes(
    audit: ModuleType, line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9/v1/query")  # "discard": nobody answers
    assert audit.main(line) == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("audit: not done, nobody was asked about known holes: ")


def test_a_service_that_hangs_is_given_up(
    audit: ModuleType, line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/v1/query")
        assert audit.main([*line, "--probe-seconds", "6"]) == 0
    assert "not done, nobody was asked about known holes: no answer in 6 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ("lock", "alpha==1.0\n", "audit: pip-audit failed: "),
        ("accepted", "CVE-2026-1 tomorrow because\n", "accepted ids, line 1: wanted `ID YYYY-MM-DD reason`"),
        ("accepted", "CVE-2026-1 2026-12-01\n", "accepted ids, line 1: wanted `ID YYYY-MM-DD reason`"),
    ],
)
def test_an_audit_that_cannot_be_done_is_no_success(
    audit: ModuleType, service: list[dict], line: list[str], tmp_path: Path, wrong: tuple[str, str, str]
) -> None:
    file, text, said = wrong
    (tmp_path / file).write_text(text)
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        assert audit.main(line) == 1
    assert said in printed.getvalue()


def test_the_file_of_accepted_holes_can_be_read(audit: ModuleType) -> None:
    audit.read_accepted((ROOT / "infra/audit-accepted.txt").read_text(), datetime.date.today())
