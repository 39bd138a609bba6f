"""The verb `submit`: another verb, on a Ray cluster, followed from here to its exit code.

id          sty-VERB-<digest of what it is to do>-a<attempt>: the same command finds its own job again
truth       the result that the job's command leaves on storage, RESULTS/ID.json; never the log, which may break
            off, nor Ray's word, which calls a stopped job no failure
code        this checkout's, without data; the configuration as one checked file beside it
"""

import hashlib
import itertools
import json
import os
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from stylejobs.config.files import Entry, nest
from stylejobs.config.load import Loaded
from stylejobs.config.places import is_place
from stylejobs.config.schema import CONFIGS
from stylejobs.config.sections import flatten, list_fields
from stylejobs.config.submission import Submission
from stylejobs.config.submitting import SubmitConfig
from stylejobs.engine.cluster_jobs import ClusterJobs, JobState
from stylejobs.engine.code_package import JOB_FILE, pack_code, travels
from stylejobs.engine.command import RESULT_URI
from stylejobs.engine.results import JobResult
from stylejobs.errors import ClusterError, PartialError, StorageError, UsageError
from stylejobs.storage import locations

_POLL_SECONDS = 1.0
# Keys whose value is a name, or else a place: a place if something of that name is there.
_NAME_OR_PLACE = ("model", "baseline", "classifier", "styles", "plan", "resume")
# Where things are, not what opens them: keys and passwords are the cluster's own, since anybody may read a job's
# environment there.
_TAKEN_ALONG = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "STYLEJOBS_DEBUG")


def submit(submission: Submission) -> JobResult:
    """Sends the verb, or finds it sent, and ends as it ends.

    Raises:
        UsageError: it has no place for results, or the environment holds a password where a job's would show it.
        ClusterError: the cluster does not answer, refuses us, or has lost the job.
        StorageError: results cannot be read.
        PartialError: this command was stopped, and the job goes on.
    """
    keys, job = submission.keys, submission.job
    text = _job_file(job)
    results = _results_folder(keys, job)
    environment = _environment()
    jobs = ClusterJobs(keys.address)
    name = f"sty-{job.verb}-{_digest(job, text)[:12]}"
    job_id, runs, ended = _find(jobs, name, results, keys.again)
    if ended is not None:
        _tell(f"{job_id}: ended with 0 before; again=true makes another attempt")
        return _as_ours(ended, keys, job_id)
    if not runs:
        _start(jobs, job_id, job.verb, text, keys, environment | {RESULT_URI: _place(results, job_id)})
    else:
        _tell(f"{job_id}: runs already; following it")
    if keys.detach:
        return JobResult(
            "submit", message=f"{job_id} is on its way; the same command follows it", details=_said(keys, job_id)
        )
    return _follow(jobs, job_id, results, keys)


def _find(jobs: ClusterJobs, name: str, results: str, again: bool) -> tuple[str, bool, dict | None]:
    """The attempt to follow or to make, whether it runs, and the result where the last one ended with 0."""
    last: tuple[str, dict | None] | None = None
    for attempt in itertools.count(1):
        job_id = f"{name}-a{attempt}"
        state, result = jobs.look(job_id), _read_result(results, job_id)
        if state is not None and not state.has_ended:
            return job_id, True, None
        if state is None and result is None:  # never sent, or lost without a trace
            break
        last = job_id, result
    if last is not None and last[1] is not None and last[1]["exit_code"] == 0 and not again:
        return last[0], False, last[1]
    return job_id, False, None


def _start(
    jobs: ClusterJobs, job_id: str, verb: str, text: str, keys: SubmitConfig, environment: dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory(prefix="stylejobs-submit-") as folder:
        pack_code(Path(folder), text)
        # Ray gives a stopped command three seconds by itself; ours writes down where it was.
        told = environment | {"RAY_JOB_STOP_WAIT_TIME_S": f"{keys.stop_seconds:g}", "PYTHONUNBUFFERED": "1"}
        entrypoint = f"python -m pipelines.{verb} {JOB_FILE}"
        sent = {"working_dir": folder, "env_vars": told}
        fresh = jobs.submit(job_id, sent, entrypoint, keys.driver_cpus, keys.patience_seconds)
    _tell(f"{job_id}: {'sent to' if fresh else 'somebody else has just sent it to'} {jobs.address}")


def _follow(jobs: ClusterJobs, job_id: str, results: str, keys: SubmitConfig) -> JobResult:
    started = heard = time.monotonic()

    def tell(text: str) -> None:
        nonlocal heard
        heard = time.monotonic()
        sys.stderr.write(text)
        sys.stderr.flush()

    try:
        with jobs.following(job_id, tell):
            answered, state = time.monotonic(), None
            while state is None or not state.has_ended:
                time.sleep(_POLL_SECONDS)
                try:
                    state = jobs.look(job_id)
                except ClusterError:
                    if time.monotonic() - answered > keys.patience_seconds:
                        raise
                    continue
                answered = time.monotonic()
                if state is None:
                    break
                if answered - heard > keys.heartbeat_seconds:
                    heard = answered
                    _tell(f"{job_id}: {state.status.lower()}, {(answered - started) / 60:.0f} min")
    except KeyboardInterrupt:
        state = _stopped(jobs, job_id, keys)
    return _ending(state, job_id, results, keys)


def _stopped(jobs: ClusterJobs, job_id: str, keys: SubmitConfig) -> JobState | None:
    """What is left of a job after SIGTERM to this command."""
    if not keys.stop_on_cancel:
        raise PartialError(f"stopped following {job_id}, which goes on; the same command follows it again")
    _tell(f"{job_id}: stopping it")
    jobs.stop(job_id)
    deadline = time.monotonic() + keys.stop_seconds + 30
    while (state := jobs.look(job_id)) is not None and not state.has_ended:
        if time.monotonic() > deadline:
            raise ClusterError(f"{job_id} did not stop in {keys.stop_seconds:g} s; look at {jobs.address}")
        time.sleep(_POLL_SECONDS)
    return state


def _ending(state: JobState | None, job_id: str, results: str, keys: SubmitConfig) -> JobResult:
    """The result on storage; without one, what can be said from how the job ended."""
    result = _read_result(results, job_id)
    if result is not None:
        return _as_ours(result, keys, job_id)
    if state is None:
        raise ClusterError(
            f"the cluster has lost {job_id}, as when its head is restarted, and it left no result; the same command "
            "sends it again, and it goes on from what is there"
        )
    if state.status == "SUCCEEDED":
        raise StorageError(f"{job_id} ended well, but there is no result at {_place(results, job_id)}")
    if state.status == "STOPPED":
        raise PartialError(f"{job_id} was stopped; the same command sends it again")
    reason = (state.message.strip().splitlines() or ["no reason given"])[0]
    if state.exit_code is not None and 1 <= state.exit_code <= 6:
        return JobResult(
            "submit", exit_code=state.exit_code, message=f"{job_id} failed: {reason}", details=_said(keys, job_id)
        )
    raise ClusterError(f"{job_id} was killed or never started: {reason}; the same command sends it again")


def _as_ours(result: dict, keys: SubmitConfig, job_id: str) -> JobResult:
    known = {field.name for field in fields(JobResult)}
    found = JobResult(**{key: value for key, value in result.items() if key in known})
    return replace(
        found,
        details={**found.details, **_said(keys, job_id)},
        goes_on=found.resume_command is not None,
        # Its command has printed it, here too, if we have followed.
        message=None,
    )


def _said(keys: SubmitConfig, job_id: str) -> dict[str, Any]:
    return {"submission": {"id": job_id, "address": keys.address}}


def _read_result(results: str, job_id: str) -> dict | None:
    place = _place(results, job_id)
    try:
        return json.loads(locations.read_bytes(place))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StorageError(f"{place}: not a result ({error}); move it away and try again") from error


def _place(results: str, job_id: str) -> str:
    return locations.join(results, f"{job_id}.json")


def _results_folder(keys: SubmitConfig, job: Loaded) -> str:
    if keys.results:
        return locations.absolute(keys.results)
    values = flatten(job.config)
    home = values.get("dest") or values.get("retry")
    if home:
        return locations.absolute(locations.join(home, "_stylejobs/submitted"))
    if values.get("storage"):
        return locations.absolute(locations.join(values["storage"], "submitted"))
    raise UsageError(
        f"results=: {job.verb} has no dest or storage in which its result could be left; give a folder that the "
        "cluster and this machine reach"
    )


def _job_file(job: Loaded) -> str:
    """The job's configuration as one file: what differs from the defaults, with places that mean the same there."""
    described, values, local = list_fields(CONFIGS[job.verb]), {}, []
    for key, value in flatten(job.config).items():
        place = is_place(described[key])
        moved = _absolute(value, place) if place or key in _NAME_OR_PLACE else value
        if moved != value:
            local.append(f"{key}={moved}")
        if moved != described[key].get_default(call_default_factory=True):
            values[key] = list(moved) if isinstance(moved, tuple) else moved
    if local:
        _tell(f"places on this machine; every node must see them: {', '.join(local)}")
    return yaml.safe_dump(nest(Entry(key, value, "") for key, value in values.items()), sort_keys=True)


def _absolute(value: Any, place: bool) -> Any:
    """A relative path as an absolute one; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_absolute(one, place) for one in value)
    if not isinstance(value, str) or ":" in value or os.path.isabs(value) or travels(value) or value == "none":
        return value
    return os.path.abspath(value) if place or os.path.exists(value) else value


def _digest(job: Loaded, text: str) -> str:
    """Of what the job is to do: its verb, its configuration, and the plan that it is to keep."""
    plan = getattr(job.config, "plan", None)
    told = locations.read_bytes(plan) if isinstance(plan, str) else b""
    return hashlib.sha256(b"\n".join([job.verb.encode(), text.encode(), told])).hexdigest()


def _environment() -> dict[str, str]:
    found = {name: os.environ[name] for name in _TAKEN_ALONG if os.environ.get(name)}
    for name, value in found.items():
        if "@" in value:
            raise UsageError(
                f"{name} holds a user or a password, which anybody on the cluster could read in the job; give it to "
                "the nodes' own environment, and unset it here"
            )
    if "MLFLOW_TRACKING_URI" not in found:
        _tell(
            "MLFLOW_TRACKING_URI is not set: the job takes the cluster's; without one its runs are lost with its folder"
        )
    return found


def _tell(text: str) -> None:
    print(f"submit: {text}", file=sys.stderr, flush=True)
