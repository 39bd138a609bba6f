"""The keys of the verbs that bring weights of other people's code in and take them out: adopt and export."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from stylejobs.config.places import check_model
from stylejobs.config.sections import NAME_PATTERN, SHA256_PATTERN, Section, refuse

Family = Literal["cyclegan", "cut", "fast", "adain", "stargan"]


class AdoptConfig(Section):
    """A checkpoint made elsewhere -> a registered version, alias `candidate`."""

    checkpoint: str = Field(description="State dict, .pth or .safetensors; nothing in it is run [path or s3:// URI]")
    family: Family = Field(description="Whose code made it; options and sizes are found from the weights")
    name: str = Field(pattern=NAME_PATTERN, max_length=200, description="Registered model that gets the new version")
    sha256: str | None = Field(None, pattern=SHA256_PATTERN, description="Digest the checkpoint must have; none = any")
    encoder: str | None = Field(
        None, validate_default=True, description="The second file of family=adain, its VGG [path or s3:// URI]"
    )
    encoder_sha256: str | None = Field(
        None, pattern=SHA256_PATTERN, description="Digest the encoder's file must have; none = any"
    )
    styles: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        validate_default=True,
        description="What the version carries: images for adain, names of the domains in their order for stargan, "
        "else a name for its one style; none = `name`",
    )
    experiment: str = Field("stylejobs", description="MLflow experiment")
    run_name: str | None = Field(None, description="MLflow run name; none = chosen by the command")

    @field_validator("encoder")
    @classmethod
    def _adain_has_an_encoder(cls, encoder: str | None, info: ValidationInfo) -> str | None:
        family = info.data.get("family")
        if family == "adain" and encoder is None:
            raise refuse(
                "family=adain is two files: give the decoder as checkpoint= and vgg_normalised.pth as encoder="
            )
        if family not in (None, "adain") and encoder is not None:
            raise refuse(f"is read only with family=adain; family is {family!r}")
        return encoder

    @field_validator("encoder_sha256")
    @classmethod
    def _digest_is_of_an_encoder(cls, sha256: str | None, info: ValidationInfo) -> str | None:
        if sha256 is not None and info.data.get("family") not in (None, "adain"):
            raise refuse(f"is read only with family=adain; family is {info.data['family']!r}")
        return sha256

    @field_validator("styles")
    @classmethod
    def _styles_fit(cls, styles: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        family = info.data.get("family")
        if family == "adain" and styles is None:
            raise refuse("family=adain carries the styles of images: give at least one, styles=URI,URI")
        if family == "stargan" and styles is None:
            raise refuse("family=stargan has a style for each domain: name all, in their order, styles=A,B")
        if styles and len(set(styles)) < len(styles):
            raise refuse(f"wanted every style once; got {','.join(styles)}")
        if styles and any(style.startswith("//") for style in styles):
            raise refuse(f"wanted styles that do not begin with //; got {','.join(styles)}")
        if styles and len(styles) > 1 and family in ("cyclegan", "cut", "fast"):
            raise refuse(f"family={family} has one style, in its weights; got {len(styles)}")
        return styles


class ExportConfig(Section):
    """A `resnet` model -> weights that the public code of CycleGAN, or of CUT, loads, as .safetensors."""

    model: str = Field(description="models:/NAME@ALIAS, models:/NAME/VERSION or a package folder [path or s3:// URI]")
    out: str = Field(
        description="Where the weights go; that code loads them with "
        'net.load_state_dict(safetensors.torch.load_file("FILE")) [local path or s3:// URI]',
    )

    _model = field_validator("model")(check_model)

    @field_validator("out")
    @classmethod
    def _out_is_safetensors(cls, out: str) -> str:
        if not out.endswith(".safetensors"):
            raise refuse(f"wanted a name that ends with .safetensors, because no pickle is written; got {out!r}")
        return out
