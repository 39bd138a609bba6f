"""What a training needs, read before anything starts: its data, its style, its method built once, its run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stylejobs.config.methods import GENERATORS, OPTION_OF_KEY
from stylejobs.config.schema import TrainConfig
from stylejobs.config.sections import flatten
from stylejobs.engine.jobs import limits_of
from stylejobs.engine.set_names import unique_names
from stylejobs.engine.train_run import RunRecord, begin, digest_of_set, go_on
from stylejobs.engine.training_sets import TrainingSet, plan_content, plan_style, sample_images
from stylejobs.errors import ModelError, SourceError, StyleError, UsageError
from stylejobs.storage import locations

if TYPE_CHECKING:
    from stylejobs.core.backbone import Backbone
    from stylejobs.engine.datasets import CropSettings
    from stylejobs.engine.train_settings import EvaluationSettings, TrainSettings

_NUM_CONTENT_IMAGES = 128
_NUM_STYLE_IMAGES = 24
_NUM_FAST_STYLE_IMAGES = 64
_LEARN_DOMAINS = ("cyclegan", "cut", "fastcut", "stargan", "content_gan", "exemplar")
"""Methods that would learn a single image by heart, where the others look at its style."""


@dataclass(frozen=True)
class TrainingPlan:
    """A training that can start: its data is there, its style can be read, its method has been built once.

    Attributes:
        sets: those that the method reads batches of, by role.
    """

    run: RunRecord
    sets: dict[str, TrainingSet]
    settings: "TrainSettings"


def plan_training(config: TrainConfig) -> TrainingPlan:
    """Reads everything small that the training will need, so that what is missing ends the command now.

    Raises:
        SourceError: `content` is missing, empty, too small, or holds no image that can be decoded.
        StyleError: the same of `style`.
        ModelError: the backbone's weights are missing, altered, or another network's.
        UsageError: the method cannot be built of these options, or there is no run to go on with.
        DriftError: the run to go on with was told something else.
    """
    from stylejobs.engine.train_settings import build, pin_backbone

    _check_cpus(config)
    if config.load_px is not None and config.load_px < config.size_px:
        raise UsageError(f"load_px={config.load_px}: wanted at least size_px={config.size_px}, the side of the crops")
    if config.min_workers is not None and config.min_workers > config.workers:
        raise UsageError(f"min_workers={config.min_workers}: wanted at most workers={config.workers}")
    sets = {"content": plan_content(config.content, config.image_column, labelled=config.method == "classifier")}
    if config.style is not None:
        sets["style"] = plan_style(config.style, config.image_column, _reads_labels(config))
    data = {role: digest_of_set(planned.source) for role, planned in sets.items()}
    run = go_on(config, data) if config.resume else begin(config, data, config.steps * config.workers * config.batch)
    settings = _settings(config, sets, run)
    _check_counts(config, sets, settings)
    settings, backbone = pin_backbone(settings)
    _check_layers(config, backbone)
    try:
        method = build(settings, backbone)
    except ValueError as error:
        raise UsageError(f"method={config.method}: {error}") from error
    # The critic of exemplars sees exemplars, which have their own size.
    smallest = max((getattr(network, "min_px", 0) for network in method.networks.values()), default=0)
    if config.method != "exemplar" and config.size_px < smallest:
        raise UsageError(f"size_px={config.size_px}: this critic wants at least {smallest} px; fewer critic.layers do")
    has_critic = any(player.is_critic for player in method.players.values())
    if config.repair.on if config.repair.on is not None else has_critic:
        cooldown = config.repair.cooldown_images
        settings = replace(settings, repair={} if cooldown is None else {"cool_down_images": cooldown})
    return TrainingPlan(run, {role: sets[role] for role in method.reads}, settings)


def _reads_labels(config: TrainConfig) -> bool:
    """Whether every label of the style set is a style of its own."""
    return "label_conditioned" in (config.generator.name or GENERATORS[config.method][0])


def _check_counts(config: TrainConfig, sets: Mapping[str, TrainingSet], settings: "TrainSettings") -> None:
    num_images = sets["content"].source.num_rows
    if num_images is not None and num_images < config.workers * config.batch:
        raise SourceError(
            f"content={config.content}: {num_images} images are fewer than one step of {config.workers} workers x "
            f"batch {config.batch}; lower workers or batch"
        )
    if config.method not in _LEARN_DOMAINS:
        return
    for planned, sample, kind in (
        (sets["content"], settings.content_images, SourceError),
        (sets["style"], settings.style_images, StyleError),
    ):
        few = [planned.names[number] for number, count in planned.counts.items() if count < 2]
        if few or len(sample) < 2:
            raise kind(
                f"{planned.role}={planned.uri}: {', '.join(few or planned.names.values())} holds a single image; "
                f"method={config.method} learns what the images of a domain have in common: wanted at least 2 images, "
                "better hundreds; fast, fst and adain learn from one"
            )


def _check_layers(config: TrainConfig, backbone: "Backbone | None") -> None:
    asked = {*(config.backbone.style_layers or ()), config.backbone.content_layer} - {None}
    if backbone is not None and (unknown := asked - set(backbone.layers)):
        raise ModelError(
            f"backbone has no layers {sorted(unknown)}; {config.backbone.name} has {', '.join(backbone.layers)}"
        )


def _settings(config: TrainConfig, sets: Mapping[str, TrainingSet], run: RunRecord) -> "TrainSettings":
    from stylejobs.core.methods import METHODS, PRESETS
    from stylejobs.engine.checkpointing import CheckpointSettings
    from stylejobs.engine.train_settings import TrainSettings

    limits = limits_of(config.limits)
    method = METHODS[PRESETS.get(config.method, (config.method, {}))[0]]
    most = _NUM_FAST_STYLE_IMAGES if config.method == "fast" else _NUM_STYLE_IMAGES
    content, style = sets["content"], sets.get("style")
    style_images = sample_images(style, limits, most, evenly=True) if style else {}
    crops = _crops(config)
    # What is named is shown whole, at the scale of the crops.
    own = {} if method.makes_pictures else {"size_px": crops.whole_px}
    values = flatten(config)
    return TrainSettings(
        method=config.method,
        options={field: values[key] for key, field in OPTION_OF_KEY.items() if values[key] is not None},
        generator=_given(config.generator, has_choice=len(GENERATORS[config.method]) > 1) | own,
        critic=_given(config.critic, has_choice=True),
        backbone=config.backbone.model_dump() if method.needs_backbone else None,
        style_images=dict(zip(unique_names(list(style_images)), style_images.values(), strict=True)),
        style_size_px=config.style_size_px,
        content_images=tuple(sample_images(content, limits, _NUM_CONTENT_IMAGES, evenly=False).values()),
        domains=_domains(content, style) if style else tuple(content.names.values()),
        num_images=run.num_images,
        crops=crops,
        seed=config.seed,
        package_uri=locations.join(run.uri, "package"),
        training={
            "method": config.method,
            "content": content.source.uri,
            "style": config.style,
            "backbone": config.backbone.name if method.needs_backbone else None,
            "workers": config.workers,
            "steps": config.steps,
        },
        precision=config.precision,
        compile=config.compile,
        clip_norm=config.optim.clip_norm,
        ema_decay=config.ema,
        threads=config.threads,
        sample_every=config.sample_every,
        log_every=config.log_every,
        checkpoints=CheckpointSettings(run.uri, **config.checkpoint.model_dump()),
        evaluation=_evaluation(config, sets),
        hang_seconds=config.hang_seconds,
        readers=config.data.readers,
    )


def _evaluation(config: TrainConfig, sets: Mapping[str, TrainingSet]) -> "EvaluationSettings | None":
    """The frozen set: of places of its own, or a sample of what is trained on."""
    from stylejobs.engine.train_settings import EvaluationSettings

    e = config.evaluation
    if e.every_images is None:
        return None
    planned_content = plan_content(e.content, config.image_column) if e.content else sets["content"]
    planned_style = plan_style(e.style, config.image_column, labelled=False) if e.style else sets["style"]
    limits = limits_of(config.limits)
    return EvaluationSettings(
        e.every_images,
        e.measure,
        tuple(sample_images(planned_content, limits, e.images, evenly=True).values()),
        tuple(sample_images(planned_style, limits, e.images, evenly=True).values()),
        e.patience,
        e.min_gain,
    )


def _domains(content: TrainingSet, style: TrainingSet) -> tuple[str, ...]:
    """Names of the domains in the order of their numbers, no two the same."""
    styles = [style.names[number] for number in sorted(style.names)]
    *styles, content_name = unique_names([*styles, content.names[0]], folders=False)
    return content_name, *styles


def _crops(config: TrainConfig) -> "CropSettings":
    from stylejobs.core.views import ViewOptions
    from stylejobs.engine.datasets import CropSettings

    try:
        view = ViewOptions(config.size_px, config.load_px, **config.augment.model_dump())
    except ValueError as error:
        raise UsageError(f"augment: {error}") from error
    return CropSettings(
        view=view,
        batch=config.batch,
        seed=config.seed,
        limits=limits_of(config.limits),
        decode_threads=config.data.threads or max(1, round(config.worker_cpus)),
        prefetch=config.data.prefetch,
    )


def _given(section: Any, has_choice: bool) -> dict[str, Any]:
    """The options of a network that were set; its name where the method leaves a choice."""
    options = section.model_dump(exclude_none=True)
    return options if has_choice else {name: value for name, value in options.items() if name != "name"}


def _check_cpus(config: TrainConfig) -> None:
    """Workers hold their CPUs for the whole run: without one beside them, nothing would ever read an image."""
    held, given = config.workers * config.worker_cpus, config.cluster.num_cpus
    if given is not None and given < held + 1:
        raise UsageError(
            f"cluster.num_cpus={given}: {config.workers} workers hold {held:g} CPUs, which leaves none to read images; "
            f"wanted at least {math.ceil(held) + 1}, or leave it out"
        )
