"""Gives an alias to a version that has earned it, or takes it back to where it was.

What earns it is a verdict of `evaluate` on exactly these weights, these gates and the present champion; it is read
again from the run, so that a changed tag or artifact counts for nothing. How an alias moves is in tracking.aliases.
"""

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stylejobs.config.gating import load_gates
from stylejobs.config.schema import PromoteConfig
from stylejobs.engine.results import JobResult
from stylejobs.errors import GateError, ModelError
from stylejobs.report.verdict import render_junit, render_summary
from stylejobs.storage.lease import has_ended, this_process
from stylejobs.storage.locations import write_atomic

if TYPE_CHECKING:
    from stylejobs.tracking.registry import ModelVersion

_VERDICT = "verdict"
_AHEAD_HOURS = 1.0
"""By which the clock of the machine that judged may be ahead of this one's."""


@dataclass(frozen=True)
class _Case:
    """What speaks for a version: its verdict, None without one; outcomes of gates and of what a verdict must be."""

    verdict: dict[str, Any] | None
    outcomes: list[dict[str, str]]
    sha256: str | None = None

    @property
    def failed(self) -> list[dict[str, str]]:
        return [outcome for outcome in self.outcomes if outcome["state"] == "failed"]


def promote(config: PromoteConfig) -> JobResult:
    """Gives `alias` to the version that `model` names, or with `rollback` back to the version that had it before.

    Returns:
        A result with exit code 4 and every gate that failed, where the version may not have the alias.

    Raises:
        ConfigError: the file of gates is wrong.
        ModelError: there is no such version, or nothing to go back to.
        GateError: the alias has moved in the meantime.
        RegistryError: the registry cannot be reached, or another command is moving the alias; says what is moved.
    """
    from stylejobs.tracking.aliases import read_alias, settle_move
    from stylejobs.tracking.registry import resolve_version

    version = resolve_version(config.model)
    settle_move(version.name, config.alias, has_ended)
    present = read_alias(version.name, config.alias)
    if config.rollback:
        return _roll_back(config, version, present)
    if present == version.version:
        return _result(config, version, present, f"{config.alias} of {version.name} is version {present} already")
    champion = None if present is None else resolve_version(f"models:/{version.name}/{present}")
    if config.override:
        return _move(config, version, present, "override", None)
    case = _examine(config, version, champion)
    _write_reports(config, version, case)
    if case.failed:
        return _refusal(config, version, present, case)
    return _move(config, version, present, "promote", case)


def _examine(config: PromoteConfig, version: "ModelVersion", champion: "ModelVersion | None") -> _Case:
    from stylejobs.tracking.evidence import list_evidence, read_verdict

    _, gates_sha256 = load_gates(config.gates)
    wanted_set = config.evaluation_set or ""
    try:
        known = list_evidence(version)
        fitting = [e for e in known if e.gates_sha256 == gates_sha256 and e.set_sha256.startswith(wanted_set)]
        if not fitting:
            about = f" on the evaluation set {wanted_set}" if wanted_set else ""
            has = ", ".join(f"gates {e.gates_sha256[:12]} on {e.set_sha256[:12]}" for e in known) or "none"
            raise GateError(
                f"wanted a verdict of {version.uri} by the gates {config.gates} ({gates_sha256[:12]}){about}; it has "
                f"{has}. Make one: python -m pipelines.evaluate model={version.uri} gates={config.gates}"
            )
        verdict = read_verdict(fitting[0])
    except GateError as error:
        return _Case(None, [_outcome(_VERDICT, str(error))])
    faults = _find_faults(verdict, version, champion, config)
    checked = [_outcome(name, words) for name, words in faults.items()]
    return _Case(verdict, [*verdict["gates"], *checked], fitting[0].verdict_sha256)


def _find_faults(
    verdict: Mapping[str, Any], version: "ModelVersion", champion: "ModelVersion | None", config: PromoteConfig
) -> dict[str, str]:
    """Why a verdict does not count for this version now: name -> words."""
    faults: dict[str, str] = {}
    failed = [gate for gate in verdict["gates"] if gate["state"] == "failed"]
    if not verdict["passed"] and not failed:
        faults[_VERDICT] = "it says that the model did not pass, and not why; evaluate again"
    judged = verdict["model"]["sha256"]
    if not version.sha256 or judged != version.sha256:
        has = version.sha256 or "no sha256: it was registered by other means"
        faults["weights"] = f"the verdict is about {judged}, and {version.uri} has {has}; evaluate this version"
    made_at = datetime.fromisoformat(verdict["made_at"])
    age_hours = (datetime.now(UTC) - made_at).total_seconds() / 3600.0
    if not -_AHEAD_HOURS <= age_hours <= config.max_age_hours:
        faults["age"] = (
            f"the verdict is {age_hours:.1f} h old ({verdict['made_at']}), wanted at most {config.max_age_hours:g} h; "
            "evaluate again"
        )
    baseline = verdict["baseline"]
    if champion is not None and (baseline is None or not champion.sha256 or baseline["sha256"] != champion.sha256):
        against = "nothing" if baseline is None else baseline["uri"]
        faults["baseline"] = (
            f"the verdict compares with {against}, and {config.alias} is version {champion.version}: it has moved "
            f"since, or was no baseline; evaluate again with baseline=models:/{champion.name}@{config.alias}"
        )
    return faults


def _outcome(name: str, words: str) -> dict[str, str]:
    return {"name": name, "state": "failed", "words": words}


def _write_reports(config: PromoteConfig, version: "ModelVersion", case: _Case) -> None:
    nothing = {"model": {"uri": version.uri}, "baseline": None, "measures": {}}
    shown = {**(case.verdict or nothing), "gates": case.outcomes, "passed": not case.failed}
    for place, render in ((config.junit, render_junit), (config.summary, render_summary)):
        if place is not None:
            write_atomic(place, render(shown).encode())


def _refusal(config: PromoteConfig, version: "ModelVersion", present: str | None, case: _Case) -> JobResult:
    stays = f"stays version {present}" if present is not None else "is not given"
    lines = [f"promote: {version.uri} is refused, {config.alias} of {version.name} {stays}:"]
    lines += [f"  {outcome['name']}: {outcome['words']}" for outcome in case.failed]
    return _result(config, version, present, "\n".join(lines), case).with_(exit_code=GateError.exit_code)


def _roll_back(config: PromoteConfig, version: "ModelVersion", present: str | None) -> JobResult:
    from stylejobs.tracking.aliases import read_alias
    from stylejobs.tracking.claims import previous_alias
    from stylejobs.tracking.registry import resolve_version

    if present != version.version:
        here = "is no alias of it" if present is None else f"is version {present}"
        raise ModelError(
            f"wanted the version that {config.alias} of {version.name} points at, to go back from it; got "
            f"{version.uri}, and {config.alias} {here}"
        )
    before = read_alias(version.name, previous_alias(config.alias))
    if before is None or before == present:
        raise ModelError(
            f"wanted the version that had {config.alias} before; {version.name} has no alias "
            f"{previous_alias(config.alias)} at another version, so that there is nothing to go back to"
        )
    return _move(config, resolve_version(f"models:/{version.name}/{before}"), present, "rollback", None)


def _move(
    config: PromoteConfig, version: "ModelVersion", present: str | None, action: str, case: _Case | None
) -> JobResult:
    from stylejobs.tracking.aliases import Move, move_alias

    process = this_process()
    move = Move(
        name=version.name,
        alias=config.alias,
        version=version.version,
        seen=present,
        action=action,
        by=f"{_user()}@{process['host']}",
        why=config.reason,
        verdict_sha256=None if case is None else case.sha256,
    )
    move_alias(move, process, has_ended)
    before = "no version had it" if present is None else f"it was version {present}"
    how = {"promote": "", "rollback": ", by rollback", "override": f", WITHOUT A VERDICT: {config.reason}"}[action]
    message = f"{config.alias} of {version.name} is now version {version.version} ({before}){how}"
    return _result(config, version, present, message, case).with_(details=_details(config, present, action, case))


def _result(
    config: PromoteConfig, version: "ModelVersion", present: str | None, message: str, case: _Case | None = None
) -> JobResult:
    return JobResult(
        "promote",
        message=message,
        model={"uri": version.uri, "name": version.name, "version": version.version, "sha256": version.sha256},
        details=_details(config, present, None, case),
    )


def _details(config: PromoteConfig, present: str | None, action: str | None, case: _Case | None) -> dict[str, Any]:
    return {
        "alias": config.alias,
        "previous_version": present,
        "action": action,
        "verdict_sha256": None if case is None else case.sha256,
        "failed": [] if case is None else case.failed,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
