"""`retry=DEST`: the dead rows of a dataset done again, by its own plan."""

from pydantic import BaseModel

from stylejobs.config.stylizing import OF_RETRY, StylizeConfig
from stylejobs.engine.models import PinnedModel
from stylejobs.engine.retrier import Retrier, retry_part
from stylejobs.engine.stylize import held_style_plan, reopen_stylize, stylize_job
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import DriftError, UsageError
from stylejobs.storage import locations
from stylejobs.storage.units import read_plan_of

_FREE = {
    "retry", "retry_reasons", "limits", "row_seconds", "max_bad", "max_bad_of", "cluster", "deadline", "experiment",
    "run_name", "gallery",
}  # fmt: skip
"""Keys that a retry may give anew: none of them changes a pixel of a row that is alive."""
_PLACES = ("source", "dest")


def plan_retry(config: StylizeConfig) -> tuple[StylizeConfig, UnitJob, PinnedModel]:
    """The job that `retry` holds, opened to do its dead rows again; its config with what may differ put in.

    Raises:
        DriftError: the command names a source, model or key that is not the dataset's.
        UsageError: the dataset's sink cannot take rows in.
    """
    held, job, model = reopen_stylize(config.retry)
    _check_agrees(config, held)
    if held.sink in ("files", "null"):
        raise UsageError(
            f"retry={config.retry}: sink={held.sink} takes no rows in; mend the source and write to a new dest"
        )
    merged = held.model_copy(update={name: _merge(held, config, name) for name in _FREE & config.model_fields_set})
    # What the job is stays as it was, so that its fingerprints agree; how it is done is what the command says.
    plan = read_plan_of(job.dest)
    free = stylize_job(merged, job.source, model, job.dest, held_style_plan(plan))
    job.worker, job.settings, job.budget = Retrier, free.settings, free.budget
    job.workers, job.deadline = free.workers, free.deadline
    job.open(plan)
    job.do_again(lambda marker: retry_part(marker, config.retry_reasons))
    return merged, job, model


def _check_agrees(config: StylizeConfig, held: StylizeConfig) -> None:
    differing = []
    for name in sorted(config.model_fields_set - _FREE):
        given, own = getattr(config, name), getattr(held, name)
        if given == OF_RETRY:
            continue
        if name in _PLACES:
            given, own = locations.absolute(given), locations.absolute(config.retry if name == "dest" else own)
        if given != own:
            differing.append(f"  {name}: the dataset has {own!r}, this command says {given!r}")
    if differing:
        raise DriftError(
            f"retry={config.retry} goes on with the job that the dataset holds; what differs:\n"
            + "\n".join(differing)
            + f"\nleave these out; what may differ is {', '.join(sorted(_FREE - {'retry'}))}"
        )


def _merge(held: StylizeConfig, config: StylizeConfig, name: str) -> object:
    """The command's value; of a section, only of the keys that the command gives."""
    own, given = getattr(held, name), getattr(config, name)
    if isinstance(given, BaseModel):
        return own.model_copy(update={key: getattr(given, key) for key in given.model_fields_set})
    return given
