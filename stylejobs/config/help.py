"""The text of `--help`, made from the schema alone, so that it cannot disagree with it."""

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from stylejobs.config.schema import CONFIGS
from stylejobs.config.sections import PATTERN_WORDS, list_fields

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of"}


def format_help(verb: str) -> str:
    """Render the usage of a verb, then every key: type or choices, bounds, default, description, [unit].

    Raises:
        KeyError: no such verb.
    """
    model = CONFIGS[verb]
    fields = list_fields(model)
    width = max(len(key) for key in fields)
    required = [f"{key}=" for key, field in fields.items() if field.is_required()]
    words = " ".join([*(["VERB"] if verb == "submit" else []), "[file.yaml ...]", *required])
    lines = [
        f"usage: python -m pipelines.{verb} {words} [key=value ...] [--show] [--help]",
        "",
        model.__doc__ or "",
        "Files merge left to right, then key=value. A list is a,b; `none` unsets an optional key.",
        "--show prints the merged config with the origin of each value and stops.",
        "",
    ]
    for key, field in fields.items():
        default = "REQUIRED" if field.is_required() else f"default {_default_words(field.default)}"
        lines.append(f"  {key:<{width}}  {_type_words(field.annotation, field.metadata)}; {default}")
        lines.append(f"  {'':<{width}}    {field.description}")
    return "\n".join(lines)


def _default_words(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def _type_words(annotation: Any, metadata: list[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [item for part in arguments[1:] for item in (part.metadata if isinstance(part, FieldInfo) else [part])]
        return _type_words(arguments[0], [*inner, *metadata])
    if origin in (Union, UnionType):
        kinds = [_type_words(kind, metadata) for kind in arguments if kind is not NoneType]
        return "|".join([*kinds, *(["none"] if NoneType in arguments else [])])
    if origin is Literal:
        return "|".join(arguments)
    names = {int: "whole number", float: "number", bool: "true|false", str: "text", tuple: "list a,b"}
    return f"{names[origin or annotation]}{_bounds_words(metadata)}"


def _bounds_words(metadata: list[Any]) -> str:
    words = []
    for item in metadata:
        words += [f"{sign} {getattr(item, name)}" for name, sign in _SIGNS.items() if hasattr(item, name)]
        pattern = getattr(item, "pattern", None)
        words += [f"of {PATTERN_WORDS[pattern]}"] if pattern else []
    return f" {', '.join(words)}" if words else ""
