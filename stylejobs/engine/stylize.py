"""The stylize job: plan, pinned model, run, report."""

import platform
import tempfile

from stylejobs import __version__
from stylejobs.config.schema import StylizeConfig
from stylejobs.core.sharpness import Deblur
from stylejobs.engine.gallery import write_report
from stylejobs.engine.jobs import carry_out, limits_of
from stylejobs.engine.models import PinnedModel, pin_model, pinned_uri, place_model
from stylejobs.engine.results import JobResult
from stylejobs.engine.session import ray_session
from stylejobs.engine.stylizer import Stylizer, StylizeSettings
from stylejobs.engine.unit_job import UnitJob, Workers
from stylejobs.engine.writer import WriteSettings, schema_to_text
from stylejobs.errors import ModelError
from stylejobs.records.schema import STYLIZED_SCHEMA_VERSION
from stylejobs.storage import locations
from stylejobs.storage.sources import Source, plan_source

_DECISIVE = {
    "variants", "strength", "preserve_colour", "deblur", "deblur_below", "deblur_sigma_px", "deblur_amount",
    "deblur_noise", "seed", "size", "format", "quality", "precision", "micro_batch",
    "unit_mb", "row_group_mb", "image_column", "limits",
}  # fmt: skip
"""Keys that an output byte is a function of; all others may change between a job and its resume."""


def plan_stylize(config: StylizeConfig) -> tuple[UnitJob, PinnedModel]:
    """Plans the source, pins the model and takes `dest`: what cannot be meant or used ends the command here."""
    source = plan_source(config.source, config.unit_mb * 2**20, config.image_column)
    with tempfile.TemporaryDirectory(prefix="stylejobs-model-") as scratch:
        model = pin_model(config.model, config.styles, config.dest, scratch)
        _check_strength(config, model)
        job = _job(config, source, model)
        wanted = list(config.styles) if config.styles is not None else None
        job.open({"source": source.summary(), "model": model.described(), "wanted_styles": wanted})
        place_model(model, job.dest)
    return job, model


def _check_strength(config: StylizeConfig, model: PinnedModel) -> None:
    missing = [style for style in model.styles if style not in model.matched]
    if config.strength == "auto" and missing:
        raise ModelError(
            f"strength=auto: model={config.model} has no content match for {', '.join(missing)}; models get one in "
            "training, random: styles never; give a number, such as strength=1"
        )


def _job(config: StylizeConfig, source: Source, model: PinnedModel) -> UnitJob:
    return UnitJob(
        verb="stylize",
        dest=locations.absolute(config.dest),
        source=source,
        identity={
            "verb": "stylize",
            "schema_version": STYLIZED_SCHEMA_VERSION,
            "source": locations.absolute(config.source),
            "model": {
                "name": model.name,
                "version": model.version,
                "sha256": model.sha256,
                "package_sha256": model.package_sha256,
            },
            "styles": model.styles,
            "parameters": config.model_dump(mode="json", include=_DECISIVE),
        },
        worker=Stylizer,
        settings=_settings(config, source, model),
        max_bad=config.max_bad,
        workers=Workers(config.cluster.actors, config.cluster.actor_cpus, config.cluster.actor_gpus),
    )


def _settings(config: StylizeConfig, source: Source, model: PinnedModel) -> StylizeSettings:
    limits = limits_of(config.limits)
    dest = locations.absolute(config.dest)
    return StylizeSettings(
        write=WriteSettings(dest, schema_to_text(source.carried_schema), limits.max_bytes, config.row_group_mb * 2**20),
        package_uri=pinned_uri(dest),
        model_name=model.name,
        model_version=model.version,
        model_sha256=model.sha256,
        package_sha256=model.package_sha256,
        styles=tuple(model.styles),
        variants=config.variants,
        strength=config.strength,
        preserve_colour=config.preserve_colour,
        deblur=_deblur(config),
        seed=config.seed,
        short_side_px=None if config.size == "keep" else config.size,
        format=config.format,
        quality=config.quality,
        micro_batch=config.micro_batch,
        precision=config.precision,
        limits=limits,
        use_gpu=config.cluster.actor_gpus > 0,
        threads=config.cluster.threads,
        codec_threads=max(1, round(config.cluster.actor_cpus)),
    )


def _deblur(config: StylizeConfig) -> Deblur | None:
    if config.deblur == "none":
        return None
    return Deblur(config.deblur, config.deblur_below, config.deblur_sigma_px, config.deblur_amount, config.deblur_noise)


def describe_plan(job: UnitJob, model: PinnedModel) -> JobResult:
    """The result of `plan=true`: what would be done; the plan itself is in DEST/_stylejobs/plan.json."""
    left = len(job.pending)
    source = job.source.summary()
    rows = "unknown" if source["rows"] is None else f"{source['rows']:,}"
    message = (
        f"plan: {rows} rows in {source['units']:,} units ({source['bytes'] / 2**20:,.1f} MB), {left:,} left to do; "
        f"model {model.name} {model.version} sha256 {model.sha256[:12]}, styles {', '.join(model.styles)}"
    )
    units = {"total": source["units"], "done": 0, "skipped": job.skipped, "failed": 0}
    return JobResult(
        "stylize", dest=job.dest, message=message, units=units, model=model.described(), details={"source": source}
    )


def stylize(config: StylizeConfig, job: UnitJob, model: PinnedModel) -> JobResult:
    """Runs the job under an MLflow run, then writes the report."""
    from stylejobs.tracking.mlflow_tracker import MlflowTracker

    tags = {"stylejobs.verb": "stylize", "stylejobs.version": __version__, "stylejobs.host": platform.node()}
    with MlflowTracker.start(config.experiment, config.run_name or f"stylize {model.name}", tags) as tracker:
        tracker.log_params(
            {**config.model_dump(mode="json"), "model_version": model.version, "model_sha256": model.sha256}
        )
        with ray_session(config.cluster.num_cpus, config.cluster.object_store_mb):
            result = carry_out(job, tracker)
        result.rows["written"] = result.rows["ok"] * config.variants
        result = result.with_(model=model.described(), mlflow={"run_id": tracker.run_id, "url": tracker.url})
        result = write_report(config, job, result, tracker)
        tracker.finish({0: "FINISHED", 3: "KILLED"}.get(result.exit_code, "FAILED"))
    return result
