"""`make stack-up`, `stack-demo`, `stack-down`: an S3 server, MLflow and a Ray head with a token, here, without Docker.

    python -m infra.stack.run up      # starts them, on loopback; what leads to them is in out/stack/env
    python -m infra.stack.run demo    # train, evaluate, promote and stylize on s3://, each through submit
    python -m infra.stack.run down    # ends what `up` has started, and nothing else; what they keep stays

MLflow keeps its files on the S3 server and alone has its keys; the Ray head gives its jobs theirs.
"""

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import s3fs

from infra.stack.processes import Server, end, free_port, runs
from infra.stack.servers import S3Keys, mlflow_server, ray_head, s3_environment, s3_server

PLACE = Path("out/stack").resolve()
ENVIRONMENT = PLACE / "env"
NAMES = ("ray", "mlflow", "s3")
DATA = "s3://stylejobs/demo"
MODEL = "stack-painting"
GATES = "conf/evaluate/gates-demo.yaml"
STEPS = {
    "ingest": f"source={DATA}/photos dest={DATA}/shards labels=folder shard_mb=4 max_bad=0.02",
    "train": (
        f"conf/train/fast-tiny.yaml conf/site/laptop.yaml content={DATA}/shards style={DATA}/style.png name={MODEL} "
        f"storage={DATA}/runs"
    ),
    "evaluate": (
        f"conf/site/laptop.yaml model=models:/{MODEL}@candidate data={DATA}/held-out style={DATA}/style.png images=60 "
        f"baseline=none gates={GATES} storage={DATA}/evaluations"
    ),
    "promote": f"model=models:/{MODEL}@candidate gates={GATES} results={DATA}/promotions",
    "stylize": (
        f"conf/site/laptop.yaml source={DATA}/shards dest={DATA}/stylized model=models:/{MODEL}@champion unit_mb=4"
    ),
}


def up() -> int:
    """Starts the three servers, unless they run."""
    left = [name for name in NAMES if runs(PLACE / f"{name}.pid")]
    if left:
        _say(f"runs already: {', '.join(left)}; `make stack-down` ends it")
        return 0 if len(left) == len(NAMES) else 6
    PLACE.mkdir(parents=True, exist_ok=True)
    PLACE.chmod(0o700)
    started: list[Server] = []
    try:
        for server in _servers(started):
            began = time.monotonic()
            started.append(server)
            server.wait()
            _say(f"{server.name:7} {server.url}  pid {server.process.pid}, {time.monotonic() - began:.0f} s")
    except BaseException:
        for server in reversed(started):
            server.end()
        raise
    _say(f"to use it: . {os.path.relpath(ENVIRONMENT)}; then python -m pipelines.submit VERB address=$STACK_RAY ...")
    return 0


def _servers(started: list[Server]):
    """One after the other: each leads to the next."""
    keys = S3Keys()
    yield s3_server(PLACE, keys, ("stylejobs", "mlflow"), port=8333)
    aws = s3_environment(started[0].url, keys.key, keys.secret)
    yield mlflow_server(PLACE, files="s3://mlflow/files", environment=aws, port=5000)
    token = secrets.token_hex(32)
    found = {**aws, "MLFLOW_TRACKING_URI": started[1].url, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    scratch = Path(tempfile.mkdtemp(prefix="stack-"))
    (PLACE / "scratch").write_text(str(scratch))
    ray = ray_head(PLACE, scratch, max(4, os.cpu_count() or 1), found, free_port(6379), dashboard_port=8265)
    ENVIRONMENT.touch(mode=0o600)
    lines = {**found, "STACK_RAY": ray.url}
    ENVIRONMENT.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in lines.items()))
    yield ray


def down() -> int:
    """Ends exactly what `up` has started."""
    for name in NAMES:
        ended = end(PLACE / f"{name}.pid")
        _say(f"{name:7} {'ended' if ended else 'does not run'}")
    ENVIRONMENT.unlink(missing_ok=True)
    if (PLACE / "scratch").exists():
        shutil.rmtree((PLACE / "scratch").read_text(), ignore_errors=True)
        (PLACE / "scratch").unlink()
    return 0


def demo() -> int:
    """The jobs of the README on the stack; stops at the first that does not end with 0."""
    if not ENVIRONMENT.exists():
        _say("the stack does not run; `make stack-up` starts it")
        return 6
    environment = {**os.environ, **_exports()}
    files = s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"], secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
    )  # fmt: skip
    began = time.monotonic()
    _upload(files)
    for verb, arguments in STEPS.items():
        line = f"python -m pipelines.submit {verb} address={environment['STACK_RAY']} {arguments}"
        print(f"\n$ {line}", file=sys.stderr, flush=True)
        exit_code = subprocess.run([sys.executable, *line.split()[1:]], env=environment).returncode
        if exit_code:
            return exit_code
    shutil.rmtree(PLACE / "report", ignore_errors=True)
    files.get(f"{DATA}/stylized/report", str(PLACE / "report"), recursive=True)
    _say(f"five jobs in {time.monotonic() - began:.0f} s; look at the pictures: {PLACE / 'report/index.html'}")
    return 0


def _upload(files: s3fs.S3FileSystem) -> None:
    """Photographs and a painted style image, made here."""
    with tempfile.TemporaryDirectory() as folder:
        # Each call paints a style image, too: the last one's is used.
        for name, options in (("held-out", ["--num", "66", "--seed", "1", "--bad", "0"]), ("photos", [])):
            style = ["--style", f"{folder}/style.png"]
            subprocess.run([sys.executable, "infra/demo/photos.py", f"{folder}/{name}", *options, *style], check=True)
            files.put(f"{folder}/{name}/", f"{DATA}/{name}/", recursive=True)
        files.put(f"{folder}/style.png", f"{DATA}/style.png")


def _exports() -> dict[str, str]:
    words = shlex.split(ENVIRONMENT.read_text())
    return dict(word.split("=", 1) for word in words if word != "export")


def _say(text: str) -> None:
    print(f"stack: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    commands = {"up": up, "down": down, "demo": demo}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(f"wanted one of {', '.join(commands)}\n\n{__doc__}")
    sys.exit(commands[sys.argv[1]]())
