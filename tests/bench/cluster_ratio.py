"""Our job beside a plain Ray Data script on the same Ray, and beside a stylize-a-folder script with all its threads.

Steady state: workers say when they have their model; images/s is of all of them together from then to the end of the
last written file. Planning, starting actors and loading models are apart.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stylejobs.config.load import load_config
from stylejobs.engine.session import ray_session
from stylejobs.engine.stylize import plan_stylize
from stylejobs.engine.stylizer import Stylizer, StylizeSettings
from tests.bench.peers import BATCH, QUALITY, ray_data_script, write_folder
from tests.bench.pictures import photo_crops, write_model, write_parquet
from tests.bench.table import Line, at_least, print_lines

MODEL, SIDE_PX = "johnson narrow", 256
NUM_FILES, ROWS_A_FILE, ROWS_A_GROUP = 6, 128, 32
PAIRS = 5


class SayingStylizer(Stylizer):
    """Ours, saying when it has its model in the folder beside its dataset."""

    def __init__(self, settings: StylizeSettings):
        super().__init__(settings)
        (Path(f"{settings.write.dest}-ready") / str(os.getpid())).touch()


def ours(source: Path, dest: Path, package: str, actors: int) -> None:
    """The job of the command, without its report."""
    words = [f"source={source}", f"dest={dest}", f"model={package}", f"micro_batch={BATCH}", f"quality={QUALITY}"]
    job, _ = plan_stylize(load_config("stylize", [*words, f"cluster.actors={actors}", "unit_mb=0.4"]).config)
    job.worker = SayingStylizer
    try:
        job.run(lambda marker, progress: None)
        job.publish()
    finally:
        job.release()


def measured(run: Callable[[Path, Path], None], dest: Path, num_images: int, actors: int) -> tuple[float, float]:
    """Images/s in steady state, and seconds of the whole.

    Args:
        run: takes the place of its output, and the folder in which its workers say that they are ready.
    """
    ready = Path(f"{dest}-ready")
    ready.mkdir()
    started = time.time()
    run(dest, ready)
    ended = time.time()
    worked = [ended - path.stat().st_mtime for path in ready.iterdir()]
    return num_images * len(worked) / sum(worked) * actors / len(worked), ended - started


def folder_rate(files: Path, dest: Path, package: str) -> float:
    """Images/s of the folder script, in a process of its own."""
    line = [sys.executable, "-m", "tests.bench.peers", str(files), str(dest), package]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return float(subprocess.run(line, env=environment, check=True, capture_output=True, text=True).stdout)


def bench(quick: bool) -> None:
    """Part `cluster`."""
    num_files, pairs = (2, 1) if quick else (NUM_FILES, PAIRS)
    actors = len(os.sched_getaffinity(0))
    num_images = num_files * ROWS_A_FILE
    with tempfile.TemporaryDirectory(prefix="stylejobs-bench-") as scratch:
        place = Path(scratch)
        images = list(photo_crops(num_images, [SIDE_PX]))
        for number in range(num_files):
            part = images[number * ROWS_A_FILE : (number + 1) * ROWS_A_FILE]
            write_parquet(place / "source" / f"{number:04d}.parquet", part, ROWS_A_GROUP)
        files, package, source = write_folder(place / "files", images), write_model(place, MODEL), place / "source"
        runs = {
            "ours": lambda dest, ready: ours(source, dest, package, actors),
            "Ray Data script": lambda dest, ready: ray_data_script(
                str(source), str(dest), package, str(ready), actors, None
            ),
            "Ray Data script, repartitioned": lambda dest, ready: ray_data_script(
                str(source), str(dest), package, str(ready), actors, 8 * actors
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in [*runs, "folder script, batch 1"]}
        wholes: dict[str, list[float]] = {name: [] for name in runs}
        # Two more than cores: the script's reading and writing need some beside its actors, or it hangs for ever.
        with ray_session(num_cpus=actors + 2):
            for pair in range(pairs):
                for name, run in list(runs.items())[:: -1 if pair % 2 else 1]:
                    rate, whole = measured(run, place / f"{name}-{pair}".replace(" ", "-"), num_images, actors)
                    rates[name].append(rate)
                    wholes[name].append(whole)
                rates["folder script, batch 1"].append(folder_rate(files, place / f"made-{pair}", package))
    title = f"{MODEL}, {num_images} images of {SIDE_PX} px, {actors} actors, steady state, medians of {pairs} rounds"
    print_lines(title, _lines(rates, wholes))


def _lines(rates: dict[str, list[float]], wholes: dict[str, list[float]]) -> list[Line]:
    mine = rates["ours"]
    lines = [Line("ours", f"{statistics.median(mine):.1f} images/s")]
    for name in list(rates)[1:]:
        ratio = statistics.median(our / their for our, their in zip(mine, rates[name], strict=True))
        bar = 2.0 if name.startswith("folder") else 1.5
        lines.append(at_least(f"ours / {name}", ratio, bar, f"({statistics.median(rates[name]):.1f} images/s)"))
    for name, seconds in wholes.items():
        lines.append(Line(f"{name}: whole, actors' start in it", f"{statistics.median(seconds):.1f} s"))
    return lines
