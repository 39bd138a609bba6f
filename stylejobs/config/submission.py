"""The command line of `submit`: VERB, keys of submit, and a checked configuration of VERB."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stylejobs.config.load import Loaded, load_config
from stylejobs.config.problems import did_you_mean
from stylejobs.config.schema import CONFIGS
from stylejobs.config.sections import flatten, list_fields
from stylejobs.config.submitting import SubmitConfig
from stylejobs.errors import ConfigError

VERBS = tuple(verb for verb in CONFIGS if verb != "submit")


@dataclass(frozen=True)
class Submission:
    """What is sent, and how.

    Attributes:
        keys: those of submit.
        job: of the verb.
    """

    keys: SubmitConfig
    job: Loaded

    def flat(self) -> dict[str, Any]:
        """All values by dotted name, as one file for this command holds them."""
        return {**flatten(self.job.config), **{f"submit.{key}": value for key, value in flatten(self.keys).items()}}


def load_submission(verb: str, arguments: Sequence[str]) -> Loaded:
    """`load_config` for submit; its `config` is a `Submission`.

    Args:
        verb: "submit".
        arguments: VERB, then files and overrides.

    Raises:
        ConfigError: all problems of both at once.
    """
    job_verb, *rest = arguments or [""]
    if job_verb not in VERBS:
        came = f"unknown verb{did_you_mean(job_verb, VERBS)}" if job_verb else "no verb"
        raise ConfigError(
            [f"{job_verb or verb}  {came}; wanted submit VERB address=URL ..., one of {', '.join(VERBS)}"]
        )
    keys = list_fields(CONFIGS[verb])
    own = [text for text in rest if "=" not in text or text.partition("=")[0] in keys]
    of_job = [text for text in rest if text.partition("=")[0] not in keys]
    found: list[Any] = []
    problems: list[str] = []
    for text in list(of_job):
        key = text.partition("=")[0]
        if key not in list_fields(CONFIGS[job_verb]) and (near := did_you_mean(key, keys)):
            problems.append(f"{key}  unknown key of submit and of {job_verb}{near}")
            of_job.remove(text)
    for name, words, own_only in ((verb, own, True), (job_verb, of_job, False)):
        try:
            found.append(load_config(name, words, own_only))
        except ConfigError as error:
            problems += [line for line in error.problems if line not in problems]
    if problems:
        raise ConfigError(problems)
    submit, job = found
    origins = {**job.origins, **{f"submit.{key}": origin for key, origin in submit.origins.items()}}
    return Loaded(verb, Submission(submit.config, job), origins, job.digest)
