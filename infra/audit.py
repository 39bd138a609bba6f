"""Known holes in the packages of the lock, as `make check` asks for them; without a network it says so and passes.

    python infra/audit.py [--lock requirements.lock] [--accepted infra/audit-accepted.txt]

Runs pip-audit against OSV, which is asked about names and versions alone; nothing is installed. Another service of that
protocol is PIP_AUDIT_OSV_URL. Accepted is a file of lines `ID YYYY-MM-DD reason`; after its day an id counts again.
Exit codes: 0 no hole is known, or nobody could be asked; 1 holes, or the audit itself is broken.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
# One package is asked about first: that tells within seconds whether anybody answers.
_PROBE_SECONDS = 20
_AUDIT_SECONDS = 600
_REQUEST_SECONDS = 10
# How pip-audit, and the libraries under it, say that the network was at fault.
_AWAY = ("Could not connect", "ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "SSLError", "HTTPError")


class Unreachable(Exception):
    """The service does not answer."""


def main(argv: Sequence[str] | None = None) -> int:
    """Audits the lock; see the module's text."""
    parser = argparse.ArgumentParser(description="Known holes in the packages of the lock.")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--accepted", type=Path, default=ROOT / "infra/audit-accepted.txt")
    parser.add_argument("--probe-seconds", type=float, default=_PROBE_SECONDS)
    keys = parser.parse_args(argv)
    try:
        accepted = read_accepted(keys.accepted.read_text(), datetime.date.today())
        lock = keys.lock.read_text()
        ask(first_requirement(lock), keys.probe_seconds)
        packages = ask(lock, _AUDIT_SECONDS)
    except Unreachable as error:
        print(f"audit: not done, nobody was asked about known holes: {error}", file=sys.stderr)
        return 0
    except (OSError, ValueError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 1
    holes = find_holes(packages, accepted)
    print("\n".join([f"audit: {len(packages)} packages, {len(holes)} known hole(s)", *holes]), file=sys.stderr)
    if holes:
        print(
            "audit: raise these in pyproject.toml and run `make lock`; what cannot be raised yet goes into "
            f"{keys.accepted} as `ID YYYY-MM-DD reason`",
            file=sys.stderr,
        )
    return 1 if holes else 0


def read_accepted(text: str, today: datetime.date) -> set[str]:
    """The ids that are accepted today.

    Raises:
        ValueError: a line is not `ID YYYY-MM-DD reason`.
    """
    accepted = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, day, _ = line.split(maxsplit=2)
            if datetime.date.fromisoformat(day) >= today:
                accepted.add(name)
        except ValueError as error:
            raise ValueError(f"accepted ids, line {number}: wanted `ID YYYY-MM-DD reason`, got {line!r}") from error
    return accepted


def first_requirement(lock: str) -> str:
    """The first package of a lock, with its hashes."""
    lines = []
    for line in lock.splitlines():
        lines.append(line)
        if line.strip() and not line.startswith("#") and not line.endswith("\\"):
            break
    return "\n".join(lines) + "\n"


def ask(lock: str, timeout_seconds: float) -> list[dict]:
    """What pip-audit knows of each package: `name`, `version` and `vulns`.

    Raises:
        Unreachable: the service does not answer, or not in time.
        ValueError: pip-audit failed at anything else.
    """
    with tempfile.TemporaryDirectory(prefix="stylejobs-audit-") as folder:
        requirements, found = Path(folder, "requirements.txt"), Path(folder, "found.json")
        requirements.write_text(lock)
        line = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--cache-dir", folder]
        line += ["--requirement", str(requirements), "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
        line += ["--timeout", str(_REQUEST_SECONDS), "--format", "json", "--output", str(found), "--aliases", "on"]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            raise Unreachable(f"no answer in {timeout_seconds:g} s") from None
        if found.exists():
            return json.loads(found.read_text())["dependencies"]
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if any(word in done.stderr for word in _AWAY):
            raise Unreachable(last)
        raise ValueError(f"pip-audit failed: {last}")


def find_holes(packages: list[dict], accepted: set[str]) -> list[str]:
    """A line for each known hole that nobody has accepted."""
    lines = []
    for package in packages:
        if "skip_reason" in package:
            lines.append(f"  {package['name']}: not audited: {package['skip_reason']}")
        for hole in package.get("vulns", ()):
            if not accepted & {hole["id"], *hole["aliases"]}:
                fixed = ", ".join(hole["fix_versions"]) or "no version yet"
                lines.append(f"  {package['name']} {package['version']}: {hole['id']}, mended in {fixed}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
