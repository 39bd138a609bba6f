"""`make bench`: how fast stylizing is beside the programs that people write instead (peers.py), and how soon it starts.

    python -m tests.bench.stylize_ratio [--quick] [--only loop cluster start]

loop     one core, no Ray: our worker beside a plain loop and a stylize-a-folder script, in one pinned process
cluster  all cores, one Ray: our job beside a plain Ray Data script and the folder script
start    from the command to the first image that is written

Ratios are medians over pairs of runs that take turns, so that a busy machine moves both. A ratio of 1 with the plain
loop means that lineage, dead letters, digests, markers and atomic files cost nothing.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from stylejobs.config.load import load_config
from stylejobs.engine.stylize import plan_stylize
from stylejobs.storage.packages import load_package
from tests.bench import cluster_ratio, start_up
from tests.bench.peers import BATCH, QUALITY, PlainStylizer, folder_loop, plain_loop, write_folder
from tests.bench.pictures import photo_crops, write_model, write_parquet
from tests.bench.table import Line, at_least, print_heading, print_lines

SIDE_PX = 128
# model -> images in a run, least ratio with the plain loop
LOOPS = {"moments": (400, 0.95), "johnson narrow": (160, 0.95), "resnet heavy": (16, 0.98)}


def paired(contenders: Mapping[str, Callable[[], None]], pairs: int) -> dict[str, list[float]]:
    """Seconds of each contender, run by run; every round runs all, in turned order, and the first does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(pairs + 1):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - started)
    return {name: runs[1:] for name, runs in seconds.items()}


def compare_loops(folder: Path, model: str, num_images: int, bar: float, pairs: int) -> list[Line]:
    """One model on one core."""
    place = folder / model.replace(" ", "-")
    images = list(photo_crops(num_images, [SIDE_PX]))
    source = write_parquet(place / "source" / "photos.parquet", images, num_images)
    files = write_folder(place / "files", images)
    package = write_model(place, model)
    words = [f"source={source}", f"dest={place}/ours", f"model={package}", f"micro_batch={BATCH}", f"quality={QUALITY}"]
    job, _ = plan_stylize(load_config("stylize", [*words, "cluster.actor_cpus=1", "cluster.threads=1"]).config)
    (item,), worker, plain = job.work.values(), job.worker(job.settings), PlainStylizer(package)
    loaded = load_package(package)
    contenders = {
        "ours": lambda: worker.do(item),
        "plain": lambda: plain_loop(source, place / "plain.parquet", plain),
        "folder": lambda: folder_loop(files, place / "made", loaded.generator, loaded.styles["style"]),
    }
    seconds = paired(contenders, pairs)
    job.release()
    rates = {name: num_images / statistics.median(runs) for name, runs in seconds.items()}
    return [
        Line(f"{model}: ours on one core", f"{rates['ours']:.1f} images/s"),
        at_least(f"{model}: ours / plain loop", _ratio(seconds, "plain"), bar, f"({rates['plain']:.1f} images/s)"),
        Line(
            f"{model}: ours / folder script, batch 1",
            f"{_ratio(seconds, 'folder'):.3f} ({rates['folder']:.1f} images/s)",
        ),
    ]


def _ratio(seconds: Mapping[str, list[float]], peer: str) -> float:
    return statistics.median(theirs / ours for theirs, ours in zip(seconds[peer], seconds["ours"], strict=True))


def bench_loops(quick: bool) -> None:
    """Part `loop`, pinned to one core: a second one would help only those who decode on threads."""
    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    pairs = 2 if quick else 7
    try:
        with tempfile.TemporaryDirectory(prefix="stylejobs-bench-") as scratch:
            for model, (num_images, bar) in LOOPS.items():
                lines = compare_loops(Path(scratch), model, max(2, num_images // (8 if quick else 1)), bar, pairs)
                print_lines(f"{model}, {SIDE_PX} px, one core, medians of {pairs} rounds", lines)
    finally:
        os.sched_setaffinity(0, cores)


def main() -> None:
    parts = {"loop": bench_loops, "cluster": cluster_ratio.bench, "start": start_up.bench}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs; the ratios mean nothing")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args()
    print_heading()
    for part in options.only:
        parts[part](options.quick)


if __name__ == "__main__":
    main()
