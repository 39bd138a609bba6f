"""A plan as a document: what it says, and whether what it was made of is still there.

DEST/_stylejobs/plan.json is written by every job; with `plan=true` it also holds `inputs` (a tag for each source file),
`styles` (a digest of each) and `forecast`. Such a plan may be copied, reviewed, and applied later with `plan=PATH`, to
any `dest`.
"""

import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from stylejobs.config.schema import StylizeConfig
from stylejobs.engine.forecast import make_forecast
from stylejobs.engine.models import REGISTERED, PinnedModel
from stylejobs.engine.results import JobResult
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import DriftError, SourceError
from stylejobs.storage import locations
from stylejobs.storage.descriptors import Source, tag_of
from stylejobs.storage.units import list_differences, read_json, write_json

_EXTRAS = ("inputs", "styles", "forecast")
_MAX_LINES = 20
_MB = 2**20


def read_plan(uri: str) -> dict:
    """A plan that `plan=true` wrote.

    Raises:
        SourceError: nothing is there, or it is something else.
    """
    try:
        plan = read_json(uri)
    except ValueError as error:
        raise SourceError(f"plan={uri}: not a plan.json: {error}") from error
    if plan is None:
        raise SourceError(f"plan={uri}: nothing is there; wanted true, false, or the plan.json of an earlier plan=true")
    if not isinstance(plan, dict) or not all(name in plan for name in ("identity", "model", *_EXTRAS)):
        raise SourceError(f"plan={uri}: wanted a plan.json that plan=true wrote; this one lists no inputs")
    return plan


def extras_of(plan: dict | None, identity: dict) -> dict:
    """What a job with this identity keeps of an earlier plan: its inputs and its forecast."""
    if plan is None or plan["identity"] != identity:
        return {}
    return {name: plan[name] for name in _EXTRAS if name in plan}


def planned_uri(plan: dict, model_uri: str) -> str:
    """The model URI to resolve: where the plan met an alias, the version that the alias meant then.

    >>> planned_uri({"model": {"uri": "models:/m@champion", "name": "m", "version": "3"}}, "models:/m@champion")
    'models:/m/3'
    """
    model = plan["model"]
    is_alias = model_uri.startswith(REGISTERED) and "@" in model_uri
    return f"{REGISTERED}{model['name']}/{model['version']}" if is_alias and model["uri"] == model_uri else model_uri


def list_inputs(source: Source) -> dict[str, str]:
    """What tells a changed input from the same one: tag by name within the source.

    A folder of pictures is listed once more, since its units keep a digest of many files only. Of a list of URIs there
    is an entry for each run of lines, named by its first.
    """
    if source.kind != "files":
        return {unit.name: unit.tag for unit in source.units}
    root = source.units[0].source_uri
    found = locations.list_files(root)
    places = {name: locations.join(root, name) for unit in source.units for name in unit.files}
    return {name: tag_of(found[place]) for name, place in places.items() if place in found}


def check_drift(plan: dict, plan_uri: str, identity: dict, styles: dict[str, str], inputs: dict[str, str]) -> None:
    """Refuses to apply a plan to what it was not made for.

    Args:
        styles: digest by name; not always a part of the identity.

    Raises:
        DriftError: model, styles, parameters or inputs differ; the message lists which, 20 lines of them.
    """
    planned = plan["inputs"]
    lines = list_differences({**plan["identity"], "styles": plan["styles"]}, {**identity, "styles": styles})
    lines += [f"added: {name}" for name in sorted(inputs.keys() - planned.keys())]
    lines += [f"gone: {name}" for name in sorted(planned.keys() - inputs.keys())]
    lines += [f"changed: {name}" for name in sorted(planned.keys() & inputs.keys()) if planned[name] != inputs[name]]
    if lines:
        more = [f"... and {len(lines) - _MAX_LINES:,} more"] if len(lines) > _MAX_LINES else []
        raise DriftError(
            f"plan={plan_uri} was made for something else; {len(lines):,} difference(s):\n"
            + "\n".join(f"  {line}" for line in [*lines[:_MAX_LINES], *more])
            + "\nplan again with plan=true, or restore what it was made for"
        )


def describe_plan(config: StylizeConfig, job: UnitJob, model: PinnedModel) -> JobResult:
    """Completes DEST/_stylejobs/plan.json, prints it for people on stderr, and returns it as the result."""
    forecast = make_forecast(config, job, datetime.now().astimezone())
    place = locations.join(job.dest, "_stylejobs", "plan.json")
    plan = read_json(place) or {}
    write_json(place, {**plan, "inputs": list_inputs(job.source), "styles": model.styles, "forecast": forecast})
    sys.stdout.flush()
    Console(stderr=True).print(plan_table(job, model, forecast))
    source = job.source.summary()
    units = {"total": source["units"], "done": 0, "skipped": job.skipped, "failed": 0}
    return JobResult(
        "stylize",
        dest=job.dest,
        message=f"plan: {place}; apply it with plan={place}",
        units=units,
        model=model.described(),
        details={"source": source, "forecast": forecast},
    )


def plan_table(job: UnitJob, model: PinnedModel, forecast: dict) -> Table:
    """The plan as people read it."""
    source, rate, hours, finish = job.source.summary(), forecast["rate"], forecast["hours"], forecast["finish"]
    table = Table(title="plan", show_header=False, title_justify="left")
    about = "" if forecast["rows_known"] else "about "
    table.add_row("source", f"{about}{forecast['rows']:,} rows, {_megabytes(forecast['bytes_in'])}")
    table.add_row("units", f"{source['units']:,}, of which {len(job.pending):,} are left to do")
    table.add_row("model", f"{model.name} {model.version} sha256 {model.sha256[:12]}")
    table.add_row("styles", ", ".join(model.styles))
    for bucket in forecast["buckets"]:
        bound = "larger" if bucket["up_to"] is None else f"up to {bucket['up_to']:g} MP"
        table.add_row(bound, f"{bucket['rows']:,} pictures, {bucket['megapixels']:,.1f} megapixels")
    sampled = forecast["sampled"]
    table.add_row("sampled", f"{sampled['images']:,} pictures in {sampled['units']:,} units: {sampled['how']}")
    out = forecast["bytes_out"]
    table.add_row("to write", f"{forecast['images_left']:,} pictures, {_megabytes(out['value'])} ({out['how']})")
    table.add_row("images/s a worker", f"{rate['value']:g} ({rate['low']:g} to {rate['high']:g}): {rate['how']}")
    table.add_row("workers", f"{forecast['workers']:,}")
    table.add_row("time", _span(hours, lambda value: str(timedelta(seconds=round(value * 3600)))))
    table.add_row("GPU-hours", _span(forecast["gpu_hours"], "{:,.4g}".format))
    table.add_row("CPU-hours", _span(forecast["cpu_hours"], "{:,.4g}".format))
    money = forecast["money"]
    table.add_row("money", _span(money, "{:,.2f}".format) if money else "prices.gpu_hour and prices.cpu_hour say it")
    table.add_row("done at", _span(finish, lambda moment: moment[:16].replace("T", " ")))
    return table


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / _MB:,.1f} MB"


def _span(values: dict, text: Callable[[Any], str]) -> str:
    return f"{text(values['expected'])} ({text(values['low'])} to {text(values['high'])})"
