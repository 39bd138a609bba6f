"""The keys of every command: type, default, bound, description. Only knowledge that needs no file and no cluster.

A key exists here when its feature exists: a key that nothing reads would be ignored in silence. Adding one means one
field here and one line in the frozen list of tests/config.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from stylejobs.config.adopting import AdoptConfig, ExportConfig
from stylejobs.config.benchmarking import BenchmarkConfig
from stylejobs.config.evaluating import EvaluateConfig
from stylejobs.config.methods import find_unread
from stylejobs.config.places import check_dest
from stylejobs.config.promoting import PromoteConfig
from stylejobs.config.sections import (
    NAME_PATTERN,
    Actors,
    Fraction,
    Limits,
    MaxBadOf,
    Precision,
    Section,
    Session,
    flatten,
    refuse,
)
from stylejobs.config.stylizing import StylizeConfig
from stylejobs.config.submitting import SubmitConfig
from stylejobs.config.training import (
    Augment,
    Backbone,
    Checkpointing,
    Critic,
    Data,
    Evaluation,
    Generator,
    Loss,
    Method,
    Optim,
    Recipe,
    Repair,
)
from stylejobs.config.verifying import ReplayConfig, VerifyConfig


class IngestConfig(Section):
    """Images anywhere -> image shards."""

    source: str = Field(description="Images to read: folder, Parquet, WebDataset [local path or s3:// URI]")
    dest: str = Field(description="Where the image shards go [local path or s3:// URI]")
    max_bad: Fraction = Field(0.005, description="Most bad rows before the job stops with exit code 4 [fraction]")
    shard_mb: float = Field(256.0, gt=0, description="Source bytes of one shard, which is one unit of work [MB]")
    row_group_mb: float = Field(32.0, gt=0, description="Size at which a row group is closed [MB]")
    max_side: int | None = Field(None, ge=8, description="Longer sides are shrunk to this; none = keep [px]")
    labels: Literal["folder", "csv", "none"] = Field("none", description="Where labels come from")
    labels_csv: str | None = Field(
        None,
        validate_default=True,
        description="Labels of labels=csv; none = SOURCE/labels.csv [local path or s3:// URI]",
    )
    image_column: str | None = Field(None, description="Column that holds the images; none = found by itself")
    max_bad_of: MaxBadOf = MaxBadOf()
    limits: Limits = Limits()
    cluster: Actors = Actors()

    _dest = field_validator("dest")(check_dest)

    @field_validator("labels_csv")
    @classmethod
    def _csv_is_used(cls, labels_csv: str | None, info: ValidationInfo) -> str | None:
        if labels_csv is not None and info.data.get("labels") in ("folder", "none"):
            raise refuse(f"is read only with labels=csv; labels is {info.data['labels']!r}")
        return labels_csv


class TrainConfig(Section):
    """Images x style, or their labels -> a registered version, alias `candidate`."""

    method: Method = Field(description="Training method")
    content: str = Field(
        description="Images to train on: image shards, Parquet, folder, WebDataset [path or s3:// URI]"
    )
    style: str | None = Field(
        None,
        description="Style: one image, or a set of them like content; none = of method=classifier [path or s3:// URI]",
    )
    name: str = Field(pattern=NAME_PATTERN, max_length=200, description="Registered model that gets the new version")
    steps: int = Field(40000, ge=1, description="Optimizer steps [count]")
    workers: int = Field(2, ge=1, le=4096, description="Training processes (DDP ranks) [count]")
    min_workers: int | None = Field(
        None, ge=1, le=4096, description="As few will do when nodes are lost or late; none = `workers` [count]"
    )
    size_px: int = Field(256, ge=32, le=4096, multiple_of=4, description="Side of the training crops [px]")
    load_px: int | None = Field(
        None, ge=32, le=8192, description="Short side that images are scaled to before the crop; none = not scaled [px]"
    )
    batch: int = Field(4, ge=1, le=4096, description="Images in a batch of one worker [count]")
    precision: Precision = Field("float32", description="Arithmetic of the networks")
    compile: bool = Field(False, description="Compile the networks first (torch.compile): slow start, faster steps")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every draw [integer]")
    threads: int = Field(1, ge=1, le=1024, description="Torch threads in one worker [count]")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights; 0 = the last weights [fraction]")
    style_size_px: int = Field(256, ge=32, le=4096, description="Short side of the style image in training [px]")
    sample_every: int = Field(500, ge=1, description="Steps between sample pictures [count]")
    log_every: int = Field(20, ge=1, description="Steps between logged losses [count]")
    use_gpu: bool = Field(False, description="One GPU for each worker")
    worker_cpus: float = Field(1.0, gt=0, description="Logical CPUs that one worker holds [CPUs]")
    storage: str = Field(
        "./.stylejobs/runs",
        description="Where checkpoints and the package go; shared by all nodes [local path or s3:// URI]",
    )
    resume: str | None = Field(None, description="Run to go on with: its folder in `storage`, its id, or latest")
    allow: tuple[str, ...] | None = Field(None, description="Keys that may differ from the run that is gone on with")
    max_failures: int = Field(
        3, ge=0, le=1000, description="Lost workers or nodes after which the training goes on by itself [count]"
    )
    hang_seconds: float = Field(1800.0, ge=1, description="Longest step before its worker is taken for stuck [s]")
    image_column: str | None = Field(None, description="Column that holds the images; none = found by itself")
    generator: Generator = Generator()
    critic: Critic = Critic()
    backbone: Backbone = Backbone()
    loss: Loss = Loss()
    optim: Optim = Optim()
    recipe: Recipe = Recipe()
    repair: Repair = Repair()
    augment: Augment = Augment()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpointing = Checkpointing()
    data: Data = Data()
    limits: Limits = Limits()
    cluster: Session = Session()
    experiment: str = Field("stylejobs", description="MLflow experiment")
    run_name: str | None = Field(None, description="MLflow run name; none = chosen by the command")

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> dict[str, str]:
        return find_unread(values)

    @model_validator(mode="after")
    def _keys_are_read(self) -> "TrainConfig":
        faults = self.find_conflicts(flatten(self))
        if faults:
            raise ValidationError.from_exception_data(
                "TrainConfig",
                [{"type": refuse(text), "loc": tuple(key.split(".")), "input": None} for key, text in faults.items()],
            )
        return self


CONFIGS: dict[str, type[Section]] = {
    "ingest": IngestConfig,
    "train": TrainConfig,
    "adopt": AdoptConfig,
    "evaluate": EvaluateConfig,
    "promote": PromoteConfig,
    "stylize": StylizeConfig,
    "verify": VerifyConfig,
    "replay": ReplayConfig,
    "export": ExportConfig,
    "benchmark": BenchmarkConfig,
    "submit": SubmitConfig,
}
