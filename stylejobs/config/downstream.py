"""The keys of the downstream receipt, a section of `evaluate`; `downstream=true` asks for one."""

from pydantic import Field, ValidationInfo, field_validator

from stylejobs.config.sections import FractionRange, Section, refuse


class Receipt(Section):
    """The downstream receipt: a small classifier, trained with and without stylized copies of its images."""

    train: str | None = Field(
        None, description="Labelled images to train on, like content of train; none = `data` [local path or s3:// URI]"
    )
    test: str | None = Field(
        None,
        description="Labelled images to be asked about; none = a fifth of `receipt.train` [local path or s3:// URI]",
    )
    size_px: int = Field(64, ge=32, le=512, multiple_of=4, description="Side of the squares that are classified [px]")
    load_px: int = Field(128, ge=32, le=2048, description="Side of the squares that are stylized, then scaled [px]")
    width: int = Field(16, ge=4, le=128, multiple_of=4, description="Channels of the classifier's first layer [count]")
    steps: int = Field(1200, ge=1, description="Optimizer steps of each training [count]")
    batch: int = Field(32, ge=1, le=4096, description="Images in a step [count]")
    seeds: int = Field(3, ge=2, le=50, description="Trainings of each arm [count]")
    copies: int = Field(2, ge=1, le=16, description="Stylized copies of each training image [count]")
    strength: FractionRange = Field("0.3-1", description="Blend from source (0) to style (1), drawn evenly [fraction]")

    @field_validator("load_px")
    @classmethod
    def _squares_fit(cls, load_px: int, info: ValidationInfo) -> int:
        size_px = info.data.get("size_px")
        if size_px is not None and load_px < size_px:
            raise refuse(f"wanted at least size_px, {size_px}; got {load_px}")
        return load_px

    @field_validator("strength")
    @classmethod
    def _strength_rises(cls, strength: str) -> str:
        low, high = map(float, strength.split("-"))
        if low >= high:
            raise refuse(f"wanted LOW-HIGH with LOW below HIGH; got {strength}")
        return strength
