"""The keys of `evaluate`."""

from pydantic import Field, ValidationInfo, field_validator

from stylejobs.config.downstream import Receipt
from stylejobs.config.perceptual import Perceptual
from stylejobs.config.places import REGISTERED_WORDS, check_model
from stylejobs.config.sections import Cluster, Fraction, Limits, Precision, Section, refuse

FEWEST_PANEL_IMAGES = 50
"""Of fewer images no interval says anything that a gate could use."""


class EvaluateConfig(Section):
    """Versions x evaluation set -> measures with intervals, gate verdict, montage."""

    model: str = Field(description=f"What is judged: {REGISTERED_WORDS}, a package folder, or builtin:NAME")
    data: str = Field(description="Contents that training did not see, like source of stylize [path or s3:// URI]")
    style: str | None = Field(
        None, description="Real images of the style; none = what the model was trained on [local path or s3:// URI]"
    )
    styles: tuple[str, ...] | None = Field(
        None, min_length=1, description="Styles of the model, as in stylize; none = all it carries, or some of `style`"
    )
    baseline: str = Field(
        "auto",
        description="Model on the same images that must be beaten; auto = the alias champion of the same model, if it "
        "has one; none = no baseline",
    )
    gates: str = Field("conf/evaluate/gates.yaml", description="What must hold; none = only measured [path or URI]")
    calibrate: bool = Field(
        False,
        description="Measure the sanity rows too (identity, recolourings, blur, ..., collapse), keep their floors",
    )
    classifier: str | None = Field(
        None, description=f"Frozen classifier whose answers must stay: {REGISTERED_WORDS}, or a package folder"
    )
    downstream: bool = Field(
        False, description="Also train a small classifier with and without stylized copies, see receipt; minutes"
    )
    images: int = Field(250, ge=FEWEST_PANEL_IMAGES, le=20000, description="Contents that are judged [count]")
    style_images: int = Field(250, ge=8, le=20000, description="Most images of the style set [count]")
    size_px: int = Field(128, ge=32, le=1024, multiple_of=4, description="Side of the squares that are judged [px]")
    load_px: int | None = Field(
        None, ge=32, le=8192, description="Short side that images are scaled to before; none = size_px [px]"
    )
    strength: Fraction = Field(1.0, description="Blend from source (0) to style (1) [fraction]")
    precision: Precision = Field("float32", description="Arithmetic of the networks")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every draw [integer]")
    junit: str | None = Field(None, description="JUnit XML of the gates, for CI [local path or s3:// URI]")
    summary: str | None = Field(None, description="Markdown summary, for CI [local path or s3:// URI]")
    storage: str = Field(
        "./.stylejobs/evaluations",
        description="Where verdict, montage and pinned models go; shared by all nodes [local path or s3:// URI]",
    )
    image_column: str | None = Field(None, description="Column that holds the images; none = found by itself")
    perceptual: Perceptual = Perceptual()
    receipt: Receipt = Receipt()
    limits: Limits = Limits()
    cluster: Cluster = Cluster()
    experiment: str = Field("stylejobs", description="MLflow experiment")
    run_name: str | None = Field(None, description="MLflow run name; none = chosen by the command")

    _model = field_validator("model", "baseline")(check_model)

    @field_validator("load_px")
    @classmethod
    def _squares_fit(cls, load_px: int | None, info: ValidationInfo) -> int | None:
        size_px = info.data.get("size_px")
        if load_px is not None and size_px is not None and load_px < size_px:
            raise refuse(f"wanted at least size_px, {size_px}; got {load_px}")
        return load_px
