"""Generators by name: one file a paper, one line here.

Every generator has `multiple` (what its inner strides ask of both sides; it pads and crops by itself) and `style_dim`
(numbers of a style code; 0 where it needs none), and maps (content_BCHW, style_BD) to stylized_BCHW of the same height
and width, any H, W >= 1. A row's result depends on that row alone, so one batch may hold many styles. A generator with
`style_dim` > 0 also has `encode_style(style_BCHW) -> style_BD`.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from stylejobs.core.choices import choose
from stylejobs.core.networks.johnson2016 import Johnson
from stylejobs.core.networks.reinhard2001 import Moments

__all__ = ["NETWORKS", "build_network"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "johnson": Johnson,
    "moments": Moments,
}


def build_network(name: str, **options: Any) -> nn.Module:
    """An untrained generator.

    Args:
        name: a key of `NETWORKS`.
        **options: the keyword arguments of that network's class.

    Raises:
        ValueError: no such network, or options that it does not take.
    """
    build = choose("network", NETWORKS, name)
    try:
        return build(**options)
    except TypeError as error:
        raise ValueError(f"network {name!r} cannot be built with the options {sorted(options)}: {error}") from error
