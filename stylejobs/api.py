"""The public face of stylejobs: what pipelines, notebooks and other programs may use.

Names are loaded when they are first used, so that `--help` and a wrong config need neither Ray nor torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylejobs.config.schema import (
        AdoptConfig,
        BenchmarkConfig,
        EvaluateConfig,
        ExportConfig,
        IngestConfig,
        PromoteConfig,
        ReplayConfig,
        StylizeConfig,
        TrainConfig,
        VerifyConfig,
    )
    from stylejobs.config.submission import Submission, load_submission
    from stylejobs.engine.adopt import adopt
    from stylejobs.engine.benchmark import benchmark, benchmark_place, plan_benchmark
    from stylejobs.engine.command import run_command
    from stylejobs.engine.evaluate import evaluate
    from stylejobs.engine.export import export
    from stylejobs.engine.ingest import ingest, plan_ingest
    from stylejobs.engine.panel_plan import plan_panel
    from stylejobs.engine.plans import describe_plan
    from stylejobs.engine.promote import promote
    from stylejobs.engine.replay import replay
    from stylejobs.engine.results import JobResult
    from stylejobs.engine.retry import plan_retry
    from stylejobs.engine.stylize import plan_stylize, stylize
    from stylejobs.engine.submit import submit
    from stylejobs.engine.trainer import plan_training, register, train
    from stylejobs.engine.verify import verify

_HOMES = {
    "stylejobs.config.schema": (
        "AdoptConfig",
        "BenchmarkConfig",
        "EvaluateConfig",
        "ExportConfig",
        "IngestConfig",
        "PromoteConfig",
        "ReplayConfig",
        "StylizeConfig",
        "TrainConfig",
        "VerifyConfig",
    ),
    "stylejobs.config.submission": ("Submission", "load_submission"),
    "stylejobs.engine.adopt": ("adopt",),
    "stylejobs.engine.benchmark": ("benchmark", "benchmark_place", "plan_benchmark"),
    "stylejobs.engine.command": ("run_command",),
    "stylejobs.engine.evaluate": ("evaluate",),
    "stylejobs.engine.export": ("export",),
    "stylejobs.engine.ingest": ("ingest", "plan_ingest"),
    "stylejobs.engine.panel_plan": ("plan_panel",),
    "stylejobs.engine.plans": ("describe_plan",),
    "stylejobs.engine.promote": ("promote",),
    "stylejobs.engine.replay": ("replay",),
    "stylejobs.engine.results": ("JobResult",),
    "stylejobs.engine.retry": ("plan_retry",),
    "stylejobs.engine.stylize": ("plan_stylize", "stylize"),
    "stylejobs.engine.submit": ("submit",),
    "stylejobs.engine.trainer": ("plan_training", "register", "train"),
    "stylejobs.engine.verify": ("verify",),
}

__all__ = [
    "AdoptConfig",
    "BenchmarkConfig",
    "EvaluateConfig",
    "ExportConfig",
    "IngestConfig",
    "JobResult",
    "PromoteConfig",
    "ReplayConfig",
    "StylizeConfig",
    "Submission",
    "TrainConfig",
    "VerifyConfig",
    "adopt",
    "benchmark",
    "benchmark_place",
    "describe_plan",
    "evaluate",
    "export",
    "ingest",
    "load_submission",
    "plan_benchmark",
    "plan_ingest",
    "plan_panel",
    "plan_retry",
    "plan_stylize",
    "plan_training",
    "promote",
    "register",
    "replay",
    "run_command",
    "stylize",
    "submit",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'stylejobs.api' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
