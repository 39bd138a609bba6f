"""The edge of a command: arguments in; exit code, one JSON line on stdout and human text on stderr out."""

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextvars import ContextVar

from stylejobs.config.load import Loaded, format_help, format_show, load_config, split_flags
from stylejobs.engine.results import JobResult
from stylejobs.errors import PartialError, StylejobsError

RESULT_URI = "STYLEJOBS_RESULT_URI"
"""Environment variable that names a file for the result, beside stdout: `submit` reads it there."""

_END: ContextVar[contextlib.ExitStack | None] = ContextVar("end of the running command", default=None)


def at_end(callback: Callable[[], None]) -> bool:
    """Calls back when the running command has written its result; says whether a command is running at all."""
    end = _END.get()
    if end is not None:
        end.callback(callback)
    return end is not None


def run_command(
    verb: str,
    recipe: Callable[..., JobResult],
    argv: Sequence[str] | None = None,
    load: Callable[[str, Sequence[str]], Loaded] = load_config,
) -> int:
    """Runs one verb and returns its exit code.

    `--help` and `--show` print and stop. Everything else ends with the result as the last line on stdout, also when
    it fails; a stack trace appears only with STYLEJOBS_DEBUG=1.

    Args:
        recipe: takes the verb's config, does the work.
        argv: arguments after the verb; None for the command line's.
        load: makes the configuration of the verb and its arguments.
    """
    with contextlib.ExitStack() as end:
        token = _END.set(end)
        try:
            return _run(verb, recipe, argv, load)
        finally:
            _END.reset(token)


def _run(
    verb: str,
    recipe: Callable[..., JobResult],
    argv: Sequence[str] | None,
    load: Callable[[str, Sequence[str]], Loaded],
) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    started = time.monotonic()
    _stop_on_sigterm()
    try:
        flags, rest = split_flags(arguments)
        if "--help" in flags:
            print(format_help(verb))
            return 0
        loaded = load(verb, rest)
        if "--show" in flags:
            print(format_show(loaded))
            return 0
        result = recipe(loaded.config)
    except (Exception, KeyboardInterrupt) as error:
        result = failure(verb, error)
    result = result.with_(
        seconds=round(time.monotonic() - started, 3), message=result.message and _for_logs(result.message)
    )
    resume = shlex.join(["python", "-m", f"pipelines.{verb}", *_with_resume(arguments, result.resume_with)])
    if result.record_uri:
        result = _keep(_resumable(result, resume))
    result = _leave(_resumable(result, resume))
    if result.message:
        print(result.message, file=sys.stderr, flush=True)
    if result.resume_command and result.exit_code != 4:
        print(f"go on with: {resume}", file=sys.stderr, flush=True)
    print(json.dumps(result.as_dict()), flush=True)
    return result.exit_code


def _with_resume(arguments: Sequence[str], resume_with: str | None) -> list[str]:
    """The arguments of the command that goes on from a checkpoint."""
    if resume_with is None:
        return list(arguments)
    return [*(text for text in arguments if not text.startswith("resume=")), resume_with]


def _resumable(result: JobResult, command: str) -> JobResult:
    """Only a job that has taken a `dest`, or left a checkpoint, can go on, and only when what stopped it may pass."""
    kept = result.record_uri is not None and result.exit_code in (3, 4, 6)
    can_resume = kept or result.resume_with is not None or result.goes_on
    return result.with_(resume_command=command if can_resume else None)


def _keep(result: JobResult) -> JobResult:
    """Writes the result into the dataset, then its proof; a dataset that cannot take them is an error of its own."""
    from stylejobs.storage.units import write_result, write_success

    try:
        write_result(result.record_uri, result.as_dict())
    except StylejobsError as error:
        return spoilt(result, error)
    try:
        if result.proof:
            write_success(result.record_uri, result.proof)
    except StylejobsError as error:
        result = spoilt(result, error)
        with contextlib.suppress(StylejobsError):  # the place has just failed; what matters is what we return
            write_result(result.record_uri, result.as_dict())
    return result


def _leave(result: JobResult) -> JobResult:
    """Writes the result where `submit` will look for it, if it sent this command."""
    from stylejobs.storage import locations

    place = os.environ.get(RESULT_URI)
    if not place:
        return result
    try:
        locations.write_atomic(place, json.dumps(result.as_dict()).encode())
    except StylejobsError as error:
        return spoilt(result, error)
    return result


def spoilt(result: JobResult, error: StylejobsError) -> JobResult:
    """The result of a command that did its work and failed at something after it."""
    message = "\n".join(filter(None, [result.message, f"{result.verb}: {error}"]))
    return result.with_(message=message, exit_code=result.exit_code or error.exit_code)


def _for_logs(text: str) -> str:
    """A text for terminals and CI logs: without secrets, which errors of other libraries may quote, and without control
    characters, which names from data may hold and terminals obey."""
    from stylejobs.report.wording import to_printable
    from stylejobs.tracking.client import redact

    return str(to_printable(redact(text)))


def failure(verb: str, error: BaseException) -> JobResult:
    """The result of a command that ended with an exception."""
    if os.environ.get("STYLEJOBS_DEBUG") == "1":
        print(_for_logs("".join(traceback.format_exception(error))), file=sys.stderr, flush=True)
    if isinstance(error, KeyboardInterrupt):
        error = PartialError("stopped before the end")
    resume_with = getattr(error, "resume_with", None)
    if isinstance(error, StylejobsError):
        return JobResult(verb, exit_code=error.exit_code, message=f"{verb}: {error}", resume_with=resume_with)
    detail = f"{type(error).__name__}: {error}"
    message = f"{verb}: internal error: {detail} (STYLEJOBS_DEBUG=1 shows where it came from)"
    return JobResult(verb, exit_code=1, message=message, resume_with=resume_with)


def _stop_on_sigterm() -> None:
    """SIGTERM, which schedulers send, stops as cleanly as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        signal.signal(signal.SIGTERM, stop)
