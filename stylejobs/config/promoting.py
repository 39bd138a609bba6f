"""The keys of `promote`. The other verbs are in schema.py."""

import re
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from stylejobs.config.places import REGISTERED, REGISTERED_WORDS
from stylejobs.config.sections import Section, refuse


class PromoteConfig(Section):
    """A registered version with a verdict -> the alias that jobs follow."""

    model: str = Field(description=f"Version to promote; of rollback the one to leave: {REGISTERED_WORDS}")
    alias: str = Field("champion", max_length=100, description="Alias that moves")
    rollback: bool = Field(False, description="Move the alias back to where it was before its last move")
    override: bool = Field(False, description="Promote without a verdict; needs a reason, and is recorded")
    reason: str | None = Field(None, max_length=1000, validate_default=True, description="Why, for the record")
    gates: str = Field("conf/evaluate/gates.yaml", description="Gates that the verdict must be of [local path]")
    evaluation_set: str | None = Field(
        None,
        description="Evaluation set of the verdict; none = the newest verdict [first 12 to 64 digits of its sha256]",
    )
    max_age_hours: float = Field(168.0, gt=0, description="Oldest verdict that counts [h]")
    junit: str | None = Field(None, description="JUnit XML of the gates, for CI [local path or s3:// URI]")
    summary: str | None = Field(None, description="Markdown summary, for CI [local path or s3:// URI]")

    @field_validator("model")
    @classmethod
    def _model_is_registered(cls, model: str) -> str:
        if not REGISTERED.fullmatch(model):
            raise refuse(f"wanted {REGISTERED_WORDS} (an alias lives in the registry); got {model!r}")
        return model

    @field_validator("alias")
    @classmethod
    def _alias_is_allowed(cls, alias: str) -> str:
        # MLflow keeps `latest` and `v3` for its own URIs, and refuses them only when the alias is written.
        if not re.fullmatch(r"[A-Za-z0-9_-]+", alias) or re.fullmatch(r"latest|v[0-9]+", alias, re.IGNORECASE):
            raise refuse(f"wanted letters, digits, _ and -, not `latest` or like `v3`; got {alias!r}")
        return alias

    @field_validator("override")
    @classmethod
    def _override_promotes(cls, override: bool, info: ValidationInfo) -> bool:
        if override and info.data.get("rollback"):
            raise refuse("is for promotions; a rollback needs no verdict")
        return override

    @field_validator("reason")
    @classmethod
    def _override_has_a_reason(cls, reason: str | None, info: ValidationInfo) -> str | None:
        if reason is None and info.data.get("override"):
            raise refuse("wanted the reason why no verdict is needed, with override=true; got none")
        return reason

    @field_validator("evaluation_set")
    @classmethod
    def _set_is_a_digest(cls, evaluation_set: str | None) -> str | None:
        if evaluation_set is not None and not re.fullmatch("[0-9a-f]{12,64}", evaluation_set):
            raise refuse(f"wanted 12 to 64 lower-case hexadecimal digits; got {evaluation_set!r}")
        return evaluation_set

    @field_validator("evaluation_set", "junit", "summary")
    @classmethod
    def _verdict_is_read(cls, value: Any, info: ValidationInfo) -> Any:
        without = next((key for key in ("rollback", "override") if info.data.get(key)), None)
        if value is not None and without is not None:
            raise refuse(f"is about a verdict, and {without}=true reads none")
        return value
