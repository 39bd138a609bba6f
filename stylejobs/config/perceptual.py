"""The keys of measures that need trained weights, a section of `evaluate`; weights are files, and never downloaded."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from stylejobs.config.sections import Section, refuse

_FILE = "none = not measured [path or URI]"


class Perceptual(Section):
    """LPIPS and FID, each where its weights are given; with both, ArtFID."""

    trunk: Literal["alexnet", "vgg16"] = Field("alexnet", description="Network of LPIPS")
    trunk_weights: str | None = Field(None, description=f"Its ImageNet weights, torchvision's names; {_FILE}")
    lpips_weights: str | None = Field(
        None, validate_default=True, description=f"Linear heads of LPIPS 0.1 for this trunk; {_FILE}"
    )
    inception_weights: str | None = Field(
        None, description=f"FID's Inception v3 (of 2015-12-05), torchvision's names; {_FILE}"
    )

    @field_validator("lpips_weights")
    @classmethod
    def _both_or_none(cls, heads: str | None, info: ValidationInfo) -> str | None:
        trunk_weights = info.data.get("trunk_weights")
        if (heads is None) != (trunk_weights is None):
            missing = "lpips_weights" if heads is None else "trunk_weights"
            raise refuse(f"LPIPS wants both perceptual.trunk_weights and perceptual.lpips_weights; got no {missing}")
        return heads
