"""What is wrong with a configuration, as lines for a person: key, reason, nearest valid key, where it was written."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

from stylejobs.config.sections import PATTERN_WORDS

_MAX_VALUE_LENGTH = 60


@dataclass(frozen=True)
class Problem:
    """One fault; `origin` is `path:line`, `override`, `argument`, `default`, or empty for a key that nobody set."""

    key: str
    reason: str
    origin: str


def render_problems(problems: Sequence[Problem]) -> list[str]:
    """Render one line a problem: key, reason, `[origin]`, the keys padded to one column."""
    width = min(max((len(problem.key) for problem in problems), default=0), 40)
    return [_render(problem, width) for problem in problems]


def _render(problem: Problem, width: int) -> str:
    where = f"override {problem.key}=" if problem.origin == "override" else problem.origin
    # A file may hold any text, line breaks too; a problem is one line.
    line = f"{problem.key:<{width}}  {problem.reason}" + (f"   [{where}]" if where else "")
    return " ".join(line.splitlines())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a reason: `; did you mean 'x'?`, or nothing when nothing is near.

    A key that is right but for its section (`lr` for `optim.lr`) is as near as a typo.

    >>> did_you_mean("lr", ["optim.lr", "seed"])
    "; did you mean 'optim.lr'?"
    """
    known = list(known)
    last = word.rpartition(".")[2]
    close = [key for key in known if key.rpartition(".")[2] == last] or get_close_matches(word, known, n=1)
    if not close:
        by_last = {key.rpartition(".")[2]: key for key in reversed(known)}
        close = [by_last[name] for name in get_close_matches(last, by_last, n=1)]
    return f"; did you mean '{close[0]}'?" if close else ""


def problems_of_values(
    errors: Iterable[ErrorDetails], keys: Collection[str], origins: Mapping[str, str], described: Mapping[str, str]
) -> list[Problem]:
    """Translate what pydantic found; alternatives of one key (`keep` or a number) become one line.

    Args:
        errors: of one `ValidationError`.
        keys: all dotted keys, to tell a key from the parts that pydantic adds to its place.
        origins: dotted key -> where its value came from; a key that is not in it has its default.
        described: dotted key -> description, for keys that are required and not set.
    """
    reasons: dict[str, list[str]] = {}
    for error in errors:
        key = _key_of(error["loc"], keys)
        missing = f"required, not set: {described.get(key, '')}"
        reasons.setdefault(key, []).append(missing if error["type"] == "missing" else _reason(error))
    return [
        Problem(key, _join(found), origins.get(key, "" if found[0].startswith("required") else "default"))
        for key, found in reasons.items()
    ]


def _key_of(loc: tuple[int | str, ...], keys: Collection[str]) -> str:
    parts = [str(part) for part in loc]
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in keys:
            return ".".join(parts[:end])
    return ".".join(parts)


def _join(reasons: list[str]) -> str:
    wanted = dict.fromkeys(reason.partition("; got ")[0].removeprefix("wanted ") for reason in reasons)
    if len(wanted) == 1:
        return reasons[0]
    came = max((reason.partition("; got ")[2] for reason in reasons), key=len)  # the one with a suggestion
    return f"wanted {' or '.join(wanted)}; got {came}"


def _reason(error: ErrorDetails) -> str:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "refused":
        return str(context["reason"])
    wanted = _wanted(kind, context) or error["msg"]
    shown = repr(value)
    if len(shown) > _MAX_VALUE_LENGTH:
        shown = f"{shown[:_MAX_VALUE_LENGTH]}..."
    hint = "; put it in quotes" if kind == "string_type" and isinstance(value, int | float) else ""
    if kind == "literal_error" and isinstance(value, str):
        choices = [choice.strip("'") for choice in context["expected"].replace(" or ", ", ").split(", ")]
        hint = did_you_mean(value, choices)
    return f"wanted {wanted}; got {shown}{hint}"


def _wanted(kind: str, context: Mapping[str, Any]) -> str:
    bounds = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", ">="), "less_than": ("lt", "<")}
    bounds |= {"less_than_equal": ("le", "<="), "multiple_of": ("multiple_of", "a multiple of")}
    if kind in bounds:
        name, sign = bounds[kind]
        return f"{sign} {context[name]}"
    if kind == "literal_error":
        return f"one of {context['expected'].replace(' or ', ', ')}"
    if kind == "string_pattern_mismatch":
        return PATTERN_WORDS.get(context["pattern"], f"text like {context['pattern']}")
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "too_short":
        return "at least one item"
    families = {"int_": "a whole number", "float_": "a number", "finite_": "a finite number", "string_": "text"}
    families |= {"tuple_": "a list, a,b"}
    return next((words for start, words in families.items() if kind.startswith(start)), "")
