"""What benchmarks print: where and how it was measured, then a line for each number beside its bar."""

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("stylejobs", "torch", "ray", "pyarrow", "pillow", "numpy")


@dataclass(frozen=True)
class Line:
    """One number.

    Attributes:
        what: the thing measured; `value` as text, with its unit.
        bar: what was promised, as text; empty where nothing was.
        holds: None where there is no bar.
    """

    what: str
    value: str
    bar: str = ""
    holds: bool | None = None


def at_most(what: str, value: float, bar: float, unit: str) -> Line:
    """A number that must not be above its bar."""
    return Line(what, f"{value:.3g} {unit}", f"<= {bar:g} {unit}", value <= bar)


def at_least(what: str, value: float, bar: float, detail: str = "") -> Line:
    """A ratio that must not be below its bar."""
    return Line(what, f"{value:.3f} {detail}".strip(), f">= {bar:g}", value >= bar)


def print_heading() -> None:
    """Hardware, versions and the command line."""
    versions = "  ".join(f"{name} {version(name)}" for name in _PACKAGES)
    load = os.getloadavg()[0]
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    print(f"on       {_processor()}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.0f} GiB, load {load:.1f}")
    print(f"with     Python {platform.python_version()}  {versions}")
    print(f"command  python {shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}\n", flush=True)


def print_lines(title: str, lines: Iterable[Line]) -> None:
    """A table."""
    print(title)
    for line in lines:
        verdict = {None: "", True: "holds", False: "MISSED"}[line.holds]
        print(f"  {line.what:58s} {line.value:>34s}   {line.bar:>14s}   {verdict}".rstrip())
    print(flush=True)


def _processor() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return models[0].partition(": ")[2] if models else platform.processor()
