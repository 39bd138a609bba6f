"""`make demo`: real photographs through the whole system, with the same commands that a person would type.

The verbs run one after the other in this process, so that they share one Ray; each prints the command it stands for.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from pipelines import evaluate, ingest, promote, stylize, train
from stylejobs.engine.session import ray_session

PLACE = Path("out/demo")
MODEL = "demo-painting"
GATES = "conf/evaluate/gates-demo.yaml"
STEPS = [
    (ingest, f"source={PLACE}/photos dest={PLACE}/shards labels=folder shard_mb=4 max_bad=0.02"),
    (
        train,
        f"conf/train/fast-tiny.yaml conf/site/laptop.yaml content={PLACE}/shards style={PLACE}/style.png name={MODEL}",
    ),
    (
        evaluate,
        f"conf/site/laptop.yaml model=models:/{MODEL}@candidate data={PLACE}/held-out style={PLACE}/style.png "
        f"images=60 baseline=none gates={GATES}",
    ),
    (promote, f"model=models:/{MODEL}@candidate gates={GATES}"),
    (
        stylize,
        f"conf/site/laptop.yaml source={PLACE}/shards dest={PLACE}/stylized model=models:/{MODEL}@champion unit_mb=4",
    ),
]


def main() -> int:
    """Runs the demo; stops at the first verb that does not end with 0."""
    started = time.monotonic()
    shutil.rmtree(PLACE, ignore_errors=True)
    # Each call paints a style image, too: the last one's is used.
    for folder, options in (("held-out", ["--num", "66", "--seed", "1", "--bad", "0"]), ("photos", [])):
        photos = [sys.executable, "infra/demo/photos.py", f"{PLACE}/{folder}", *options]
        _say(shlex.join(["python", *photos[1:]]))
        subprocess.run(photos, check=True)
    with ray_session(num_cpus=max(4, os.cpu_count() or 1)):
        for verb, arguments in STEPS:
            _say(f"python -m {verb.__name__} {arguments}")
            exit_code = verb.main(arguments.split())
            if exit_code:
                return exit_code
    _say(f"demo finished in {time.monotonic() - started:.0f} s")
    print(
        "see the run and the model: .venv/bin/mlflow ui --backend-store-uri sqlite:///.stylejobs/mlflow.db",
        file=sys.stderr,
    )
    print(f"look at the pictures: {(PLACE / 'stylized/report/index.html').resolve()}", file=sys.stderr, flush=True)
    return 0


def _say(line: str) -> None:
    print(f"\n$ {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
