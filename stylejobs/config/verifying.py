"""The keys of the verbs that look at a stylized dataset: verify and replay. The other verbs are in schema.py."""

from pydantic import Field, ValidationInfo, field_validator

from stylejobs.config.sections import Cluster, Section, refuse


class VerifyConfig(Section):
    """A stylized dataset -> proof that every row of the source is accounted for."""

    dest: str = Field(description="Dataset that stylize made [local path or s3:// URI]")
    sample: int = Field(0, ge=0, le=10**6, description="Rows to make again and compare [count]")
    seed: int = Field(0, ge=0, lt=2**63, description="Which rows sample draws [integer]")
    mend: bool = Field(False, description="Withdraw what is not proven, so that stylize does it again")
    cluster: Cluster = Cluster()

    @field_validator("seed")
    @classmethod
    def _sample_is_drawn(cls, seed: int, info: ValidationInfo) -> int:
        if seed and info.data.get("sample") == 0:
            raise refuse("is read only with sample=N; sample is 0")
        return seed


class ReplayConfig(Section):
    """One row of a stylized dataset -> the same picture again, compared."""

    dest: str = Field(description="Dataset that stylize made [local path or s3:// URI]")
    key: str = Field(description="Key of the row; dead letters have one, too")
    variant: int = Field(0, ge=0, lt=100, description="Which copy of the row [index]")
    out: str | None = Field(None, description="Where the picture goes; none = nowhere [local path or s3:// URI]")
