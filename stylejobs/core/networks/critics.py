"""Critics by name: one line each. They return logits (no sigmoid, the losses take logits), high for real.

A critic judges a row by that row alone, so none has batch norm. `min_px` is the smallest side that it takes; smaller
images are refused and never padded, because a critic must not judge the padding.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from stylejobs.core.choices import choose
from stylejobs.core.networks.choi2018 import PatchDomainCritic
from stylejobs.core.networks.isola2017 import PatchCritic
from stylejobs.core.networks.radford2016 import DcganCritic
from stylejobs.core.networks.wang2018 import MultiscaleCritic

CRITICS: dict[str, Callable[..., nn.Module]] = {
    "dcgan": DcganCritic,
    "multiscale": MultiscaleCritic,
    "patch": PatchCritic,
    "patch_domain": PatchDomainCritic,
}


def build_critic(name: str, **options: Any) -> nn.Module:
    """An untrained critic.

    Args:
        name: a key of `CRITICS`.
        **options: the keyword arguments of that critic's class.

    Raises:
        ValueError: no such critic, or options that it does not take.
    """
    build = choose("critic", CRITICS, name)
    try:
        return build(**options)
    except TypeError as error:
        raise ValueError(f"critic {name!r} cannot be built with the options {sorted(options)}: {error}") from error
