"""What a plan and a canary said, as the Markdown of one comment on a pull or merge request.

    python infra/ci/plan_comment.py plan.jsonl canary.jsonl --canary out/canary/_stylejobs/canary.json --pictures URL

The two files are what `stylize` printed on stdout: the last line is its result. Names and messages in them are text
that somebody else may have chosen: they stand in code, where Markdown, HTML and @names mean nothing.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylejobs.report.wording import format_count, format_duration, to_printable

MARKER = "<!-- stylejobs plan -->"
"""The first line, by which the comment is found again."""

_MB = 2**20
_MOST_CHARACTERS = 4000


def read_result(path: Path) -> dict[str, Any]:
    """The result of a verb: the last line of what it printed on stdout.

    Raises:
        ValueError: there is none.
    """
    lines = path.read_text().strip().splitlines() if path.exists() else []
    try:
        result = json.loads(lines[-1])
    except (IndexError, ValueError):
        result = None
    if not isinstance(result, dict) or "exit_code" not in result:
        raise ValueError(f"{path}: wanted what a verb printed on stdout, whose last line is its result; got none")
    return result


def render_comment(
    plan: Mapping[str, Any], canary: Mapping[str, Any], gates: Mapping[str, Any] | None, pictures: str | None
) -> str:
    """The whole comment.

    Args:
        plan: result of `stylize plan=true`.
        canary: result of `stylize canary=1` on a few images.
        gates: what its canary.json holds; None where it came to none.
        pictures: where the pairs of source and result are kept.
    """
    lines = [MARKER, "## Plan", "", *(_plan_table(plan) if plan["exit_code"] == 0 else _failure(plan))]
    lines += ["", "## Canary", "", *(_canary_lines(gates) if gates else [])]
    if canary["exit_code"] != 0:
        lines += ["", *_failure(canary)]
    if pictures:
        lines += ["", f"Pairs to look at, source beside result: <{pictures}>"]
    return "\n".join([*lines, ""])


def _plan_table(plan: Mapping[str, Any]) -> list[str]:
    forecast, source, model = plan["details"]["forecast"], plan["details"]["source"], plan["model"]
    about = "" if forecast["rows_known"] else "about "
    rate, money = forecast["rate"], forecast["money"]
    cost = _span(money, "{:,.2f}".format) if money else "not known: the job's file gives no `prices`"
    rows = {
        "rows": f"{about}{format_count(forecast['rows'])}, {_megabytes(forecast['bytes_in'])}",
        "units": format_count(source["units"]),
        "model": f"{_code(model['uri'])}: {_code(model['name'])} {_code(model['version'])}",
        "weights": _code(model["sha256"]),
        "to write": f"{format_count(forecast['images_left'])} pictures, {_megabytes(forecast['bytes_out']['value'])}",
        "speed": f"{format_count(forecast['workers'])} workers, {rate['value']:g} images/s each ({_code(rate['how'])})",
        "time": _span(forecast["hours"], lambda hours: format_duration(hours * 3600)),
        "GPU-hours": _span(forecast["gpu_hours"], "{:,.4g}".format),
        "**cost**": f"**{cost}**",
    }
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())]


def _canary_lines(canary: Mapping[str, Any]) -> list[str]:
    bad = ", ".join(f"{format_count(count)} {_code(reason)}" for reason, count in canary["reasons"].items())
    lines = [
        f"**{'passed' if canary['passed'] else 'REFUSED'}**: {format_count(canary['rows'])} rows, bad: {bad or 'none'}",
        "",
        "| gate | | what came | wanted |",
        "|---|---|---|---|",
    ]
    for gate in canary["gates"]:
        sign = "ok" if gate["passed"] else "**failed**"
        wanted = f"{gate['bound']} {gate['limit']:.4g}"
        lines.append(f"| {_code(gate['name'])} | {sign} | {gate['value']:.4g} | {wanted} |")
    return lines


def _failure(result: Mapping[str, Any]) -> list[str]:
    message = str(to_printable(str(result.get("message") or "no message")))[:_MOST_CHARACTERS]
    return [f"ended with exit code {int(result['exit_code'])}:", "", "```text", message.replace("`", "'"), "```"]


def _code(text: object) -> str:
    """Words on one line as code; in a table, where a bar would end the cell even there."""
    words = " ".join(str(to_printable(str(text))).split())[:_MOST_CHARACTERS]
    return f"`{words.replace('`', chr(39)).replace('|', chr(92) + '|') or '-'}`"


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / _MB:,.1f} MB"


def _span(values: Mapping[str, float], text: Any) -> str:
    return f"{text(values['expected'])} ({text(values['low'])} to {text(values['high'])})"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A plan and its canary as the Markdown of one comment.")
    parser.add_argument("plan", type=Path, help="stdout of stylize plan=true")
    parser.add_argument("canary", type=Path, help="stdout of stylize canary=1 on a few images")
    parser.add_argument("--canary", dest="gates", type=Path, help="DEST/_stylejobs/canary.json of the latter")
    parser.add_argument("--pictures", help="where its pictures are kept [URL]")
    options = parser.parse_args(argv)
    try:
        plan, canary = read_result(options.plan), read_result(options.canary)
    except ValueError as error:
        print(f"plan_comment.py: {error}", file=sys.stderr)
        return 2
    has_gates = options.gates is not None and options.gates.exists()
    gates = json.loads(options.gates.read_text()) if has_gates else None
    sys.stdout.write(render_comment(plan, canary, gates, options.pictures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
