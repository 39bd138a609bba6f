"""The keys of `benchmark`."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from stylejobs.config.places import REGISTERED_WORDS, check_dest, check_model
from stylejobs.config.sections import Cluster, Precision, Prices, Section


class BenchmarkConfig(Section):
    """This cluster -> a receipt: where the time goes, images/s, what a million cost."""

    source: str | None = Field(
        None, description="Images to stylize, some units of them; none = made for it [local path or s3:// URI]"
    )
    model: str = Field("builtin:moments", description=f"{REGISTERED_WORDS}, a package folder, or builtin:NAME")
    styles: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="As of stylize; none = all that the model carries, or of a built-in model one made for it",
    )
    dest: str | None = Field(
        None,
        description="Where it works, in a folder that it deletes, and the receipt stays; none = a temporary folder "
        "[local path or s3:// URI]",
    )
    units: int | None = Field(None, ge=1, le=10**6, description="Units to do; none = 4 for each worker [count]")
    unit_mb: float = Field(4.0, gt=0, description="Bytes in one unit of `source` [MB]")
    side_px: int = Field(512, ge=8, le=4096, description="Short side of pictures that are made, 3 to 4 [px]")
    image_column: str | None = Field(None, description="Column that holds the images; none = found by itself")
    size: Literal["keep"] | Annotated[int, Field(ge=8, le=16384)] = Field(
        "keep", description="Short side of the result; keep = that of the source [px]"
    )
    format: Literal["jpeg", "png", "webp"] = Field("jpeg", description="Encoding of the result")
    quality: int = Field(92, ge=1, le=100, description="Quality of jpeg and webp [percent]")
    precision: Precision = Field("float32", description="Arithmetic of the generator")
    micro_batch: int = Field(
        8,
        ge=1,
        le=1024,
        description="Most rows of one size in one forward pass; half as many for each doubling above 2^20 px [count]",
    )
    cluster: Cluster = Cluster()
    prices: Prices = Prices()

    _model = field_validator("model")(check_model)

    @field_validator("dest")
    @classmethod
    def _dest_is_not_the_source(cls, dest: str | None, info: ValidationInfo) -> str | None:
        return dest if dest is None else check_dest(dest, info)
