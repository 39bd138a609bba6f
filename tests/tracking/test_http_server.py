"""Against an MLflow server over HTTP (a stub that answers like one), with a password in the URI."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stylejobs.tracking.mlflow_tracker import MlflowTracker

RUN = {
    "info": {"run_id": "r1", "run_uuid": "r1", "experiment_id": "5", "run_name": "a", "status": "RUNNING"},
    "data": {},
}
ANSWERS = {
    "/api/2.0/mlflow/experiments/get-by-name": {"experiment": {"experiment_id": "5", "name": "demo"}},
    "/api/2.0/mlflow/runs/create": {"run": RUN},
    "/api/2.0/mlflow/runs/get": {"run": RUN},
    "/api/2.0/mlflow/runs/update": {"run_info": RUN["info"]},
    "/api/2.0/mlflow/runs/log-batch": {},
}


@pytest.fixture
def server():
    received = []

    class Stub(BaseHTTPRequestHandler):
        def answer(self):
            path = self.path.partition("?")[0]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            received.append((path, self.headers.get("Authorization"), json.loads(body or b"{}")))
            known = path in ANSWERS
            data = json.dumps(ANSWERS[path] if known else {"error_code": "ENDPOINT_NOT_FOUND"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer

        def log_message(self, *args):
            """Quiet."""

    stub = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    yield stub.server_address[1], received
    stub.shutdown()
    stub.server_close()


def test_the_password_reaches_the_server_and_nobody_else(server, monkeypatch, capfd, caplog):
    port, received = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:hunter2@127.0.0.1:{port}")
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
    tracker = MlflowTracker.start("demo", "a")
    tracker.log_metrics({"loss": 0.5}, 3)
    assert tracker.finish().complete

    sent = {path: body for path, _, body in received}
    [metric] = sent["/api/2.0/mlflow/runs/log-batch"]["metrics"]
    assert (metric["key"], metric["value"], int(metric["step"])) == ("loss", 0.5, 3)
    assert sent["/api/2.0/mlflow/runs/update"]["status"] == "FINISHED"
    assert {auth for _, auth, _ in received} == {"Basic " + base64.b64encode(b"ann:hunter2").decode()}
    assert tracker.url == f"http://127.0.0.1:{port}/#/experiments/5/runs/r1"
    shown = capfd.readouterr()
    assert shown.out == "", "stdout belongs to the result"
    assert "hunter2" not in shown.err + caplog.text
