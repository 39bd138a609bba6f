"""Verdicts for what watches a pipeline: JUnit XML and a Markdown summary. Text only: no files.

A verdict is as `evaluate` writes it. Read of it are `model` and `baseline` (with `uri`), `passed`, `gates` (each with
`name`, `words` and `state`: "passed", "failed" or "not asked") and `measures`: row -> measure -> value, low, high, None
where a number is not finite. Its text is treated as hostile.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from stylejobs.report import wording

_FIRST_ROWS = ("candidate", "baseline")
_SIGNS = {"passed": "ok", "failed": "**failed**", "not asked": wording.NOTHING}


def render_junit(verdict: Mapping[str, Any]) -> str:
    """One test case a gate, as CI systems read them; gates that were not asked are skipped.

    >>> gate = {"name": "clipped at most 0.02", "state": "failed", "words": "clipped 0.2"}
    >>> 'failures="1"' in render_junit({"model": {"uri": "models:/m/3"}, "gates": [gate]})
    True
    """
    gates = verdict["gates"]
    states = [gate["state"] for gate in gates]
    counts = {"tests": len(states), "failures": states.count("failed"), "skipped": states.count("not asked")}
    suite = ElementTree.Element("testsuite", name=_one_line(verdict["model"]["uri"]), errors="0")
    suite.attrib.update({name: str(count) for name, count in counts.items()})
    for gate in gates:
        words = _one_line(gate["words"])
        case = ElementTree.SubElement(suite, "testcase", classname="gates", name=_one_line(gate["name"]))
        if gate["state"] == "passed":
            ElementTree.SubElement(case, "system-out").text = words
        else:
            kind = "failure" if gate["state"] == "failed" else "skipped"
            ElementTree.SubElement(case, kind, message=words).text = words
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def render_summary(verdict: Mapping[str, Any]) -> str:
    """Markdown: what was decided, a table of the gates, and one of the measures of all rows."""
    gates = verdict["gates"]
    num_failed = sum(gate["state"] == "failed" for gate in gates)
    baseline = verdict["baseline"]
    beside = "without a baseline" if baseline is None else f"beside {_cell(baseline['uri'])}"
    decided = f"**refused**, {num_failed} failed" if num_failed or not verdict["passed"] else "**passed**"
    decided = "measured, without gates" if verdict["passed"] is None else decided
    lines = [f"## {_cell(verdict['model']['uri'])}", "", f"{decided}, {beside}"]
    if gates:
        lines += ["", "| gate | | what came |", "|---|---|---|"]
    for gate in gates:
        lines.append(f"| {_cell(gate['name'])} | {_SIGNS[gate['state']]} | {_cell(gate['words'])} |")
    return "\n".join([*lines, *_table(verdict["measures"]), ""])


def _table(measures: Mapping[str, Mapping[str, Sequence[float | None]]]) -> list[str]:
    """Candidate and baseline with their intervals, other rows as values."""
    rows = [row for row in _FIRST_ROWS if row in measures] + [row for row in measures if row not in _FIRST_ROWS]
    if not rows:
        return []
    lines = ["", f"| measure | {' | '.join(map(_cell, rows))} |", f"|---{'|---' * len(rows)}|"]
    for name in dict.fromkeys(name for row in rows for name in measures[row]):
        cells = [_interval(measures[row].get(name), row in _FIRST_ROWS) for row in rows]
        lines.append(f"| {_cell(name)} | {' | '.join(cells)} |")
    return lines


def _interval(interval: Sequence[float | None] | None, with_ends: bool) -> str:
    if interval is None:
        return wording.NOTHING
    value, low, high = (wording.NOTHING if n is None or not math.isfinite(n) else f"{n:.4g}" for n in interval)
    return f"{value} ({low} to {high})" if with_ends else value


def _one_line(text: object) -> str:
    return re.sub(r"\s+", " ", str(wording.to_printable(str(text)))).strip()


def _cell(text: object) -> str:
    """Words on one line that split no table, link to nothing, call nobody, and in which no HTML has a meaning."""
    escaped = re.sub(r"([\\|`\[\]])", r"\\\1", _one_line(text)).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"(?<!\w)@", "&#64;", escaped)
