"""Stands between S3 clients and an S3 server, and does to chosen requests what networks and servers do.

Bytes are forwarded as they come, the Host header among them, so that a signature made for the proxy's address holds.
"""

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

_PIECE_BYTES = 2**16
_END = b"\r\n\r\n"


@dataclass
class Fault:
    """What happens to requests that match; to the others nothing does.

    Attributes:
        method, path, query: regular expressions, each found somewhere in its part of the request.
        skip, times: how many matching requests are left alone first, and to how many it happens then.
        share: of the matching ones, by chance (seeded).
        status, code: an S3 error is answered, and the request never forwarded.
        after_write: with `status`: the request is forwarded first, so that the error is a lie.
        reset: "request": the connection is reset before an answer; "head": after its head.
        reset_at, truncate_at, corrupt_at: in the answer's body, after so many bytes: a reset, an early orderly end, one
            flipped byte.
        reset_upload_at: a reset after so many bytes of the request's body.
        delay_seconds: before anything else.
        bytes_per_second: of the answer's body.
    """

    method: str = ""
    path: str = ""
    query: str = ""
    skip: int = 0
    times: int = 10**9
    share: float = 1.0
    status: int | None = None
    code: str = "InternalError"
    after_write: bool = False
    reset: str | None = None
    reset_at: int | None = None
    truncate_at: int | None = None
    corrupt_at: int | None = None
    reset_upload_at: int | None = None
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    matched: int = 0
    happened: int = 0

    def strikes(self, head: "_Head", rng: Random) -> bool:
        """Whether it happens to this request."""
        parts = ((self.method, head.method), (self.path, head.path), (self.query, head.query))
        if not all(re.search(wanted, found) for wanted, found in parts):
            return False
        self.matched += 1
        if self.matched <= self.skip or self.happened >= self.times or rng.random() >= self.share:
            return False
        self.happened += 1
        return True


@dataclass(frozen=True)
class Seen:
    """A request that came.

    Attributes:
        seconds: on the monotonic clock.
        fault: what happened to it.
    """

    seconds: float
    method: str
    path: str
    query: str
    fault: Fault | None


@dataclass(frozen=True)
class _Head:
    """First line and headers of a message: of a request (method, target), or of an answer (status)."""

    raw: bytes
    first: list[str]
    headers: dict[str, str]

    @property
    def method(self) -> str:
        return self.first[0]

    @property
    def path(self) -> str:
        return self.first[1].partition("?")[0]

    @property
    def query(self) -> str:
        return self.first[1].partition("?")[2]

    @property
    def status(self) -> int:
        return int(self.first[1])


class FaultProxy:
    """A proxy for one S3 server, in a thread of this process.

    Attributes:
        url: where clients must think the server is.
        faults: the first that strikes a request happens to it; may be changed while requests run.
        seen: all requests so far.
    """

    def __init__(self, server_url: str, seed: int = 0):
        upstream = urlsplit(server_url)
        self._upstream = upstream.hostname, upstream.port
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self._rng = Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def count(self, matches: Callable[[Seen], bool]) -> int:
        return sum(matches(seen) for seen in self.seen)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None
        try:
            goes_on = True
            while goes_on:
                request = await _read_head(reader)
                upstream = upstream or await asyncio.open_connection(*self._upstream, limit=2**20)
                goes_on = await self._exchange(request, reader, writer, upstream)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # either side has gone, or the proxy is closed: so does this connection
        finally:
            writer.close()
            if upstream is not None:
                upstream[1].close()

    async def _exchange(
        self,
        request: _Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> bool:
        """One request and its answer; whether the connection can be used again."""
        struck = next((fault for fault in list(self.faults) if fault.strikes(request, self._rng)), None)
        self.seen.append(Seen(time.monotonic(), request.method, request.path, request.query, struck))
        fault = struck or Fault()
        await asyncio.sleep(fault.delay_seconds)
        if fault.reset == "request":
            return _reset(writer)
        if request.headers.get("expect", "").lower() == "100-continue":
            writer.write(
                b"HTTP/1.1 100 Continue\r\n\r\n"
            )  # else the body does not come; the server's own is passed over
        if fault.status is not None and not fault.after_write:
            await _drop(_body(reader, request))
            return await _answer_error(writer, request, fault)
        upstream[1].write(request.raw)
        sent = 0
        async for piece in _body(reader, request):
            sent += len(piece)
            if fault.reset_upload_at is not None and sent >= fault.reset_upload_at:
                upstream[1].transport.abort()
                return _reset(writer)
            upstream[1].write(piece)
            await upstream[1].drain()
        answer = await _read_head(upstream[0])
        while answer.status == 100:
            answer = await _read_head(upstream[0])
        body = _body(upstream[0], answer, request.method == "HEAD" or answer.status in (204, 304))
        if fault.after_write:
            await _drop(body)
            return await _answer_error(writer, request, fault)
        writer.write(answer.raw)
        await writer.drain()
        if fault.reset == "head":
            return _reset(writer)
        return await _give(body, writer, fault) and answer.headers.get("connection", "").lower() != "close"


async def _give(body: AsyncIterator[bytes], writer: asyncio.StreamWriter, fault: Fault) -> bool:
    """The answer's body, as the fault has it."""
    given = 0
    cut_at = fault.truncate_at if fault.reset_at is None else fault.reset_at
    async for piece in body:
        at = None if fault.corrupt_at is None else fault.corrupt_at - given
        if at is not None and 0 <= at < len(piece):
            piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
        if cut_at is not None and given + len(piece) >= cut_at:
            writer.write(piece[: cut_at - given])
            await writer.drain()
            await asyncio.sleep(0.02)  # what was written must have left before a reset
            return _reset(writer) if fault.reset_at is not None else False
        writer.write(piece)
        await writer.drain()
        given += len(piece)
        if fault.bytes_per_second:
            await asyncio.sleep(len(piece) / fault.bytes_per_second)
    return True


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    raw = await reader.readuntil(_END)
    first, *lines = raw[: -len(_END)].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return _Head(raw, first.split(" ", 2), {name.strip().lower(): value.strip() for name, _, value in pairs})


async def _body(reader: asyncio.StreamReader, head: _Head, absent: bool = False) -> AsyncIterator[bytes]:
    """A message's body as it is framed."""
    if absent:
        return
    if "chunked" in head.headers.get("transfer-encoding", ""):
        size = None
        while size != 0:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            yield line + await reader.readexactly(size + 2)
        return
    left = int(head.headers.get("content-length", 0))
    while left:
        piece = await reader.read(min(left, _PIECE_BYTES))
        if not piece:
            raise ConnectionResetError("gone in the middle of a body")
        left -= len(piece)
        yield piece


async def _drop(body: AsyncIterator[bytes]) -> None:
    async for _ in body:
        continue


async def _answer_error(writer: asyncio.StreamWriter, request: _Head, fault: Fault) -> bool:
    text = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>told to fail</Message></Error>".encode()
    length = f"Content-Type: application/xml\r\nContent-Length: {len(text)}"
    head = f"HTTP/1.1 {fault.status} Told\r\n{length}\r\n\r\n".encode()
    writer.write(head + (b"" if request.method == "HEAD" else text))
    await writer.drain()
    return True


def _reset(writer: asyncio.StreamWriter) -> bool:
    """RST instead of an orderly end."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
