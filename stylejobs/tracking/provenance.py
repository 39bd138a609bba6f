"""Which code a run ran: tags by which a person finds it again, or sees that two runs did not run the same.

Names, versions and digests only. No remote URL, path, diff or variable of the environment: these may hold secrets.
"""

import hashlib
import os
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from stylejobs import __version__

PACKAGE = Path(__file__).parents[1]
COMMIT_VARIABLE = "STYLEJOBS_GIT_COMMIT"
_OTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
"""Set inside a hook, of whatever repository it belongs to."""


def code_tags(package: Path = PACKAGE) -> dict[str, str]:
    """Tags of a run, for `MlflowTracker.start`; those that cannot be known here are left out. Never raises.

    - `mlflow.source.git.commit`: of the checkout that holds the package; else STYLEJOBS_GIT_COMMIT, which the build
      of an image can set, since a wheel does not know its commit.
    - `mlflow.source.git.dirty`: "true" when a file of that checkout is not as committed. New files do not count; those
      of the package are in `stylejobs.code_sha256`.
    - `stylejobs.version`, and `stylejobs.code_sha256` of the package's own Python files, which is the same in a
      checkout, a wheel and an unpacked folder.
    - `stylejobs.packages_sha256`: of `installed_packages()`, what this process really has.
    - `stylejobs.lock_sha256`: of requirements.lock, what was asked for; where that file lies beside the package.

    Args:
        package: the folder of the package.
    """
    tags = {
        # Without a source MLflow's UI does not show the commit.
        "mlflow.source.name": "stylejobs",
        "mlflow.source.type": "LOCAL",
        "stylejobs.version": __version__,
        "stylejobs.code_sha256": _code_sha256(package),
        "stylejobs.packages_sha256": hashlib.sha256(installed_packages().encode()).hexdigest(),
        **_git_tags(package),
    }
    lock = package.parent / "requirements.lock"
    if lock.is_file():
        tags["stylejobs.lock_sha256"] = hashlib.sha256(lock.read_bytes()).hexdigest()
    return tags


def installed_packages() -> str:
    """What is installed for this process, a line `name==version` each, sorted, names as PEP 503 spells them."""
    # Ray puts packages of its own on the path when it is imported: the same place would have two digests.
    sites = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    found = {(dist.metadata["Name"], dist.version) for dist in distributions(path=sites)}
    lines = {f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}\n" for name, version in found if name}
    return "".join(sorted(lines))


def _code_sha256(package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        name = path.relative_to(package).as_posix()
        digest.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n".encode())
    return digest.hexdigest()


def _git_tags(package: Path) -> dict[str, str]:
    # A package that lies in a checkout of something else (a .venv in it) is not in that checkout's commit.
    tracked = _git(package, "ls-files", "--error-unmatch", "--", "__init__.py")
    commit = tracked and _git(package, "rev-parse", "HEAD")
    if not commit:
        commit = os.environ.get(COMMIT_VARIABLE, "")
        return {"mlflow.source.git.commit": commit} if re.fullmatch("[0-9a-f]{7,64}", commit) else {}
    tags = {"mlflow.source.git.commit": commit}
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    if changes is not None:
        tags["mlflow.source.git.dirty"] = "true" if changes else "false"
    return tags


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says about a folder; None where there is no git, no checkout, or no permission to read it."""
    environment = {name: value for name, value in os.environ.items() if name not in _OTHER_REPOSITORY}
    line = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=10, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
