"""From the command to the first image that is written, with a Ray of its own and on a cluster that runs already.

python -m tests.bench.start_up KEY=VALUE...     the command `stylize` itself, which also says when it got how far
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.table import Line, at_most, print_lines

MOMENTS = ("interpreter", "imports", "plan", "tracker", "ray", "worker and first unit")
BARS = {"a fresh local Ray": 30.0, "a running cluster": 12.0}
RUNS = 5
_PREFIX = "moments: "


def say_moments(words: list[str]) -> int:
    """The command in this process; when it has done what is a line on stderr."""
    moments = {"interpreter": time.time()}
    import stylejobs.engine.session as session
    import stylejobs.tracking.mlflow_tracker as tracking

    def noting(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = work(*arguments, **named)
            moments[name] = time.time()
            return result

        return call

    real_session = session.ray_session

    @contextmanager
    def ray_session(*arguments: Any, **named: Any) -> Iterator[None]:
        with real_session(*arguments, **named):
            moments["ray"] = time.time()
            yield

    session.ray_session = ray_session
    tracking.MlflowTracker.start = noting("tracker", tracking.MlflowTracker.start)
    import stylejobs.engine.stylize as engine
    from pipelines.stylize import main

    moments["imports"] = time.time()
    engine.plan_stylize = noting("plan", engine.plan_stylize)
    exit_code = main(words)
    print(_PREFIX + json.dumps(moments), file=sys.stderr)
    return exit_code


def run_once(source: Path, dest: Path, package: str) -> dict[str, float]:
    """Seconds from the command to each of `MOMENTS`; the last is the first marker, which follows the first file."""
    words = [f"source={source}", f"dest={dest}", f"model={package}", "unit_mb=0.05", "gallery=0"]
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.start_up", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{dest.parent}/mlflow.db"},
    )
    if done.returncode:
        raise RuntimeError(f"stylize ended with {done.returncode}:\n{done.stderr[-4000:]}")
    (line,) = (line for line in done.stderr.splitlines() if line.startswith(_PREFIX))
    moments = json.loads(line.removeprefix(_PREFIX))
    written = [path.stat().st_mtime for path in (dest / "data").iterdir()]
    moments["worker and first unit"] = min(written)
    return {name: moments[name] - started for name in MOMENTS}


def bench(quick: bool) -> None:
    """Part `start`."""
    from stylejobs.engine.session import ray_session
    from tests.bench.pictures import photo_crops, write_model, write_parquet

    runs = 1 if quick else RUNS
    with tempfile.TemporaryDirectory(prefix="stylejobs-bench-") as scratch:
        place = Path(scratch)
        source = write_parquet(place / "source" / "photos.parquet", list(photo_crops(64, [128])), 8).parent
        package = write_model(place, "johnson narrow")

        def measure(name: str) -> None:
            # The first makes the tracking store, which happens once.
            found = [run_once(source, place / f"{name}-{run}".replace(" ", "-"), package) for run in range(runs + 1)]
            print_lines(f"start-up with {name}, medians of {runs} runs", _lines(name, found[1:]))

        measure("a fresh local Ray")
        with ray_session():
            import ray

            os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
            try:
                measure("a running cluster")
            finally:
                del os.environ["RAY_ADDRESS"]


def _lines(name: str, found: list[dict[str, float]]) -> list[Line]:
    lines, before = [], dict.fromkeys(range(len(found)), 0.0)
    for moment in sorted(MOMENTS, key=lambda moment: statistics.median(one[moment] for one in found)):
        reached = statistics.median(one[moment] for one in found)
        took = statistics.median(one[moment] - before[number] for number, one in enumerate(found))
        lines.append(Line(f"  {moment}", f"{took:5.1f} s, by {reached:5.1f} s"))
        before = {number: one[moment] for number, one in enumerate(found)}
    first = statistics.median(one[MOMENTS[-1]] for one in found)
    return [at_most("command to the first file written", first, BARS[name], "s"), *lines]


if __name__ == "__main__":
    sys.exit(say_moments(sys.argv[1:]))
