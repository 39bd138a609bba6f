"""How S3 is asked: how long, how often, and what is told when it must be asked again.

botocore sends a request again that got no answer or an error. An answer that began and broke off, or is not what the
server sent, is nobody's: not botocore's, not s3fs's where it lists. `PatientS3` asks again for those.
"""

import socket
import time
from collections.abc import Callable
from typing import Any

from aiobotocore.session import AioSession
from aiohttp import ClientPayloadError
from botocore.exceptions import FlexibleChecksumError, IncompleteReadError, ResponseStreamingError
from fsspec.asyn import sync
from s3fs import S3FileSystem
from s3fs.core import S3File

from stylejobs.storage import trouble

_SILENCE_SECONDS = 15


def _socket(address: tuple) -> socket.socket:
    """A socket that the kernel gives up when the other side takes nothing for a while: aiohttp does not time that."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _SILENCE_SECONDS)
    return made


# A request is sent up to ten times, within about a minute, more slowly where the server throttles; one that is never
# answered, within four, one whose body is never taken, within six. s3fs would multiply that by rounds of its own.
OPTIONS = {
    "config_kwargs": {
        "retries": {"mode": "adaptive", "total_max_attempts": 10},
        "connect_timeout": 10,
        "read_timeout": _SILENCE_SECONDS,
        "max_pool_connections": 32,
        "connector_args": {"socket_factory": _socket},
    },
    "use_listings_cache": False,
}
_TRIES = 6
_PAUSE_SECONDS = 0.2
_BROKEN = (ClientPayloadError, FlexibleChecksumError, IncompleteReadError, ResponseStreamingError)


def _patiently(ask: Callable[[], Any]) -> Any:
    for left in reversed(range(_TRIES)):
        try:
            return ask()
        except _BROKEN:
            if not left:
                raise
            trouble.tell("retry", "broken answer")
            time.sleep(_PAUSE_SECONDS * 2 ** (_TRIES - 1 - left))
    raise AssertionError("the last try returns or raises")


def _patient(name: str) -> Callable[..., Any]:
    def method(self: S3FileSystem, *args: Any, **kwargs: Any) -> Any:
        return _patiently(lambda: sync(self.loop, getattr(self, f"_{name}"), *args, **kwargs))

    return method


class PatientS3(S3FileSystem):
    """S3 whose answers are whole, or asked for again; all of these may be done twice."""

    retries = 1
    cat_file, pipe_file, rm_file = (_patient(name) for name in ("cat_file", "pipe_file", "rm_file"))
    exists, info, isdir, find, ls = (_patient(name) for name in ("exists", "info", "isdir", "find", "ls"))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> S3File:
        file = super()._open(path, mode, **kwargs)
        if mode == "rb":  # one that is written has no cache
            fetch = file.cache.fetcher
            file.cache.fetcher = lambda *span: _patiently(lambda: fetch(*span))
        return file


def open_s3() -> PatientS3:
    """The file system of `s3://`, as the environment leads to it."""
    session = AioSession()
    session.register("needs-retry.s3", _tell_retry)
    session.get_component("event_emitter").register_last("before-call.s3", _ask_no_leave)
    return PatientS3(session=session, **OPTIONS)


def _ask_no_leave(params: dict[str, Any], **rest: object) -> None:
    """Sends a body without asking the server first: aiohttp would wait for its leave for ever."""
    params["headers"].pop("Expect", None)


def _tell_retry(attempts: int, operation: Any, **rest: object) -> None:
    if attempts > 1:
        trouble.tell("retry", operation.name)
