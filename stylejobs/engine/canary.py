"""The canary: a few rows of all files and sizes go first, so that a bad model stops in minutes and not at dawn.

    DEST/_stylejobs/canary.json    every gate with its number and its limit
    DEST/_stylejobs/canary/*.jpg   a few pairs to look at, source beside result

A share that must stay small is judged by the low end of its interval, because 32 rows are few: the gate closes only
where the share of all rows is above the limit beyond reasonable doubt.
"""

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Literal

import torch

from stylejobs.core.bootstrap import share_interval
from stylejobs.engine.canary_worker import CanaryWorker
from stylejobs.engine.samples import narrow, spread_over_files
from stylejobs.engine.stream import Answer, WorkItem, stream
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import GateError, InfrastructureError
from stylejobs.storage import locations
from stylejobs.storage.descriptors import Unit
from stylejobs.storage.units import digest, read_json, write_json

_AUTO_SHARE, _AUTO_FROM_ROWS = 0.001, 10_000
_MIN_ROWS = 32
_FEW_PER_UNIT, _MANY_PER_UNIT, _MANY_UNITS = 4, 64, 64
_TYPICAL_BYTES = 128 * 2**10
_PAIRS = 8
_CONFIDENCE = 0.99
_MAX_DEGENERATE = 0.1
_MAX_SLOWDOWN = 3.0


@dataclass(frozen=True)
class CanaryRules:
    """What decides.

    Attributes:
        share: of the rows; "auto" is 0.001 where there are 10,000 rows or more, else none.
        max_bad: largest share of bad rows, and of those that are not finite.
        min_similarity: smallest mean edge cosine between sources and results.
        assumed_rate: images a second of one worker that a plan counts on; None where there is no plan.
    """

    share: float | Literal["auto"]
    max_bad: float
    min_similarity: float
    assumed_rate: float | None = None


@dataclass(frozen=True)
class Gate:
    """One number, its limit and the verdict; `bound` is "at most" or "at least"."""

    name: str
    value: float
    bound: str
    limit: float
    passed: bool

    def __str__(self) -> str:
        verdict = "ok    " if self.passed else "FAILED"
        return f"{verdict} {self.name}: {self.value:.4g}, wanted {self.bound} {self.limit:.4g}"


def check_canary(job: UnitJob, rules: CanaryRules) -> dict | None:
    """Lets the canary's rows through the workers and judges them; needs a Ray session.

    Of an opened job only what is left to do counts. What has passed before is not done again.

    Returns:
        What canary.json holds, or None where there was no canary: it is off, or too little is left to do, or there was
        no time.

    Raises:
        GateError: a gate failed; nothing has been written to data/.
        InfrastructureError: none of its rows could be done.
    """
    units = list({id(item.unit): item.unit for item in job.pending.values()}.values())
    num_rows = count_canary_rows(rules.share, units)
    if not num_rows:
        return None
    place = _place(job.dest)
    held = read_json(place)
    if held and held["passed"] and held["identity_sha256"] == digest(job.identity):
        return held
    for picture in locations.list_files(locations.join(job.dest, "_stylejobs", "canary")):
        locations.delete(picture)
    items = build_items(units, num_rows)
    print(f"canary: {num_rows:,} rows of {len(items):,} unit(s) go first", file=sys.stderr, flush=True)
    answers = list(stream(items, CanaryWorker, job.settings, job.workers, job.deadline))
    if any(answer.value is None and answer.failure is None for answer in answers):
        return None
    done = _done(answers)
    gates = judge(done, rules)
    verdict = {
        "identity_sha256": digest(job.identity),
        "passed": all(gate.passed for gate in gates),
        "rows": sum(answer["rows"] for answer in done),
        "images": sum(answer["images"] for answer in done),
        "reasons": dict(_reasons(done)),
        "gates": [asdict(gate) for gate in gates],
        "failures": [answer.failure for answer in answers if answer.failure],
    }
    write_json(place, verdict)
    if not verdict["passed"]:
        raise _refusal(job, verdict, gates)
    return verdict


def was_refused(dest: str) -> bool:
    """Whether all that `dest` holds is a canary that failed: then an alias is resolved anew, for a better model."""
    held = read_json(_place(dest))
    units = locations.join(locations.absolute(dest), "_stylejobs", "units")
    return held is not None and not held["passed"] and not locations.list_files(units)


def _place(dest: str) -> str:
    return locations.join(locations.absolute(dest), "_stylejobs", "canary.json")


def count_canary_rows(share: float | Literal["auto"], units: Sequence[Unit]) -> int:
    """How many rows of these units go first; at least 32, at most all, or none.

    Where the number of rows is not known (tars), a row counts as 128 kB.
    """
    total = sum(unit.num_bytes // _TYPICAL_BYTES + 1 if unit.num_rows is None else unit.num_rows for unit in units)
    if share == "auto":
        share = _AUTO_SHARE if total >= _AUTO_FROM_ROWS else 0.0
    return min(total, max(_MIN_ROWS, math.ceil(share * total))) if share else 0


def build_items(units: Sequence[Unit], num_rows: int) -> list[WorkItem]:
    """Narrowed units that together give `num_rows` rows, where they have as many: few rows of many units and files."""
    each = min(_MANY_PER_UNIT, max(_FEW_PER_UNIT, math.ceil(num_rows / _MANY_UNITS)))
    chosen = spread_over_files(units, math.ceil(num_rows / each))
    pairs = math.ceil(_PAIRS / len(chosen))
    items: list[WorkItem] = []
    # Small ones first, so that the others make up for what they lack.
    for number, unit in enumerate(
        sorted(chosen, key=lambda unit: math.inf if unit.num_rows is None else unit.num_rows)
    ):
        share = math.ceil(num_rows / (len(chosen) - number))
        share = share if unit.num_rows is None else min(share, unit.num_rows)
        num_rows -= share
        part = {"rows": share, "pairs": pairs if number * pairs < _PAIRS else 0}
        items.append(WorkItem(narrow(unit, share), number, f"canary-{number}", part))
    return items


def judge(done: Sequence[dict], rules: CanaryRules) -> list[Gate]:
    """The gates over the answers of `CanaryWorker`; one that no picture could be asked is left out."""
    num_rows, reasons = sum(answer["rows"] for answer in done), _reasons(done)
    gates = [
        _share_gate("bad rows", sum(reasons.values()), num_rows, rules.max_bad),
        _share_gate("not finite", reasons["non_finite"], num_rows, rules.max_bad),
    ]
    for name in ("unreadable", "constant", "black", "identity"):
        hits = _measures(done, name)
        if hits:
            gates.append(_share_gate(name, sum(hits), len(hits), _MAX_DEGENERATE))
    if similarities := _measures(done, "similarity"):
        value = mean(similarities)
        passed = value >= rules.min_similarity
        gates.append(Gate("content similarity", value, "at least", rules.min_similarity, passed))
    seconds = sum(answer["seconds"] for answer in done)
    if rules.assumed_rate and seconds:
        rate, limit = sum(answer["images"] for answer in done) / seconds, rules.assumed_rate / _MAX_SLOWDOWN
        gates.append(Gate("images/s of a worker", rate, "at least", limit, rate >= limit))
    return gates


def _share_gate(name: str, hits: int, count: int, limit: float) -> Gate:
    if not count:
        return Gate(name, 0.0, "at most", limit, True)
    interval = share_interval(torch.arange(count) < hits, _CONFIDENCE)
    is_all = hits == count > 1
    return Gate(name, interval.value, "at most", limit, interval.low <= limit and not is_all)


def _measures(done: Sequence[dict], name: str) -> list:
    return [value for answer in done for value in answer["measures"].get(name, ())]


def _reasons(done: Sequence[dict]) -> Counter[str]:
    total: Counter[str] = Counter()
    for answer in done:
        total.update(answer["reasons"])
    return total


def _done(answers: Sequence[Answer]) -> list[dict]:
    """A damaged part of the source is not the model's fault; only where nothing could be done there is no verdict."""
    done = [answer.value for answer in answers if answer.value is not None]
    if not done:
        lines = "\n".join(f"  {answer.failure}" for answer in answers[:_PAIRS])
        error = InfrastructureError(f"canary: none of its {len(answers)} unit(s) could be done, such as:\n{lines}")
        error.exit_code = max(answer.exit_code for answer in answers)
        raise error
    return done


def _refusal(job: UnitJob, verdict: dict, gates: Sequence[Gate]) -> GateError:
    lines = "\n".join(f"  {gate}" for gate in gates)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in verdict["reasons"].items())
    return GateError(
        f"canary: {sum(not gate.passed for gate in gates)} gate(s) failed on the {verdict['rows']:,} rows that went "
        f"first{f' (bad: {reasons})' if reasons else ''}; nothing was written to data/\n{lines}\n"
        f"look at {job.dest}/_stylejobs/canary/; give a better model and the same dest, or canary=0 to go on regardless"
    )
