"""Gates: what a model's measures must reach before it may become the one that jobs follow.

A gate is asked of a whole confidence interval, never of a point: the same recipe trained twice moves every measure,
and a model that passes on a lucky panel would not pass on the next. Pure: no files, no clock, no tensors. What a file
of gates looks like is in `config.gating`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # it brings torch, which a file of gates can do without
    from stylejobs.core.bootstrap import Interval

CANDIDATE, BASELINE = "candidate", "baseline"
WORDS = {"at_least": "at least", "at_most": "at most", "above": "above", "below": "below"}
IMPROVES = "improves"
State = Literal["passed", "failed", "not asked"]


@dataclass(frozen=True)
class Gate:
    """One demand.

    Attributes:
        measure: a name of `core.measures.MEASURES`.
        bound: "at_least" or "at_most" compare with `limit`, "above" and "below" with another row.
        limit: the number; with `against="baseline"` a ratio, candidate / baseline; None for "above" and "below".
        against: None, the row that must be beaten, or "baseline".
        confidence: of the interval that must hold.
        if_measured: where the measure was not taken, the gate is not asked instead of failed.
    """

    measure: str
    bound: Literal["at_least", "at_most", "above", "below"]
    limit: float | None = None
    against: str | None = None
    confidence: float = 0.95
    if_measured: bool = False

    def __post_init__(self) -> None:
        strict = self.bound in ("above", "below")
        if self.bound not in WORDS or strict != (self.limit is None) or (strict and self.against is None):
            raise ValueError(
                "wanted at_least or at_most with a limit, or above or below with a row and no limit; "
                f"got {self.bound}, {self.limit}, {self.against}"
            )
        if not strict and self.against not in (None, BASELINE):
            raise ValueError(f"wanted a ratio to the baseline only; got {self.limit} of {self.against}")

    @property
    def wanted(self) -> str:
        """In words: "at least 0.45", "at most 1.25 of baseline", "above reinhard"."""
        limit = [] if self.limit is None else [f"{self.limit:g}"]
        against = [] if self.against is None else ["of", self.against] if limit else [self.against]
        return " ".join([WORDS[self.bound], *limit, *against])

    @property
    def name(self) -> str:
        """Of the gate among those of one file: the measure and what is wanted of it."""
        return f"{self.measure} {self.wanted}"


@dataclass(frozen=True)
class Rules:
    """All gates of one file.

    Attributes:
        hard: each must hold.
        improves: measures of which at least one must be better than the baseline, beyond its paired interval.
        confidence: of the intervals of `improves`.
    """

    hard: tuple[Gate, ...]
    improves: tuple[str, ...] = ()
    confidence: float = 0.95

    @property
    def confidences(self) -> tuple[float, ...]:
        """Every confidence that a `Table` is needed for, sorted."""
        return tuple(sorted({self.confidence, *(gate.confidence for gate in self.hard)}))

    @property
    def rows(self) -> tuple[str, ...]:
        """Rows beside candidate and baseline that gates compare with, sorted."""
        return tuple(sorted({gate.against for gate in self.hard if gate.against} - {BASELINE}))


@dataclass(frozen=True)
class Table:
    """What was measured, with intervals of one confidence.

    Attributes:
        rows: row -> measure -> interval; "candidate", "baseline" where there is one, and rows such as "reinhard".
        gains: measure -> candidate less baseline on the same images, positive where the candidate is better.
        ratios: measure -> candidate / baseline on the same images.
    """

    rows: "Mapping[str, Mapping[str, Interval]]"
    gains: "Mapping[str, Interval]" = field(default_factory=dict)
    ratios: "Mapping[str, Interval]" = field(default_factory=dict)

    def interval(self, row: str, measure: str) -> "Interval | None":
        """None where it was not measured."""
        return self.rows.get(row, {}).get(measure)


@dataclass(frozen=True)
class Outcome:
    """What became of one gate.

    Attributes:
        name: of the gate; "improves" for that rule.
        state: "passed", "failed" or "not asked".
        words: what came and what was wanted, or why it was not asked.
    """

    name: str
    state: State
    words: str

    def as_dict(self) -> dict[str, str]:
        """As it stands in a verdict."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """What the gates say together.

    Attributes:
        outcomes: one a gate in the order of the rules; then that of `improves`, where the rules have it.
        improved: measures of `improves` whose whole gain is above 0.
        passed: no gate failed.
    """

    outcomes: tuple[Outcome, ...]
    improved: tuple[str, ...]
    passed: bool


def decide(rules: Rules, tables: Mapping[float, Table]) -> Decision:
    """Holds measures against gates.

        at_least b       low >= b             at_most b        high <= b
        above ROW        low > value of ROW   below ROW        high < value of ROW
        of baseline      the same of the paired ratio candidate / baseline
        above baseline   low > 0 of the paired gain; so does below, gains being positive where better

    A measure that is missing or not a finite number fails its gate. Gates on the baseline are not asked where there is
    none: a first model has nothing to beat.

    Args:
        tables: confidence -> what was measured with it; one for each of `rules.confidences`.

    Raises:
        ValueError: a confidence has no table.

    >>> from stylejobs.core.bootstrap import Interval
    >>> table = Table({"candidate": {"edge_cosine": Interval(0.61, 0.58, 0.64)}})
    >>> decide(Rules((Gate("edge_cosine", "at_least", 0.45),)), {0.95: table}).outcomes[0].words
    'edge_cosine 0.61 (0.58 to 0.64), wanted at least 0.45'
    """
    missing = [confidence for confidence in rules.confidences if confidence not in tables]
    if missing:
        raise ValueError(f"wanted a table for each confidence; got none for {missing}")
    outcomes = [_judge(gate, tables[gate.confidence]) for gate in rules.hard]
    improved: tuple[str, ...] = ()
    if rules.improves:
        outcome, improved = _judge_gains(rules.improves, tables[rules.confidence])
        outcomes.append(outcome)
    return Decision(tuple(outcomes), improved, all(outcome.state != "failed" for outcome in outcomes))


def format_interval(interval: "Interval") -> str:
    """The value and its ends, four digits that matter.

    >>> from stylejobs.core.bootstrap import Interval
    >>> format_interval(Interval(0.61234, 0.58, 0.64))
    '0.6123 (0.58 to 0.64)'
    """
    return f"{interval.value:.4g} ({interval.low:.4g} to {interval.high:.4g})"


def _judge(gate: Gate, table: Table) -> Outcome:
    measure = gate.measure
    if gate.if_measured and table.interval(CANDIDATE, measure) is None:
        return Outcome(gate.name, "not asked", f"{measure} was not measured, and is asked for only if it was")
    if gate.against == BASELINE and BASELINE not in table.rows:
        return Outcome(gate.name, "not asked", f"there is no baseline that {measure} could be compared with")
    what, interval, bound, limit = _compared(gate, table)
    wanted = f"wanted {measure} {gate.wanted}"
    if interval is None or limit is None:
        missing = what if interval is None else f"{measure} of {gate.against}"
        return Outcome(gate.name, "failed", f"{missing} was not measured, {wanted}")
    if not all(map(math.isfinite, (*interval, limit))):
        came = f"{what} {format_interval(interval)}"
        words = f"{came} is not a number" if math.isfinite(limit) else f"{measure} of {gate.against} is {limit}"
        return Outcome(gate.name, "failed", f"{words}, {wanted}")
    passed = {
        "at_least": interval.low >= limit,
        "at_most": interval.high <= limit,
        "above": interval.low > limit,
        "below": interval.high < limit,
    }[bound]
    row = f" ({limit:.4g})" if gate.limit is None and gate.against != BASELINE else ""
    words = f"{what} {format_interval(interval)}, wanted {gate.wanted}{row}"
    return Outcome(gate.name, "passed" if passed else "failed", words)


def _compared(gate: Gate, table: Table) -> "tuple[str, Interval | None, str, float | None]":
    """What is compared, in words and numbers; by which bound; with what."""
    measure = gate.measure
    if gate.against == BASELINE and gate.limit is None:
        # Gains are positive where the candidate is better, whichever way that is.
        return f"gain of {measure}", table.gains.get(measure), "above", 0.0
    if gate.against == BASELINE:
        return f"ratio of {measure}", table.ratios.get(measure), gate.bound, gate.limit
    interval, limit = table.interval(CANDIDATE, measure), gate.limit
    if gate.against is not None:
        rival = table.interval(gate.against, measure)
        limit = None if rival is None else rival.value
    return measure, interval, gate.bound, limit


def _judge_gains(measures: tuple[str, ...], table: Table) -> tuple[Outcome, tuple[str, ...]]:
    wanted = f"wanted one of {', '.join(measures)} better than the baseline's with the whole interval"
    if BASELINE not in table.rows:
        return Outcome(IMPROVES, "not asked", "there is no baseline that could be improved on"), ()
    found = {measure: table.gains[measure] for measure in measures if measure in table.gains}
    if not found:
        return Outcome(IMPROVES, "failed", f"none was measured on both models, {wanted}"), ()
    # A gain that is not a number is not above 0.
    improved = tuple(measure for measure, gain in found.items() if all(map(math.isfinite, gain)) and gain.low > 0.0)
    came = ", ".join(f"{measure} by {format_interval(gain)}" for measure, gain in found.items())
    return Outcome(IMPROVES, "passed" if improved else "failed", f"{came}, {wanted}"), improved
