"""Files of gates: what `evaluate` asks of a model and `promote` wants to have been asked.

    confidence: 0.95
    hard:
      edge_cosine: {at_least: 0.45}
      style: {above: reinhard}
      sliced_wasserstein_0: {at_most: 1.25, of: baseline}
    improves: [style, downstream]

What gates mean is in `core.gates`, which measures there are in `core.measures`. A file is checked like a config: all
problems at once, each with the nearest valid word and its line.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, create_model

from stylejobs.config.files import Entry, nest, read_file
from stylejobs.config.problems import Problem, did_you_mean, problems_of_values, render_problems
from stylejobs.config.sections import Section, list_fields
from stylejobs.core.gates import Gate, Rules
from stylejobs.core.measures import MEASURES, ROWS
from stylejobs.errors import ConfigError

_CHECKOUT = Path(__file__).parents[2]
_LIMITS = ("at_least", "at_most")
_RIVALS = ("above", "below")
_WRONG = {"higher": ("at_most", "below"), "lower": ("at_least", "above"), "near one": ()}
_Row = Literal[(*ROWS, "baseline")]
_Improvable = Literal[tuple(name for name, measure in MEASURES.items() if measure.gain)]


class Bounds(Section):
    """What is asked of one measure."""

    at_least: float | None = Field(None, description="The whole interval reaches this [unit of the measure]")
    at_most: float | None = Field(None, description="The whole interval stays at or below this [unit of the measure]")
    above: _Row | None = Field(None, description="The whole interval is above the value of this row")
    below: _Row | None = Field(None, description="The whole interval is below the value of this row")
    of: Literal["baseline"] | None = Field(None, description="at_least and at_most are ratios to this")
    confidence: float | None = Field(None, gt=0.5, lt=1, description="Of the interval; none = the file's [fraction]")
    if_measured: bool = Field(False, description="Not asked where the measure was not taken, instead of failed")


_Hard = create_model("_Hard", __base__=Section, **{name: (Bounds, Bounds()) for name in MEASURES})


class Gating(Section):
    """A file of gates."""

    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of every interval that must hold [fraction]")
    hard: _Hard = _Hard()
    improves: tuple[_Improvable, ...] = Field((), description="One of these must improve on the baseline")

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> dict[str, str]:
        faults: dict[str, str] = {}
        asked: dict[str, list[str]] = {}
        for key in values:
            top, _, rest = key.partition(".")
            if top == "hard":
                measure, _, word = rest.partition(".")
                asked.setdefault(measure, []).append(word)
        for measure, words in asked.items():
            for word in words:
                if fault := _fault(measure, word, values[f"hard.{measure}.{word}"]):
                    faults[f"hard.{measure}.{word}"] = fault
            if not {*_LIMITS, *_RIVALS} & set(words):
                faults[f"hard.{measure}.{words[0]}"] = "wanted a bound beside it: at_least, at_most, above or below"
            elif "of" in words and not {*_LIMITS} & set(words):
                faults[f"hard.{measure}.of"] = "is read only with at_least or at_most"
        return faults


def _fault(measure: str, word: str, value: Any) -> str | None:
    """Why a measure cannot be asked this; None where it can."""
    known = MEASURES[measure]
    if word in _WRONG[known.better]:
        right = [bound for bound in (*_LIMITS, *_RIVALS) if bound not in _WRONG[known.better]]
        return f"{measure} is better {known.better}; wanted {' or '.join(right)}"
    if word == "of" and not known.ratio:
        return "only these are compared as ratios: " + ", ".join(name for name, one in MEASURES.items() if one.ratio)
    if word in _RIVALS and value == "baseline" and not known.gain:
        return f"{measure} of two models is not compared image by image"
    return None


def load_gates(path: str) -> tuple[Rules, str]:
    """Reads a file of gates.

    Args:
        path: local. A relative one is looked for in the working directory, then in the checkout that this package
            lies in, so that the defaults are found from everywhere.

    Returns:
        The gates, and the sha256, hexadecimal, of what they mean: order, comments and spelling do not change it.

    Raises:
        ConfigError: all problems at once.
    """
    place = _CHECKOUT / path
    entries, problems = read_file(str(place) if not Path(path).exists() and place.exists() else path)
    fields = list_fields(Gating)
    known = [entry for entry in entries if entry.key in fields]
    problems += _unknown(entries, fields)
    origins = {entry.key: entry.origin for entry in known}
    conflicts = Gating.find_conflicts({entry.key: entry.value for entry in known})
    problems += [Problem(key, reason, origins[key]) for key, reason in conflicts.items()]
    try:
        gating = Gating.model_validate(nest(known))
    except ValidationError as error:
        problems += problems_of_values(error.errors(), fields, origins, {})
    if not problems and not any(key.startswith("hard.") for key in origins):
        problems = [Problem(path, "asks for nothing: wanted at least one gate below hard:", "")]
    if problems:
        raise ConfigError(render_problems(problems))
    rules = _rules(gating)
    return rules, _digest(rules)


def _unknown(entries: Iterable[Entry], fields: Mapping[str, Any]) -> list[Problem]:
    sections = {".".join(key.split(".")[:end]) for key in fields for end in range(1, key.count(".") + 1)}
    problems = []
    for entry in entries:
        if entry.key in fields:
            continue
        top, *below = entry.key.split(".")
        if entry.key in sections:
            # A section whose lines are all commented out reads as null, and means nothing.
            if entry.value is not None:
                what = "measures" if entry.key == "hard" else "bounds such as at_least"
                problems.append(Problem(entry.key, f"is a section; wanted {what} below it", entry.origin))
        elif top != "hard" or not below:
            reason = f"unknown key of gates{did_you_mean(top, Gating.model_fields)}"
            problems.append(Problem(entry.key, reason, entry.origin))
        elif below[0] not in MEASURES:
            near = did_you_mean(below[0], MEASURES) or f"; there are {', '.join(MEASURES)}"
            problems.append(Problem(entry.key, f"unknown measure{near}", entry.origin))
        else:
            near = did_you_mean(below[1], Bounds.model_fields)
            problems.append(Problem(entry.key, f"unknown key of a gate{near}", entry.origin))
    return problems


def _rules(gating: Gating) -> Rules:
    gates = []
    for measure in MEASURES:
        bounds = getattr(gating.hard, measure)
        confidence = gating.confidence if bounds.confidence is None else bounds.confidence
        shared = {"confidence": confidence, "if_measured": bounds.if_measured}
        for word in _LIMITS:
            if (limit := getattr(bounds, word)) is not None:
                gates.append(Gate(measure, word, limit, bounds.of, **shared))
        for word in _RIVALS:
            if (row := getattr(bounds, word)) is not None:
                gates.append(Gate(measure, word, None, row, **shared))
    return Rules(tuple(gates), tuple(gating.improves), gating.confidence)


def _digest(rules: Rules) -> str:
    # Sorted by name: a measure that is added elsewhere in the table changes no digest.
    gates = sorted((asdict(gate) for gate in rules.hard), key=lambda gate: (gate["measure"], gate["bound"]))
    meaning = {"hard": gates, "improves": sorted(set(rules.improves)), "confidence": rules.confidence}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()
