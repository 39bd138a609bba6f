"""The keys of `stylize`."""

from collections.abc import Mapping
from datetime import datetime, time
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from stylejobs.config.places import REGISTERED_WORDS, check_dest, check_model
from stylejobs.config.sections import (
    Cluster,
    Fraction,
    FractionRange,
    Limits,
    MaxBadOf,
    Precision,
    Prices,
    Reason,
    Section,
    refuse,
)

OF_RETRY = "(that of retry)"
"""Stands for a source or model that a command with `retry=` does not name: the dataset knows its own."""


class StylizeConfig(Section):
    """Image shards x version x styles -> stylized shards."""

    source: str = Field(
        description="Images to stylize: image shards, Parquet, WebDataset, folder, list of URIs (.txt .csv .jsonl) "
        "[local path or s3:// URI]"
    )
    where: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Only rows that match, such as label=cat,split=train; one column twice = either; none = all",
    )
    dest: str = Field(description="Where the stylized dataset goes [local path or s3:// URI]")
    sink: Literal["parquet", "webdataset", "files", "null"] = Field(
        "parquet", description="How pictures are kept; null = not at all, to see what a job costs without writing"
    )
    model: str = Field(description=f"{REGISTERED_WORDS}, a package folder, or builtin:NAME")
    styles: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Names of the model's styles, style images, random:SEED, or mixes such as a:0.7+b:0.3; none = all "
        "that the model carries",
    )
    style_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None, min_length=1, description="How often each of the styles is drawn, in their order; none = alike [weights]"
    )
    style_plan: str | None = Field(
        None, description="YAML file that gives each class its styles; none = all draw alike [local path or s3:// URI]"
    )
    variants: Literal["each"] | Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Stylized images of one source image; each = one in every style [count]"
    )
    include_source: bool = Field(False, description="Put each source image before its stylized ones")
    strength: Literal["auto"] | Fraction | FractionRange = Field(
        1.0,
        description="Blend from source (0) to style (1), or LOW-HIGH to draw it; auto = less for sources that look "
        "like the style [fraction]",
    )
    preserve_colour: bool = Field(False, description="Take the style's light and dark, keep the source's colours")
    deblur: Literal["none", "unsharp", "wiener"] = Field(
        "none", description="Sharpen blurry sources before they are stylized"
    )
    deblur_below: float | None = Field(
        None, gt=0, description="Only sources whose blur_score is lower are sharpened; none = all [dimensionless]"
    )
    deblur_sigma_px: float = Field(1.5, gt=0, le=100, description="Deviation of the Gaussian blur to take off [px]")
    deblur_amount: float = Field(1.0, ge=0, le=10, description="Detail that unsharp adds; 0 = none [fraction]")
    deblur_noise: float = Field(0.01, gt=0, le=10, description="Noise of wiener; more is softer [noise to signal]")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every draw [integer]")
    size: Literal["keep"] | Annotated[int, Field(ge=8, le=16384)] = Field(
        "keep", description="Short side of the result; keep = that of the source [px]"
    )
    format: Literal["jpeg", "png", "webp"] = Field("jpeg", description="Encoding of the result")
    quality: int = Field(92, ge=1, le=100, description="Quality of jpeg and webp [percent]")
    plan: bool | str = Field(
        False, description="true = write and print the plan, then stop; a plan.json = do just that, or end with code 5"
    )
    rate: float | None = Field(
        None, gt=0, description="What a worker stylizes, for the plan; none = measured with a few pictures [images/s]"
    )
    canary: Literal["auto"] | Fraction = Field(
        "auto",
        description="Rows that go first to test the model, at least 32; auto = 0.001 of 10,000 rows or more [fraction]",
    )
    canary_similarity: float = Field(
        0.1, ge=-1, le=1, description="Least mean likeness of edges to the source's in the canary [cosine]"
    )
    retry: str | None = Field(
        None,
        description="Stylized dataset whose dead rows are done again by its own plan; limits, row_seconds, max_bad and "
        "cluster may differ [URI]",
    )
    retry_reasons: tuple[Reason, ...] | None = Field(
        None, min_length=1, description="Only rows that died of these reasons, such as oom,timeout; none = all"
    )
    snapshot: Literal["new"] | None = Field(
        None, description="new = where dest holds another job's output, write to DEST/snapshots/ instead of refusing"
    )
    deadline: str | None = Field(
        None, description="When to have stopped, with exit code 3: local time such as 07:00, or 2030-01-01T07:00 [time]"
    )
    unit_mb: float = Field(64.0, gt=0, description="Source bytes in one unit of work [MB]")
    row_group_mb: float = Field(32.0, gt=0, description="Size at which a row group is closed [MB]")
    max_bad: Fraction = Field(0.005, description="Most bad rows before the job stops with exit code 4 [fraction]")
    micro_batch: int = Field(
        8,
        ge=1,
        le=1024,
        description="Most rows of one size in one forward pass; half as many for each doubling above 2^20 px [count]",
    )
    tile_above_megapixels: float = Field(
        16.0, gt=0, description="Larger images are stylized tile by tile, smaller ones as a whole [10^6 px]"
    )
    tile_px: int = Field(1024, ge=64, le=16384, multiple_of=16, description="Side of a tile [px]")
    tile_overlap_px: int = Field(
        128, ge=0, multiple_of=16, description="Shared by neighbouring tiles and blended; 0 = a hard cut [px]"
    )
    row_seconds: float | None = Field(
        120.0,
        gt=0,
        description="Longest to decode a row, to encode it, and to stylize each 10^6 px of it; none = no limit [s]",
    )
    image_column: str | None = Field(None, description="Column that holds the images; none = found by itself")
    gallery: int = Field(24, ge=0, le=200, description="Pictures in the report [count]")
    precision: Precision = Field("float32", description="Arithmetic of the generator")
    max_bad_of: MaxBadOf = MaxBadOf()
    limits: Limits = Limits()
    cluster: Cluster = Cluster()
    prices: Prices = Prices()
    experiment: str = Field("stylejobs", description="MLflow experiment")
    run_name: str | None = Field(None, description="MLflow run name; none = chosen by the command")

    @model_validator(mode="before")
    @classmethod
    def _retry_knows_the_rest(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("retry"):
            known = {"source": OF_RETRY, "dest": values["retry"], "model": OF_RETRY}
            return {**known, **values}
        return values

    @field_validator("retry_reasons")
    @classmethod
    def _reasons_are_of_a_retry(cls, reasons: Any, info: ValidationInfo) -> Any:
        if reasons is not None and info.data.get("retry") is None:
            raise refuse("is read only with retry=DEST")
        return reasons

    _dest = field_validator("dest")(check_dest)
    _model = field_validator("model")(check_model)

    @field_validator("deadline")
    @classmethod
    def _deadline_is_a_time(cls, deadline: str | None) -> str | None:
        kind = datetime if deadline and "T" in deadline else time
        try:
            kind.fromisoformat(deadline or "00:00")
        except ValueError as error:
            raise refuse(f"wanted a time such as 07:00 or 2030-01-01T07:00; got {deadline!r} ({error})") from None
        return deadline

    @field_validator("tile_overlap_px")
    @classmethod
    def _overlap_fits(cls, tile_overlap_px: int, info: ValidationInfo) -> int:
        if 2 * tile_overlap_px > info.data.get("tile_px", 2 * tile_overlap_px):
            raise refuse(f"wanted at most half of tile_px={info.data['tile_px']}; got {tile_overlap_px}")
        return tile_overlap_px

    @field_validator("where")
    @classmethod
    def _where_is_equality(cls, where: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in where or ():
            if not text.partition("=")[0] or "=" not in text:
                raise refuse(f"wanted COLUMN=VALUE, such as label=cat,split=train; got {text!r}")
        return where and tuple(sorted(where))  # in any order it is the same filter

    @field_validator("sink", mode="before")
    @classmethod
    def _null_is_a_sink(cls, sink: Any) -> Any:
        return "null" if sink is None else sink  # as YAML reads the word

    @field_validator("variants")
    @classmethod
    def _each_is_not_drawn(cls, variants: Any, info: ValidationInfo) -> Any:
        drawn = [name for name in ("style_weights", "style_plan") if info.data.get(name) is not None]
        if variants == "each" and drawn:
            raise refuse(f"each makes every style of every image; {' and '.join(drawn)} would not be read")
        return variants

    @field_validator("strength")
    @classmethod
    def _strength_rises(cls, strength: Any) -> Any:
        if isinstance(strength, str) and strength != "auto":
            low, high = map(float, strength.split("-"))
            if low >= high:
                raise refuse(f"wanted LOW-HIGH with LOW below HIGH; got {strength}")
        return strength

    @field_validator("deblur_below")
    @classmethod
    def _deblur_is_on(cls, deblur_below: float | None, info: ValidationInfo) -> float | None:
        if deblur_below is not None and info.data.get("deblur") == "none":
            raise refuse("is read only with deblur=unsharp or deblur=wiener; deblur is none")
        return deblur_below
