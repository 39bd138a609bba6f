"""What travels to a cluster with a job: the code of this checkout, the shipped configs, and the job's own file."""

import shutil
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_FOLDERS = ("pipelines", "stylejobs", "conf")
# Code, and the texts that code reads. Nothing else: whatever lies about in a checkout, data or keys, stays here.
_SUFFIXES = (".py", ".typed", ".css", ".j2", ".js", ".yaml")

JOB_FILE = "job.yaml"


def pack_code(folder: Path, job: str) -> None:
    """Copies the code into an empty folder and writes `JOB_FILE` beside it."""
    for name in _FOLDERS:
        for path in sorted((_ROOT / name).rglob("*")):
            # A link could lead anywhere.
            if path.suffix in _SUFFIXES and path.is_file() and not path.is_symlink():
                copy = folder / path.relative_to(_ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    (folder / JOB_FILE).write_text(job)


def travels(path: str) -> bool:
    """Whether a relative path is found in what travels, as conf/evaluate/gates.yaml is."""
    return Path(path).parts[:1] == ("conf",) and (_ROOT / path).is_file()
