"""From the keys of a command to how styles are drawn: which styles, for which rows, how often, how strongly."""

from collections.abc import Sequence
from difflib import get_close_matches

import pyarrow as pa

from stylejobs.config.schema import StylizeConfig
from stylejobs.config.style_plan import StylePlan, parse_style_plan
from stylejobs.errors import SourceError, StyleError
from stylejobs.records.lineage import Drawing
from stylejobs.storage import locations

CLASS_COLUMN = "label"
"""The column whose balance is reported where a source has it and no plan names another."""


def read_style_plan(uri: str | None) -> StylePlan | None:
    """The plan of a command; None where it has none.

    Raises:
        ConfigError: the file is not a style plan.
        StyleError: there is no such file.
    """
    if uri is None:
        return None
    try:
        return parse_style_plan(locations.read_bytes(uri).decode(errors="replace"), uri)
    except FileNotFoundError:
        raise StyleError(f"style_plan={uri}: no such file; wanted YAML that gives each class its styles") from None


def choose_styles(config: StylizeConfig, plan: StylePlan | None, styles: Sequence[str]) -> Drawing:
    """How the job draws from the styles that its model was pinned with.

    Raises:
        StyleError: weights that do not fit the styles, or a plan that names others.
    """
    weights = config.style_weights or [1.0] * len(styles)
    if len(weights) != len(styles):
        raise StyleError(
            f"style_weights={','.join(map(str, weights))}: wanted a weight for each of the {len(styles)} styles "
            f"{', '.join(styles)}; got {len(weights)}"
        )
    if not any(weights):
        raise StyleError("style_weights: wanted a weight above 0; all are 0")
    for name, classes in plan.classes.items() if plan else ():
        for style in classes:
            if style not in styles:
                near = get_close_matches(style, styles, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise StyleError(
                    f"style_plan={config.style_plan}: class {name!r} wants {style!r}; the job has "
                    f"{', '.join(styles)}{hint}"
                )
    return Drawing(
        seed=config.seed,
        styles=dict(zip(styles, weights, strict=True)),
        variants=config.variants,
        strength=_strength(config.strength),
        classes=plan.classes if plan else {},
        include_source=config.include_source,
    )


def _strength(value: float | str) -> float | str | tuple[float, float]:
    if isinstance(value, str) and value != "auto":
        low, high = map(float, value.split("-"))
        return low, high
    return value


def find_class_column(config: StylizeConfig, plan: StylePlan | None, carried: pa.Schema) -> str | None:
    """The source's column that holds a row's class; None where there is none.

    Raises:
        SourceError: the plan's column is not one of the source's.
    """
    if plan is None:
        return CLASS_COLUMN if CLASS_COLUMN in carried.names else None
    if plan.column not in carried.names:
        raise SourceError(
            f"style_plan={config.style_plan}: the source has no column {plan.column!r}; it has "
            f"{', '.join(carried.names) or 'none'}"
        )
    return plan.column


def parts_of(config: StylizeConfig, styles: dict[str, str]) -> list[dict]:
    """The parts of every unit's output that are work of their own: with `variants=each` one a style, else one in all.

    Args:
        styles: sha256 of each style's code by name, in order.
    """
    if config.variants != "each":
        return [{}]
    return [{"variant": number, "style": name, "sha256": sha} for number, (name, sha) in enumerate(styles.items())]
