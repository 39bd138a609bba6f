"""Command line arguments: which are files, which are `key=value`, which are flags.

Override text is kept to characters that no shell touches, because `ray job submit` and KubeRay pass an entrypoint
through one. A value that needs other characters belongs in a YAML file.
"""

import re
from collections.abc import Sequence

from stylejobs.config.files import Entry
from stylejobs.config.problems import Problem, did_you_mean

FLAGS = ("--help", "--show")
OVERRIDE = "override"
FORBIDDEN = re.compile(r"[^A-Za-z0-9._,\-/:+=@]")


def split_flags(argv: Sequence[str]) -> tuple[set[str], list[str]]:
    """Take `--help` and `--show` out of a command line.

    Other flags stay among the arguments, so that `load_config` reports them together with everything else.

    >>> split_flags(["--show", "conf/site/laptop.yaml", "seed=3"])
    ({'--show'}, ['conf/site/laptop.yaml', 'seed=3'])
    """
    return {text for text in argv if text in FLAGS}, [text for text in argv if text not in FLAGS]


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[Entry], list[Problem]]:
    """Sort arguments into file paths, overrides and problems, each in the order given.

    An override with a faulty value is a problem and an entry: its key may be wrong too.
    """
    paths: list[str] = []
    entries: list[Entry] = []
    problems: list[Problem] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            problems.append(_unknown_flag(argument))
        elif equals:
            reason = _override_fault(key, value)
            if reason:
                problems.append(Problem(key, reason, OVERRIDE))
            if key and not FORBIDDEN.search(key):
                entries.append(Entry(key, value, OVERRIDE))
        elif argument.endswith((".yaml", ".yml")):
            paths.append(argument)
        else:
            problems.append(Problem(argument, "wanted a .yaml file or key=value", "argument"))
    return paths, entries, problems


def _override_fault(key: str, value: str) -> str:
    bad = FORBIDDEN.search(f"{key}={value}")
    if bad:
        return (
            f"an override may hold only letters, digits and . _ , - / : + = @ (a shell reads it); got {bad.group()!r}; "
            "set this key in a YAML file, where any text may stand"
        )
    if not key:
        return "wanted key=value; there is no key before ="
    return "" if value else "no value after =; leave the key out for its default, or write `none` if it is optional"


def _unknown_flag(argument: str) -> Problem:
    flag, equals, value = argument.partition("=")
    if equals:
        reason = f"unknown flag; keys have no dashes, did you mean '{flag.lstrip('-')}={value}'?"
    else:
        name = flag.lstrip("-")
        short_for = [known for known in FLAGS if name and known.startswith(f"--{name}")]
        near = did_you_mean(short_for[0] if short_for else f"--{name}", FLAGS)
        reason = f"unknown flag{near or '; there are --help and --show'}"
    return Problem(flag, reason, "argument")
