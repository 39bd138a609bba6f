"""What every section of a configuration shares: strictness, and how words become values.

Here live the base class and the sections that several commands carry. Not here: the commands themselves (schema.py),
files and arguments (files.py, overrides.py). Convention: a description ends with its unit in brackets, `[px]`, `[MB]`
(a megabyte is 2**20 bytes), `[fraction]`, `[count]`.
"""

import re
from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
RANGE_PATTERN = r"^(0(\.[0-9]+)?|1(\.0+)?)-(0(\.[0-9]+)?|1(\.0+)?)$"
ADDRESS_PATTERN = r"^https?://[^/@\s]+/?$"
PATTERN_WORDS = {
    ADDRESS_PATTERN: "http://HOST:PORT or https://HOST:PORT, without a password",
    RANGE_PATTERN: "LOW-HIGH, two numbers from 0 to 1 such as 0.3-0.9",
    NAME_PATTERN: "letters, digits and . _ -, first a letter or digit",
    SHA256_PATTERN: "64 lower-case hexadecimal digits",
}
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionRange = Annotated[str, Field(pattern=RANGE_PATTERN)]
Precision = Literal["float32", "bf16"]
# A secret may hold slashes; a bucket holds no colon, unless it is an access point's ARN.
_CREDENTIALS = re.compile(r"://(?!arn:)[^/@\s]*:\S*@")


def refuse(reason: str) -> PydanticCustomError:
    """Build the exception for a value that cannot stand; `reason` is the whole text a person sees."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


class Section(BaseModel):
    """A frozen group of keys; an unknown key is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _from_words(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        return value_from_words(value, cls.model_fields[info.field_name].annotation)

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """Keys of a command that cannot stand beside its other keys: dotted key -> reason.

        Args:
            values: dotted key -> value, as written, checked or not.
        """
        return {}


def value_from_words(value: Any, annotation: Any) -> Any:
    """Turn what YAML or a command line gave into what a field of type `annotation` takes.

    `none` and `null` unset an optional key, `a,b` is a list, only `true` and `false` are booleans (so `seed: yes`
    is not 1). Numbers stay as they came: pydantic reads them, `1e-3` as text included.

    Raises:
        PydanticCustomError: empty text or list item, a boolean where none belongs, or credentials in a URI.

    >>> value_from_words("relu1_2,relu2_2", tuple[str, ...])
    ('relu1_2', 'relu2_2')
    >>> value_from_words("none", int | None) is None
    True
    """
    types = (annotation, *get_args(annotation))
    if value is None and NoneType in types:
        return None
    if isinstance(value, str):
        if NoneType in types and value.lower() in ("none", "null"):
            return None
        if bool in types:
            value = {"true": True, "false": False}.get(value.lower(), value)
        elif any(get_origin(kind) is tuple for kind in types):
            value = tuple(item.strip() for item in value.split(","))
    for text in value if isinstance(value, list | tuple) else (value,):
        _check_text(text)
    is_text_allowed = str in types and isinstance(value, str)
    if isinstance(value, bool) != (bool in types) and not is_text_allowed:
        wanted = "true or false" if bool in types else "a value, not true or false (YAML reads yes, no, on, off so)"
        raise refuse(f"wanted {wanted}; got {value!r}")
    return value


def _check_text(text: Any) -> None:
    if text == "":
        raise refuse("is empty; leave the key out for its default, or write `none` if it is optional")
    if isinstance(text, str) and _CREDENTIALS.search(text):
        raise refuse("holds credentials; give them in the standard AWS environment or profile, never in a config")


def list_fields(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """All keys of a command or section that take a value, by dotted name, in the order of the schema."""
    fields: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        if is_section(field.annotation):
            fields |= list_fields(field.annotation, f"{prefix}{name}.")
        else:
            fields[f"{prefix}{name}"] = field
    return fields


def flatten(config: BaseModel) -> dict[str, Any]:
    """All values of a command by dotted name."""
    values: dict[str, Any] = {}
    for key in list_fields(type(config)):
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        values[key] = value
    return values


def is_section(annotation: Any) -> bool:
    """Whether a field of this type is a group of keys."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


class Limits(Section):
    """What a source image may be; outside of it a row becomes a dead letter and is never decoded."""

    max_mb: float = Field(64.0, gt=0, description="Largest encoded image [MB]")
    max_megapixels: float = Field(100.0, gt=0, description="Most pixels, read from the header [10^6 px]")
    max_aspect: float = Field(50.0, ge=1, description="Largest long side / short side [ratio]")
    min_side_px: int = Field(8, ge=1, description="Smallest short side [px]")


Reason = Literal[
    "truncated", "not_an_image", "bomb", "too_small", "unsupported", "decode", "oom", "timeout", "encode", "non_finite"
]
"""Why a row is dead: see `stylejobs.errors.RowError`."""


class MaxBadOf(Section):
    """Most bad rows for one reason each; none = no budget of its own, `max_bad` counts them all."""

    truncated: Fraction | None = Field(None, description="Files that end too soon [fraction]")
    not_an_image: Fraction | None = Field(None, description="Bytes that are no image, or no bytes [fraction]")
    bomb: Fraction | None = Field(None, description="Images above limits.max_mb or max_megapixels [fraction]")
    too_small: Fraction | None = Field(None, description="Images below limits.min_side_px, or too thin [fraction]")
    unsupported: Fraction | None = Field(None, description="Formats and modes that are not read [fraction]")
    decode: Fraction | None = Field(None, description="Images that are damaged inside [fraction]")
    oom: Fraction | None = Field(None, description="Images that no memory holds [fraction]")
    timeout: Fraction | None = Field(None, description="Images that take longer than they may [fraction]")
    encode: Fraction | None = Field(None, description="Results that the format cannot hold [fraction]")
    non_finite: Fraction | None = Field(None, description="Results that hold NaN or infinity [fraction]")

    def given(self) -> dict[str, float]:
        """The budgets that somebody set, by reason."""
        return self.model_dump(exclude_none=True)


class Session(Section):
    """How Ray starts when it starts in this process; a cluster at RAY_ADDRESS keeps its own sizes."""

    num_cpus: int | None = Field(
        None,
        ge=1,
        description="Logical CPUs of a Ray started in this process; none = the machine's, or what train needs [CPUs]",
    )
    object_store_mb: int | None = Field(
        None, ge=80, description="Object store of a Ray started in this process; none = Ray's own choice [MB]"
    )


class Actors(Session):
    """`Session`, and the actors that process units."""

    actors: int | None = Field(
        None, ge=1, description="Actors that process units; none = chosen from the cluster's GPUs or CPUs [count]"
    )
    actor_cpus: float = Field(1.0, ge=0, description="Logical CPUs that one actor holds [CPUs]")


class Cluster(Actors):
    """`Actors` that run a network."""

    actor_gpus: float = Field(0.0, ge=0, description="GPUs that one actor holds; parts such as 0.5 share one [GPUs]")
    threads: int = Field(1, ge=1, le=1024, description="Torch threads in one actor [count]")


class Prices(Section):
    """What an hour costs, in any currency, for the money of `plan=true`."""

    gpu_hour: float | None = Field(None, ge=0, description="Price of a GPU; none = not given [money/h]")
    cpu_hour: float | None = Field(None, ge=0, description="Price of a logical CPU; none = not given [money/h]")
