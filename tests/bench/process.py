"""What a benchmark asks of its own process."""

from pathlib import Path


def peak_rss_mb() -> float:
    """The most memory that this process has held [MB].

    Not `ru_maxrss`, which a process inherits: it would be that of whoever started it, if that was larger.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM: this benchmark wants Linux")
