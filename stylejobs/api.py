"""The public face of stylejobs: what pipelines, notebooks and other programs may use.

Names are loaded when they are first used, so that `--help` and a wrong config need neither Ray nor torch.
"""

import importlib
from typing import Any

_HOMES = {
    "IngestConfig": "stylejobs.config.schema",
    "JobResult": "stylejobs.engine.results",
    "PromoteConfig": "stylejobs.config.schema",
    "StylizeConfig": "stylejobs.config.schema",
    "TrainConfig": "stylejobs.config.schema",
    "describe_plan": "stylejobs.engine.stylize",
    "ingest": "stylejobs.engine.ingest",
    "plan_ingest": "stylejobs.engine.ingest",
    "plan_stylize": "stylejobs.engine.stylize",
    "plan_training": "stylejobs.engine.trainer",
    "promote": "stylejobs.engine.promote",
    "register": "stylejobs.engine.trainer",
    "run_command": "stylejobs.engine.command",
    "stylize": "stylejobs.engine.stylize",
    "train": "stylejobs.engine.trainer",
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
    if name not in _HOMES:
        raise AttributeError(f"module 'stylejobs.api' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
