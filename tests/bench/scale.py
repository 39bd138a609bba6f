"""`make bench-scale`: that the size of a job costs what it may: four numbers beside their bars.

    python -m tests.bench.scale [--full | --quick] [--only driver resume memory nodes]

driver   100 million rows in 40,000 units: planned, and gone on with where 39,000 are done (scale_driver.py)
resume   a job that is 95 % done: bytes of the source and time (scale_resume.py)
memory   one worker over mixed images of 0.1 to 100 megapixels (scale_memory.py)
nodes    1 and 32 workers that only wait, on simulated nodes (scale_nodes.py)
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.table import Line, at_least, at_most, print_heading, print_lines

MAX_SECONDS, MAX_DRIVER_MB = 60.0, 1000.0


@dataclass(frozen=True)
class Size:
    """How much is measured with."""

    num_files: int
    num_left: int
    resume_units: int
    num_images: int
    largest_megapixels: float
    num_workers: int
    num_nodes: int
    units_each: int


USUAL = Size(400, 1000, 100, 24, 100.0, 32, 4, 12)
FULL = Size(400, 1000, 1000, 2000, 100.0, 32, 8, 40)
QUICK = Size(4, 40, 20, 6, 4.0, 3, 1, 4)


def driver(scratch: Path, size: Size) -> list[Line]:
    """Number 1."""
    from tests.bench.scale_driver import write_source

    source, dest = scratch / "rows", scratch / "made"
    num_rows = write_source(source, size.num_files)

    def act(verb: str, place: Path) -> dict:
        environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db"}
        return _in_own_process("scale_driver", [verb, source, place, size.num_left], environment)

    planned = act("plan", dest)
    act("mark", dest)
    resumed, fresh = act("start", dest), act("start", scratch / "fresh")
    if planned["rows"] != num_rows or resumed["left"] != size.num_left or fresh["left"] != planned["units"]:
        raise RuntimeError(f"of {num_rows} rows: {planned}, {resumed}, {fresh}")
    what = f"{num_rows:,} rows in {planned['units']:,} units"
    return [
        at_most(f"{what}: planned", planned["seconds"]["all"], MAX_SECONDS, "s"),
        at_most("  peak RSS of the driver", planned["peak_mb"], MAX_DRIVER_MB, "MB"),
        at_most(
            f"  all but {size.num_left:,} done: first unit answered",
            resumed["seconds"]["first answer"],
            MAX_SECONDS,
            "s",
        ),
        *_moments(resumed["seconds"]),
        at_most("  peak RSS of the driver", resumed["peak_mb"], MAX_DRIVER_MB, "MB"),
        Line("  none done: first unit answered", f"{fresh['seconds']['first answer']:.1f} s"),
        *_moments(fresh["seconds"]),
        Line("  peak RSS of the driver", f"{fresh['peak_mb']} MB"),
    ]


def _moments(seconds: dict[str, float]) -> list[Line]:
    names = ("imports", "planned", "tracker", "ray", "first answer")
    return [Line("    reached after", ", ".join(f"{name} {seconds[name]:.0f}" for name in names) + " s")]


def resume(scratch: Path, size: Size) -> list[Line]:
    """Number 2."""
    from tests.bench.scale_resume import measure

    full, resumed, num_bytes = measure(scratch, size.resume_units)
    done = resumed.units_done / size.resume_units
    what = f"{size.resume_units} units, {num_bytes / 2**20:.1f} MB: going on with {done:.1%}"
    return [
        at_most(f"{what}: read of the source", 100 * resumed.num_bytes / num_bytes, 7.0, "%"),
        Line("  of which for the report's gallery", f"{100 * resumed.report_bytes / num_bytes:.3g} %"),
        Line("  the full run read", f"{100 * full.num_bytes / num_bytes:.3g} %"),
        Line("  the full run took, to its first file", f"{full.seconds:.1f} s, {full.first_seconds:.1f} s"),
        at_most(
            "  going on took, of the full run's time",
            100 * (resumed.seconds - full.first_seconds) / full.seconds,
            10.0,
            "%",
        ),
        Line("  (start-up is apart: what the full run took to its first file)", f"{resumed.seconds:.1f} s with it"),
    ]


def memory(scratch: Path, size: Size) -> list[Line]:
    """Number 3."""
    from tests.bench.pictures import write_model
    from tests.bench.scale_memory import megapixels, write_mixed

    sizes = megapixels(size.num_images, size.largest_megapixels)
    write_mixed(scratch / "mixed", sizes)
    words = [scratch / "mixed", scratch / "made", write_model(scratch, "moments")]
    used = _in_own_process("scale_memory", words, {})
    if used["rows"] != len(sizes):
        raise RuntimeError(f"of {len(sizes)} images: {used}")
    peak_mb = used["peak_mb"] - used["before_mb"]
    naive_mb = used["micro_batch"] * max(sizes) * 12e6 / 2**20
    return [
        Line(
            f"{len(sizes)} images, {min(sizes):g} to {max(sizes):g} MP, in all",
            f"{sum(sizes):.0f} MP in {used['seconds']:.0f} s",
        ),
        Line("  peak RSS of the worker, with its model alone", f"{used['peak_mb']:.0f} MB, {used['before_mb']:.0f} MB"),
        at_most("  above that (see memory_bound_mb)", peak_mb, memory_bound_mb(max(sizes), used), "MB"),
        Line("  micro-batch x largest in float32 would be", f"{naive_mb:.0f} MB"),
        at_most("  peak of all over that of the first quarter", used["peak_mb"] / used["quarter_mb"], 1.05, "times"),
    ]


def memory_bound_mb(largest: float, used: dict) -> int:
    """What a worker may need at most, above what it has with its model loaded [MB].

    Encoded, a unit in and out. In float32, 8 tensors of the largest pass: a micro-batch of 2**20 px each, or a whole
    image of up to 16 * 10**6 px (`tile_above_megapixels`). In uint8, the pixels that wait (stylizer.py), and 14 bytes
    for each of the largest image: Pillow's copy, ours, the result, Pillow's copy of the result.

    Args:
        largest: image, in 10**6 px.
        used: what scale_memory.py printed.
    """
    encoded = 2 * used["unit_mb"] * 2**20
    in_a_pass = max(used["micro_batch"] * 2**20, min(16e6, largest * 1e6))
    return round((encoded + 8 * 12 * in_a_pass + 3 * 128e6 + 14e6 * largest) / 2**20)


def nodes(scratch: Path, size: Size) -> list[Line]:
    """Number 4."""
    from tests.bench.scale_nodes import UNIT_SECONDS, efficiency

    ratio, detail = efficiency(size.num_workers, size.num_nodes, size.units_each)
    what = f"1 -> {size.num_workers} workers on {size.num_nodes} nodes, units of {UNIT_SECONDS} s"
    return [at_least(f"{what}: efficiency", ratio, 0.9), Line("  that is", detail)]


def _in_own_process(module: str, words: list[object], environment: dict[str, str]) -> dict:
    """What a program of ours prints as its last line."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{module}", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise RuntimeError(f"{module} {words} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parts: dict[str, Callable[[Path, Size], list[Line]]] = {
        "driver": driver,
        "resume": resume,
        "memory": memory,
        "nodes": nodes,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_const", const=FULL, dest="size", help="2,000 images, 1,000 units: hours")
    size.add_argument("--quick", action="store_const", const=QUICK, dest="size", help="tiny: to see that it runs")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--num", type=int, help="images of the part `memory`")
    options = parser.parse_args()
    chosen = options.size or USUAL
    if options.num:
        chosen = Size(**{**vars(chosen), "num_images": options.num})
    print_heading()
    for part in options.only:
        with tempfile.TemporaryDirectory(prefix="stylejobs-scale-") as scratch:
            print_lines(part, parts[part](Path(scratch), chosen))


if __name__ == "__main__":
    main()
