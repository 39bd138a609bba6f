"""What sources, destinations and models look like in a command, as far as that can be said without looking there."""

import re

from pydantic import ValidationInfo
from pydantic.fields import FieldInfo

from stylejobs.config.sections import refuse

REGISTERED = re.compile(r"models:/[^/@:]+(@[A-Za-z0-9_-]+|/[0-9]+)")
REGISTERED_WORDS = "models:/NAME@ALIAS or models:/NAME/VERSION"


_PLACE_UNIT = re.compile(r"\[[^\]]*\b(path|URI)\b[^\]]*\]$")


def is_place(field: FieldInfo) -> bool:
    """Whether a key takes files or folders: the unit that ends its description says so."""
    return bool(_PLACE_UNIT.search(field.description or ""))


def check_dest(dest: str, info: ValidationInfo) -> str:
    """Refuses a dest that is the source."""
    if str(info.data.get("source")).rstrip("/") == dest.rstrip("/"):
        raise refuse(f"wanted a place other than the source; got {dest!r} for both")
    return dest


def check_model(model: str) -> str:
    """Refuses a registered model without a version or an alias."""
    if model.startswith("models:") and not REGISTERED.fullmatch(model):
        raise refuse(f"wanted {REGISTERED_WORDS}; got {model!r}")
    return model
