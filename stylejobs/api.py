"""The public face of stylejobs: what pipelines, notebooks and other programs may use.

Names are loaded when they are first used, so that `--help` and a wrong config need neither Ray nor torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylejobs.config.schema import IngestConfig, PromoteConfig, StylizeConfig, TrainConfig
    from stylejobs.engine.command import run_command
    from stylejobs.engine.ingest import ingest, plan_ingest
    from stylejobs.engine.promote import promote
    from stylejobs.engine.results import JobResult
    from stylejobs.engine.stylize import describe_plan, plan_stylize, stylize
    from stylejobs.engine.trainer import plan_training, register, train

_HOMES = {
    "stylejobs.config.schema": ("IngestConfig", "PromoteConfig", "StylizeConfig", "TrainConfig"),
    "stylejobs.engine.command": ("run_command",),
    "stylejobs.engine.ingest": ("ingest", "plan_ingest"),
    "stylejobs.engine.promote": ("promote",),
    "stylejobs.engine.results": ("JobResult",),
    "stylejobs.engine.stylize": ("describe_plan", "plan_stylize", "stylize"),
    "stylejobs.engine.trainer": ("plan_training", "register", "train"),
}

__all__ = [
    "IngestConfig",
    "JobResult",
    "PromoteConfig",
    "StylizeConfig",
    "TrainConfig",
    "describe_plan",
    "ingest",
    "plan_ingest",
    "plan_stylize",
    "plan_training",
    "promote",
    "register",
    "run_command",
    "stylize",
    "train",
]


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'stylejobs.api' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
