"""Which styles the rows of a class get: a YAML file of its own, since classes are named by data.

column: label            # the source's column that holds the class; the default
classes:
  dress: {monet: 2, hokusai: 1}
  hat: {monet: 1}
"""

from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from stylejobs.errors import ConfigError

_Weights = Annotated[dict[StrictStr, Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1)]


class StylePlan(BaseModel):
    """Weights of styles by class; rows of a class that is not named draw from all styles alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: StrictStr = "label"
    classes: Annotated[dict[StrictStr, _Weights], Field(min_length=1)]


def parse_style_plan(text: str, place: str) -> StylePlan:
    """A style plan from its text; `place` is for messages.

    Raises:
        ConfigError: it is not one; every problem is named.

    >>> parse_style_plan("classes: {dress: {monet: 2}}", "plan.yaml").classes
    {'dress': {'monet': 2.0}}
    """
    try:
        held = yaml.safe_load(text)
        return StylePlan.model_validate(held)
    except yaml.YAMLError as error:
        raise ConfigError([f"style_plan={place}: not valid YAML: {error}"]) from error
    except ValidationError as error:
        hint = "; put names such as yes, no and 12 in quotes"
        raise ConfigError(
            [
                f"style_plan={place}: {'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}{hint}"
                for problem in error.errors()
            ]
        ) from error
