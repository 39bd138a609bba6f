"""What an evaluation needs, read before anything starts: models pinned, images planned, gates read."""

import math
import os
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stylejobs.config.evaluating import EvaluateConfig
from stylejobs.config.gating import load_gates
from stylejobs.core.gates import Rules
from stylejobs.core.measures import ROWS
from stylejobs.engine.canary import build_items
from stylejobs.engine.jobs import limits_of
from stylejobs.engine.models import BUILTIN, REGISTERED, PinnedModel, find_package, pin_model
from stylejobs.engine.panel_images import SquareSettings
from stylejobs.engine.panel_judges import pin_perceptual
from stylejobs.engine.panel_worker import (
    BASELINE,
    CANDIDATE,
    IDENTITY,
    RECOLOURINGS,
    SPOILT,
    STYLE,
    PanelModel,
    PanelSettings,
)
from stylejobs.engine.stream import WorkItem
from stylejobs.engine.training_sets import TrainingSet, plan_content, plan_style, sample_images
from stylejobs.engine.writer import schema_to_text
from stylejobs.errors import SourceError, UsageError
from stylejobs.storage import locations
from stylejobs.storage.classifiers import load_classifier
from stylejobs.storage.packages import copy_package, read_package

CONTENT = "content"
SHUFFLED, COPY = "shuffled", "copy"
"""Rows that are put together from descriptions of others."""

_SPARE = 1.1  # images asked for, to those that are judged: some cannot be decoded
_PICTURES = 16


@dataclass(frozen=True)
class PanelPlan:
    """An evaluation that can start.

    Attributes:
        folder: of this evaluation, below `storage`.
        models: row -> pinned model, `candidate` first.
        rules, gates_sha256: None where nothing is gated.
        items: of contents and styles; their fingerprints are ROLE-NUMBER.
        rows: sanity rows of the table.
        classes: of the classifier; None without one.
        where: contents and styles as people know them, for the verdict.
    """

    folder: str
    models: dict[str, PinnedModel]
    rules: Rules | None
    gates_sha256: str | None
    items: list[WorkItem]
    rows: tuple[str, ...]
    settings: PanelSettings
    where: dict
    classes: tuple[str, ...] | None = None


def plan_panel(config: EvaluateConfig) -> PanelPlan:
    """Resolves models, gates and images, so that what is missing ends the command now.

    Raises:
        ConfigError: the gates cannot be meant.
        ModelError: the model, the baseline, the classifier or weights of a measure do not exist or are damaged.
        SourceError, StyleError: too few contents, or no image of the style.
        RegistryError, StorageError: something cannot be reached.
    """
    rules, gates_sha256 = (None, None) if config.gates == "none" else load_gates(config.gates)
    content = plan_content(config.data, config.image_column)
    check_count(config, content.source.num_rows)
    folder = locations.absolute(locations.join(config.storage, uuid.uuid4().hex[:12]))
    with tempfile.TemporaryDirectory(prefix="stylejobs-evaluate-") as scratch:
        style, pictures = _plan_style(config, scratch)
        models = _pin_models(config, pictures, folder, scratch)
        placed = {row: _place(row, model, folder) for row, model in models.items()}
        classifier, classes = _pin_classifier(config, folder, scratch)
    rows = ROWS if config.calibrate else (IDENTITY, *(row for row in (rules.rows if rules else ()) if row != IDENTITY))
    settings = PanelSettings(
        models=placed,
        sanity=_made_rows(rows),
        classifier=classifier,
        pictures=pictures,
        num_styles=style.source.num_rows,
        squares=SquareSettings(config.size_px, config.load_px or config.size_px, limits_of(config.limits)),
        carried={role: schema_to_text(one.source.carried_schema) for role, one in ((CONTENT, content), (STYLE, style))},
        perceptual=pin_perceptual(config.perceptual),
        strength=config.strength,
        precision=config.precision,
        seed=config.seed,
        threads=config.cluster.threads,
        use_gpu=config.cluster.actor_gpus > 0,
    )
    items = _items(CONTENT, content, math.ceil(config.images * _SPARE)) + _items(STYLE, style, config.style_images)
    where = {"data": content.source.uri, "style": style.uri, "size_px": config.size_px, "seed": config.seed}
    return PanelPlan(folder, models, rules, gates_sha256, items, rows, settings, where, classes)


def check_count(config: EvaluateConfig, count: int | None) -> None:
    """Raises a SourceError where there are fewer images than the intervals need; None is not known yet."""
    if count is not None and count < config.images:
        raise SourceError(
            f"data={config.data}: wanted images={config.images} that can be decoded, found {count}; give more, or take "
            "a lower images=, whose intervals are wider"
        )


def _plan_style(config: EvaluateConfig, scratch: str) -> tuple[TrainingSet, tuple[bytes, ...]]:
    uri = config.style or _style_of_training(config, scratch)
    style = plan_style(uri, config.image_column, labelled=False)
    return style, tuple(sample_images(style, limits_of(config.limits), _PICTURES, evenly=True).values())


def _style_of_training(config: EvaluateConfig, scratch: str) -> str:
    _, _, package_uri = find_package(config.model, os.path.join(scratch, "asked"))
    uri = read_package(package_uri).training.get("style")
    if not uri:
        raise UsageError(f"style=: model={config.model} does not say what it was trained on; name real style images")
    return uri


def _pin_models(config: EvaluateConfig, pictures: Sequence[bytes], folder: str, scratch: str) -> dict[str, PinnedModel]:
    models = {CANDIDATE: _pin(config.model, config.styles, pictures, folder, os.path.join(scratch, CANDIDATE))}
    uri = _champion_of(models[CANDIDATE]) if config.baseline == "auto" else config.baseline
    if uri not in (None, "none"):
        baseline = _pin(uri, config.styles, pictures, folder, os.path.join(scratch, BASELINE))
        # Nobody is better than itself: the champion is judged as if it were the first.
        if (baseline.sha256, baseline.styles) != (models[CANDIDATE].sha256, models[CANDIDATE].styles):
            models[BASELINE] = baseline
    return models


def _champion_of(model: PinnedModel) -> str | None:
    """The version that the alias champion of a registered model means now; None where there is none."""
    if not model.uri.startswith(REGISTERED):
        return None
    from stylejobs.tracking.aliases import read_alias

    version = read_alias(model.name, "champion")
    return version and f"{REGISTERED}{model.name}/{version}"


def _pin(uri: str, styles: Sequence[str] | None, pictures: Sequence[bytes], folder: str, scratch: str) -> PinnedModel:
    """A model with styles; one that carries none takes some of the pictures."""
    if styles is None and uri.startswith(BUILTIN):
        styles = []
        for number, data in enumerate(pictures):
            styles.append(os.path.join(scratch, f"style-{number}.img"))
            locations.write_atomic(styles[-1], data)
    return pin_model(uri, styles, folder, scratch)


def _place(row: str, model: PinnedModel, folder: str) -> PanelModel:
    """Copies a package to where workers can read it."""
    uri = locations.join(folder, "models", row)
    copy_package(model.package_uri, uri)
    return PanelModel(uri, model.package_sha256, tuple(model.styles))


def _pin_classifier(
    config: EvaluateConfig, folder: str, scratch: str
) -> tuple[PanelModel | None, tuple[str, ...] | None]:
    """The classifier where workers can read it, and its classes."""
    if config.classifier is None:
        return None, None
    _, _, package_uri = find_package(config.classifier, os.path.join(scratch, "classifier"))
    loaded = load_classifier(package_uri)
    place = locations.join(folder, "models", "classifier")
    copy_package(package_uri, place)
    return PanelModel(place, loaded.sha256), loaded.classes


def _made_rows(rows: Sequence[str]) -> tuple[str, ...]:
    """Rows that workers make; what `shuffled` shuffles is a recolouring."""
    wanted = {*rows, *(["reinhard"] if SHUFFLED in rows else [])}
    return tuple(row for row in (*RECOLOURINGS, *SPOILT) if row in wanted)


def _items(role: str, planned: TrainingSet, num_rows: int) -> list[WorkItem]:
    items = build_items(planned.source.units, min(num_rows, planned.source.num_rows or num_rows))
    return [
        replace(
            item,
            fingerprint=f"{role}-{number}",
            part={"role": role, "rows": item.part["rows"], "shown": item.part["pairs"] if role == CONTENT else 0},
        )
        for number, item in enumerate(items)
    ]
