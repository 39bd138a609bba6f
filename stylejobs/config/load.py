"""The command line of a verb -> one checked, frozen configuration. The face of this folder.

    python -m pipelines.VERB [file.yaml ...] [key=value ...] [--show] [--help]

Files merge left to right, then overrides, wherever they stand; the last one wins, key by key. There is no other rule
of precedence: no includes, no interpolation. In a file, a top-level key that is the name of a verb holds keys for
that verb only: other verbs pass over it, and for its own verb it wins over the shared keys of the same file. So one
file about a place (conf/site) serves every verb:

    train: {workers: 2}
    stylize: {cluster: {actor_gpus: 1}}

Loading finds all problems before it raises, and imports neither torch nor ray: a typo costs less than a second.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from stylejobs.config.files import Entry, nest, read_file
from stylejobs.config.help import format_help
from stylejobs.config.overrides import split_arguments, split_flags
from stylejobs.config.problems import Problem, did_you_mean, problems_of_values, render_problems
from stylejobs.config.schema import CONFIGS
from stylejobs.config.sections import Section, flatten, list_fields
from stylejobs.errors import ConfigError

__all__ = ["Loaded", "format_help", "format_show", "load_config", "split_flags"]


@dataclass(frozen=True)
class Loaded:
    """A checked configuration.

    Args:
        verb: the command it is for.
        config: frozen model of schema.py; of `submit` a `submission.Submission`.
        origins: every dotted key -> `default`, `path:line` or `override`.
        digest: sha256, hexadecimal, of the canonical JSON of `config`; the same values give the same digest
            wherever they were written.
    """

    verb: str
    config: Any
    origins: Mapping[str, str]
    digest: str


def load_config(verb: str, arguments: Sequence[str], own_only: bool = False) -> Loaded:
    """Merge the files and overrides in `arguments` and check the result.

    Args:
        own_only: of files take what stands below the verb alone: the rest is meant for another one.

    Raises:
        ConfigError: all problems at once, one a line: key, reason, nearest valid key, `[path:line]` or
            `[override key=]`.
    """
    if verb not in CONFIGS:
        raise ConfigError([f"{verb}  unknown verb{did_you_mean(verb, CONFIGS)}; there are {', '.join(CONFIGS)}"])
    model = CONFIGS[verb]
    paths, overrides, problems = split_arguments(arguments)
    entries: list[Entry] = []
    for path in paths:
        found, faults = read_file(path)
        for_verb, verb_faults = _select_verb(found, verb, own_only)
        entries += for_verb
        problems += faults + verb_faults
    values, faults = _merge([*entries, *overrides], verb)
    problems += faults
    origins = {key: entry.origin for key, entry in values.items()}
    fields = list_fields(model)
    conflicts = model.find_conflicts({key: entry.value for key, entry in values.items()})
    problems += [Problem(key, reason, origins.get(key, "")) for key, reason in conflicts.items()]
    try:
        config = model.model_validate(nest(values.values()))
    except ValidationError as error:
        described = {key: field.description or "" for key, field in fields.items()}
        spoiled = {problem.key for problem in problems}
        found_late = problems_of_values(error.errors(), fields, origins, described)
        problems += [problem for problem in found_late if problem.key not in spoiled]
    if problems:
        raise ConfigError(render_problems(problems))
    return Loaded(verb, config, {key: origins.get(key, "default") for key in fields}, _digest(config))


def format_show(loaded: Loaded) -> str:
    """Render the merged configuration as YAML that loads to the same digest, each value with its origin behind #."""
    lines: list[tuple[str, str]] = []
    section: tuple[str, ...] = ()
    config = loaded.config
    for key, value in (flatten(config) if isinstance(config, Section) else config.flat()).items():
        *parents, name = key.split(".")
        if tuple(parents) != section:
            section = tuple(parents)
            lines += [(f"{'  ' * (len(parents) - 1)}{parents[-1]}:", "")] if parents else []
        lines.append((f"{'  ' * len(parents)}{name}: {_to_yaml(value)}", loaded.origins[key]))
    width = min(max(len(text) for text, _ in lines), 60)
    return "\n".join(f"{text:<{width}}  # {origin}" if origin else text for text, origin in lines)


def _to_yaml(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def _select_verb(entries: Iterable[Entry], verb: str, own_only: bool) -> tuple[list[Entry], list[Problem]]:
    shared: list[Entry] = []
    own: list[Entry] = []
    problems: list[Problem] = []
    for entry in entries:
        top, _, rest = entry.key.partition(".")
        if top not in CONFIGS:
            shared.append(entry)
        elif rest and top == verb:
            own.append(Entry(rest, entry.value, entry.origin))
        elif not rest and entry.value is not None:
            problems.append(Problem(top, f"wanted keys of the verb {top} below it; got {entry.value!r}", entry.origin))
    return [*([] if own_only else shared), *own], problems


def _merge(entries: Iterable[Entry], verb: str) -> tuple[dict[str, Entry], list[Problem]]:
    fields = list_fields(CONFIGS[verb])
    sections = {key.rpartition(".")[0] for key in fields} - {""}
    values: dict[str, Entry] = {}
    problems: list[Problem] = []
    for entry in entries:
        if entry.key in fields:
            values[entry.key] = entry
        elif entry.key not in sections:
            problems.append(Problem(entry.key, _unknown_key(entry.key, verb), entry.origin))
        elif entry.value is not None:
            # A section whose lines are all commented out reads as null, and means nothing.
            reason = f"is a section; wanted keys below it, such as {_first_key(entry.key, fields)}"
            problems.append(Problem(entry.key, reason, entry.origin))
    return values, problems


def _first_key(section: str, fields: Iterable[str]) -> str:
    return next(key for key in fields if key.startswith(f"{section}."))


def _unknown_key(key: str, verb: str) -> str:
    fields = list_fields(CONFIGS[verb])
    parent = key.rpartition(".")[0]
    if parent in fields:
        return f"unknown key; {parent} takes a value, not keys"
    others = [other for other, model in CONFIGS.items() if other != verb and key in list_fields(model)]
    verbs = CONFIGS if "." not in key else ()
    near = did_you_mean(key, [*fields, *verbs]) or f"; see python -m pipelines.{verb} --help"
    return f"unknown key of {verb}{f' (it is one of {others[0]})' if others else ''}{near}"


def _digest(config: Section) -> str:
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
