"""The stylize job: plan, pinned model, run, report."""

import os
import platform
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from stylejobs import __version__
from stylejobs.config.schema import StylizeConfig
from stylejobs.config.style_plan import StylePlan
from stylejobs.core.sharpness import Deblur
from stylejobs.engine.budget import Budget
from stylejobs.engine.canary import CanaryRules, check_canary, was_refused
from stylejobs.engine.command import spoilt
from stylejobs.engine.gallery import write_report
from stylejobs.engine.generating import GenerateSettings
from stylejobs.engine.jobs import carry_out, limits_of, next_deadline
from stylejobs.engine.models import PinnedModel, held_model, pin_model, pinned_uri, place_model
from stylejobs.engine.plans import check_drift, extras_of, list_inputs, planned_uri, read_plan
from stylejobs.engine.results import JobResult
from stylejobs.engine.session import ray_session
from stylejobs.engine.stream import Workers
from stylejobs.engine.style_choice import choose_styles, find_class_column, parts_of, read_style_plan
from stylejobs.engine.stylizer import Stylizer, StylizeSettings
from stylejobs.engine.unit_job import UnitJob
from stylejobs.engine.writer import WriteSettings, schema_to_text
from stylejobs.errors import ModelError, SourceError, StylejobsError
from stylejobs.records.schema import STYLIZED_SCHEMA_VERSION
from stylejobs.storage import locations
from stylejobs.storage.sources import Source, plan_source
from stylejobs.storage.units import digest, find_differences, read_plan_of
from stylejobs.tracking.tracker import Tracker

_DECISIVE = {
    "variants", "style_weights", "include_source", "strength", "preserve_colour", "deblur", "deblur_below",
    "deblur_sigma_px", "deblur_amount", "deblur_noise", "seed", "size", "format", "quality", "precision",
    "micro_batch", "tile_above_megapixels", "tile_px", "tile_overlap_px", "unit_mb", "row_group_mb", "image_column",
    "limits", "where", "sink",
}  # fmt: skip
"""Keys that an output byte is a function of; all others may change between a job and its resume."""


def plan_stylize(config: StylizeConfig, source: Source | None = None) -> tuple[UnitJob, PinnedModel]:
    """Plans the source, pins the model and takes `dest`: what cannot be meant or used ends the command here.

    Args:
        source: that of the config, planned, where not all of it is wanted.
    """
    source = source or _source(config)
    applied = read_plan(config.plan) if isinstance(config.plan, str) else None
    with tempfile.TemporaryDirectory(prefix="stylejobs-model-") as scratch:
        model = _pin(config, applied, scratch)
        _check_strength(config, model)
        by_class = read_style_plan(config.style_plan)
        identity = _identity(config, model, by_class)
        if applied:
            check_drift(applied, config.plan, identity, model.styles, list_inputs(source))
        dest = _choose_dest(config, identity)
        job = stylize_job(config, source, model, dest, by_class)
        wanted = list(config.styles) if config.styles is not None else None
        # Whoever opens the books may stand in another folder.
        command = {**config.model_dump(mode="json"), "source": locations.absolute(config.source)}
        plan = {"source": source.summary(), "model": model.described(), "wanted_styles": wanted, "command": command}
        plan["package_sha256"] = model.package_sha256
        job.open({**plan, **extras_of(applied or read_plan_of(dest), identity)})
        place_model(model, job.dest)
        job.settings = replace(job.settings, learned=job.learned)
    return job, model


def _pin(config: StylizeConfig, applied: dict | None, scratch: str) -> PinnedModel:
    """The model of the job; of a plan that is applied, the version that its alias meant then."""
    uri, held = config.model, read_plan_of(config.dest)
    renew = config.snapshot == "new" or was_refused(config.dest)
    if applied and (renew or held is None or held["identity"] != applied["identity"]):
        uri = planned_uri(applied, uri)
    return replace(pin_model(uri, config.styles, config.dest, scratch, renew), uri=config.model)


def reopen_stylize(dest: str) -> tuple[StylizeConfig, UnitJob, PinnedModel]:
    """The job that `dest` holds, planned again from its books: takes nothing, changes nothing, needs no registry.

    Raises:
        SourceError: `dest` holds no job of stylize, or the job's source is gone.
        ModelError: the package in `dest` is damaged.
    """
    plan = read_plan_of(dest)
    if plan is None or plan["identity"]["verb"] != "stylize":
        raise SourceError(f"dest={dest}: wanted a dataset that stylize made; there is no plan of one")
    config = StylizeConfig.model_validate(plan["command"])
    model = held_model(dest, plan)
    # Styles by class are part of what the job is: the file that they came from may be gone, or say something else now.
    by_class = held_style_plan(plan)
    return config, stylize_job(config, _source(config), model, locations.absolute(dest), by_class), model


def held_style_plan(plan: dict) -> StylePlan | None:
    """The styles by class of the job whose plan.json this is; None where it has none."""
    held = plan["identity"].get("style_plan")
    return StylePlan.model_validate(held) if held else None


def _source(config: StylizeConfig) -> Source:
    return plan_source(config.source, config.unit_mb * 2**20, config.image_column, where=config.where or ())


def _choose_dest(config: StylizeConfig, identity: dict) -> str:
    """`dest`, or with `snapshot=new` a dataset of its own inside of it where `dest` holds another job's output."""
    dest = locations.absolute(config.dest)
    if config.snapshot == "new" and find_differences(dest, identity):
        return locations.join(dest, "snapshots", digest(identity)[:12])
    return dest


def _check_strength(config: StylizeConfig, model: PinnedModel) -> None:
    missing = [style for style in model.styles if style not in model.matched]
    if config.strength == "auto" and missing:
        raise ModelError(
            f"strength=auto: model={config.model} has no content match for {', '.join(missing)}; models get one in "
            "training, random: styles never; give a number, such as strength=1"
        )


def _identity(config: StylizeConfig, model: PinnedModel, plan: StylePlan | None) -> dict:
    identity = {
        "verb": "stylize",
        "schema_version": STYLIZED_SCHEMA_VERSION,
        "source": locations.absolute(config.source),
        "model": {"name": model.name, "version": model.version, "sha256": model.sha256},
        "parameters": config.model_dump(mode="json", include=_DECISIVE),
    }
    if config.variants != "each":
        # Where rows draw from all styles, one that is added changes what is drawn; else each is a part of its own.
        identity["model"]["package_sha256"] = model.package_sha256
        identity["styles"] = model.styles
    return identity | ({"style_plan": plan.model_dump()} if plan else {})


def stylize_job(
    config: StylizeConfig, source: Source, model: PinnedModel, dest: str, by_class: StylePlan | None
) -> UnitJob:
    """What a command is to do, before it has taken `dest`; `by_class` is what its `style_plan` says."""
    return UnitJob(
        verb="stylize",
        dest=dest,
        source=source,
        identity=_identity(config, model, by_class),
        worker=Stylizer,
        settings=_settings(config, source, model, dest, by_class),
        parts=parts_of(config, model.styles),
        deadline=next_deadline(config.deadline, time.time()),
        budget=Budget(config.max_bad, config.max_bad_of.given()),
        workers=Workers(config.cluster.actors, config.cluster.actor_cpus, config.cluster.actor_gpus),
    )


def _settings(
    config: StylizeConfig, source: Source, model: PinnedModel, dest: str, plan: StylePlan | None
) -> StylizeSettings:
    limits = limits_of(config.limits)
    return StylizeSettings(
        write=WriteSettings(
            dest, schema_to_text(source.carried_schema), limits.max_bytes, config.row_group_mb * 2**20, config.sink
        ),
        package_uri=pinned_uri(dest),
        model_name=model.name,
        model_version=model.version,
        model_sha256=model.sha256,
        package_sha256=model.package_sha256,
        short_side_px=None if config.size == "keep" else config.size,
        format=config.format,
        quality=config.quality,
        generate=GenerateSettings(
            micro_batch=config.micro_batch,
            precision=config.precision,
            preserve_colour=config.preserve_colour,
            deblur=_deblur(config),
            tile_px=config.tile_px,
            tile_overlap_px=config.tile_overlap_px,
            tile_above_megapixels=config.tile_above_megapixels,
            row_seconds=config.row_seconds,
            model=model.package_sha256[:12],
        ),
        limits=limits,
        drawing=choose_styles(config, plan, tuple(model.styles)),
        class_column=find_class_column(config, plan, source.carried_schema),
        use_gpu=config.cluster.actor_gpus > 0,
        threads=config.cluster.threads,
        codec_threads=max(1, round(config.cluster.actor_cpus)),
    )


def _deblur(config: StylizeConfig) -> Deblur | None:
    if config.deblur == "none":
        return None
    return Deblur(config.deblur, config.deblur_below, config.deblur_sigma_px, config.deblur_amount, config.deblur_noise)


def _canary_rules(config: StylizeConfig, job: UnitJob) -> CanaryRules:
    plan = read_plan_of(job.dest) if isinstance(config.plan, str) else None
    rate = config.rate or (plan and plan["forecast"]["rate"]["value"])
    return CanaryRules(config.canary, config.max_bad, config.canary_similarity, rate)


def stylize(config: StylizeConfig, job: UnitJob, model: PinnedModel) -> JobResult:
    """Runs the job under an MLflow run, then writes the report."""
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        stack.enter_context(ray_session(config.cluster.num_cpus, config.cluster.object_store_mb))
        # MLflow takes as long to be there as workers do: the first units are done meanwhile.
        starting = pool.submit(_start_tracker, config, model)
        rules = _canary_rules(config, job)
        result = carry_out(job, starting.result, lambda: check_canary(job, rules))
        result.rows["written"] = job.count("rows_out")
        result = result.with_(model=model.described())
        if config.sink == "null":
            result = result.with_(proof=None)  # nothing was kept: it must not look like a finished dataset
        try:
            tracker = stack.enter_context(starting.result())
        except StylejobsError as error:
            return result if result.exit_code else spoilt(result, error).with_(proof=None)
        result = result.with_(mlflow={"run_id": tracker.run_id, "url": tracker.url})
        if not job.is_storage_away:
            result = _with_report(config, job, result, tracker)
        tracker.finish({0: "FINISHED", 3: "KILLED"}.get(result.exit_code, "FAILED"))
    return result


def _with_report(config: StylizeConfig, job: UnitJob, result: JobResult, tracker: Tracker) -> JobResult:
    try:
        return write_report(config, job, result, tracker)
    except StylejobsError as error:
        return spoilt(result, error).with_(proof=None)


def _start_tracker(config: StylizeConfig, model: PinnedModel) -> Tracker:
    # Workers that start on this machine have more important things to import than MLflow.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
    from stylejobs.tracking.mlflow_tracker import MlflowTracker

    tags = {"stylejobs.verb": "stylize", "stylejobs.version": __version__, "stylejobs.host": platform.node()}
    tracker = MlflowTracker.start(config.experiment, config.run_name or f"stylize {model.name}", tags)
    tracker.log_params({**config.model_dump(mode="json"), "model_version": model.version, "model_sha256": model.sha256})
    return tracker
