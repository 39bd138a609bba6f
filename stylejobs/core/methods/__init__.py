"""Training methods by name: one file a method, one line here."""

from collections.abc import Callable
from typing import Any

from stylejobs.core.choices import choose
from stylejobs.core.methods.fast import Fast, FastOptions
from stylejobs.core.methods.method import Method, Objective

__all__ = ["METHODS", "Fast", "FastOptions", "Method", "Objective", "build_method"]

METHODS: dict[str, Callable[..., Method]] = {
    "fast": Fast,
}


def build_method(name: str, **options: Any) -> Method:
    """A method, ready to train.

    Args:
        name: a key of `METHODS`.
        **options: the keyword arguments of that method's class.

    Raises:
        ValueError: no such method.
    """
    return choose("method", METHODS, name)(**options)
