"""YAML files as flat entries `dotted.key -> value` that remember their line.

Here lives what is known about YAML; whether a key exists is known in load.py. Flat entries make merging a plain
"the later one wins", and make a key written twice visible.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from stylejobs.config.problems import Problem


@dataclass(frozen=True)
class Entry:
    """One value that somebody wrote; `origin` is `path:line` or `override`."""

    key: str
    value: Any
    origin: str


class _PlainLoader(yaml.SafeLoader):
    """YAML without anchors: what a file sets is what its lines say."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases (& and *) are not used here; write the value out", event.start_mark
            )
        return super().compose_node(parent, index)


def read_file(path: str) -> tuple[list[Entry], list[Problem]]:
    """Read one YAML file; everything wrong with it is returned as problems, nothing is raised.

    A mapping is a section; `a: {b: 1}` and `a.b: 1` are the same entry. A key that is written twice, in either
    spelling, is a problem.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return [], [Problem(path, f"no such file{_nearest_file(path)}", "argument")]
    except (OSError, UnicodeDecodeError) as error:
        return [], [Problem(path, f"cannot be read as UTF-8 text: {error}", "argument")]
    try:
        loader = _PlainLoader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        return [], [_syntax_problem(path, text, error)]
    if root is None:
        return [], []
    reader = _Reader(path, loader)
    if isinstance(root, yaml.MappingNode):
        reader.add_mapping(root, prefix="")
    else:
        reader.problems.append(
            Problem(path, "wanted lines `key: value`; got a list or a single value", reader.origin(root))
        )
    return reader.entries, reader.problems


def nest(entries: Iterable[Entry]) -> dict[str, Any]:
    """Flat entries as the tree that pydantic reads.

    >>> nest([Entry("a.b", 1, ""), Entry("a.c", 2, ""), Entry("d", 3, "")])
    {'a': {'b': 1, 'c': 2}, 'd': 3}
    """
    tree: dict[str, Any] = {}
    for entry in entries:
        *parents, name = entry.key.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = entry.value
    return tree


class _Reader:
    def __init__(self, path: str, loader: _PlainLoader):
        self.path = path
        self.loader = loader
        self.entries: list[Entry] = []
        self.problems: list[Problem] = []
        self._seen: dict[str, str] = {}

    def origin(self, node: yaml.Node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"

    def add_mapping(self, mapping: yaml.MappingNode, prefix: str) -> None:
        for key_node, value_node in mapping.value:
            origin = self.origin(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(prefix.rstrip(".") or self.path, "a key must be plain text", origin))
                continue
            key = f"{prefix}{key_node.value}"
            if key in self._seen:
                self.problems.append(Problem(key, f"written twice; first at {self._seen[key]}", origin))
                continue
            self._seen[key] = origin
            if isinstance(value_node, yaml.MappingNode):
                self.add_mapping(value_node, f"{key}.")
            else:
                self._add_value(key, value_node, origin)

    def _add_value(self, key: str, node: yaml.Node, origin: str) -> None:
        try:
            value = self.loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            # PyYAML takes 2024-13-45 for a date, and `!!int x` for a number, and lets their ValueError out.
            reason = getattr(error, "problem", None) or str(error)
            self.problems.append(Problem(key, f"YAML cannot read this value ({reason}); put text in quotes", origin))
        else:
            self.entries.append(Entry(key, value, origin))


def _syntax_problem(path: str, text: str, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    # A reader error (a control character) knows an offset instead of a line.
    line = mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return Problem(path, f"not valid YAML: {reason}", f"{path}:{line + 1}")


def _nearest_file(path: str) -> str:
    folder = Path(path).parent
    names = sorted(found.name for found in folder.glob("*.y*ml")) if folder.is_dir() else []
    close = get_close_matches(Path(path).name, names, n=1)
    return f"; did you mean '{folder / close[0]}'?" if close else ""
