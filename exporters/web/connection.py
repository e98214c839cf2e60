"""One connection: TLS, then requests one after the other, each phase with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from exporters.web.guard import Guard
from exporters.web.outgoing import Outgoing
from exporters.web.rates import TokenBucket
from exporters.web.request import MOST_HEAD_BYTES, BadRequest, Request, parse_head
from exporters.web.response import Response, head_bytes, plain
from exporters.web.routes import path_class
from exporters.web.statistics import Statistics

_CHUNK = 64 << 10
_SECONDS_OF_UNREAD = 1.0
_MOST_UNREAD = 256 << 10  # what is read and thrown away so that a refusal arrives


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the server clients can use."""

    connections: int = 64
    connections_per_peer: int = 32  # of one IP address
    workers: int = 4  # threads that make answers
    handshake_seconds: float = 5.0
    head_seconds: float = 5.0  # from the first moment of a connection, or first byte of a later request, to its end
    idle_seconds: float = 75.0  # between requests; Prometheus scrapes every 15 to 60 s
    answer_seconds: float = 30.0  # to make an answer
    write_seconds: float = 30.0  # until the client has read it
    connection_seconds: float = 600.0  # then it has to shake hands again, with today's certificates
    requests_burst: float = 20.0  # of one connection
    requests_rate: float = 20.0  # a second, beyond these
    accepts_burst: float = 256.0  # new connections of one IP address
    accepts_rate: float = 50.0  # a second, beyond these; others are closed without a word
    eviction_seconds: float = 1.0  # who has asked for nothing for longer makes room when there is none
    eviction_writing_seconds: float = 5.0  # so does who has not read his answer by then
    stop_seconds: float = 2.0
    waiting_bytes: int = 64 << 20  # of different responses that clients are reading


class Phase(Enum):
    """What a connection is doing."""

    GREETING = 1  # the TLS handshake
    READING = 2  # a request's head
    IDLE = 3  # between requests
    ANSWERING = 4
    WRITING = 5  # waiting for the client to read


class Connection:
    """An accepted socket and what is said over it. Lives on the loop's thread."""

    def __init__(
        self,
        accepted: socket.socket,
        peer: str,
        local: bool,
        limits: Limits,
        guard: Guard,
        statistics: Statistics,
        outgoing: Outgoing,
    ) -> None:
        self.peer = peer
        self.local = local  # to a socket that only this machine can reach
        self.phase = Phase.GREETING
        self.since = time.monotonic()  # when the phase began
        self.request: Request | None = None
        self.task: asyncio.Task[None] | None = None
        self._opened = self.since
        self._socket = accepted
        self._limits = limits
        self._guard = guard
        self._statistics = statistics
        self._outgoing = outgoing
        self._pace = TokenBucket(limits.requests_burst, limits.requests_rate)
        self._transport: asyncio.Transport | None = None
        self._reader = asyncio.StreamReader(MOST_HEAD_BYTES)
        self._protocol = asyncio.StreamReaderProtocol(self._reader)
        self._writer: asyncio.StreamWriter | None = None

    def cancel(self) -> None:
        """End it, whatever it is doing."""
        if self.task is not None:
            self.task.cancel()

    def abort(self) -> None:
        """Close the socket without another word. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        else:
            # Behind what asyncio has in its queue for this descriptor: the number may be another connection's next.
            asyncio.get_running_loop().call_soon(self._socket.close)

    def overdue(self) -> float:
        """Return how many seconds longer it has held its place than it may where others want one; or less than 0."""
        patience = {
            Phase.ANSWERING: math.inf,  # this takes as long as we take
            Phase.WRITING: self._limits.eviction_writing_seconds,
        }.get(self.phase, self._limits.eviction_seconds)
        return time.monotonic() - self.since - patience

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since = time.monotonic()

    async def serve(self, answer: Callable[[Connection], Awaitable[Response]]) -> None:
        """Do it all. Expected ends (slow, rude or departed clients) are counted; none raises."""
        try:
            await self._greet()
            while await self._serve_one(answer):
                # Who asks faster than any scraper does is answered more slowly: a refusal would cost as much.
                await asyncio.sleep(self._pace.seconds_to_next())
                self._pace.take()
            await self._close()
        except _NoHandshake:
            self._statistics.refuse("tls")
        except TimeoutError:  # an OSError, too
            self._statistics.refuse("slow")
        except (OSError, asyncio.IncompleteReadError):
            self._statistics.refuse("connection")

    async def _greet(self) -> None:
        loop = asyncio.get_running_loop()
        context = self._guard.tls_context()
        secure = context is not None
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                transport, _ = await loop.connect_accepted_socket(
                    lambda: self._protocol,
                    self._socket,
                    ssl=context,
                    ssl_handshake_timeout=self._limits.handshake_seconds if secure else None,
                    ssl_shutdown_timeout=self._limits.write_seconds if secure else None,
                )
        except (OSError, ssl.SSLError, TimeoutError):
            if not secure:
                raise
            raise _NoHandshake from None
        self._transport = transport
        # drain() then waits until nothing is left; with 0, asyncio's TLS takes an empty buffer for a full one.
        transport.set_write_buffer_limits(1)
        self._writer = asyncio.StreamWriter(transport, self._protocol, self._reader, loop)
        if secure and not self._guard.admits(transport.get_extra_info("peercert")):
            raise _NoHandshake
        self._enter(Phase.READING)

    async def _serve_one(self, answer: Callable[[Connection], Awaitable[Response]]) -> bool:
        """Answer the next request; return whether another one may follow."""
        self.request = None
        try:
            raw = await self._read_head()
            if not raw:
                return False
            self.request = parse_head(raw)
        except BadRequest as refused:
            self._statistics.refuse("slow" if refused.status == 408 else "malformed")
            await self._send(plain(refused.status, refused.why), keep_alive=False)
            await self._drain_input()
            return False
        began = time.monotonic()
        self._enter(Phase.ANSWERING)
        self._statistics.request_began()
        try:
            response = await answer(self)
            keep_alive = self._may_continue(self.request)
            held = response.body
            if not self._outgoing.take(held):
                self._statistics.refuse("bytes")
                held, response = b"", plain(503, "too many answers are waiting for their readers", Retry_After="5")
            self._enter(Phase.WRITING)
            try:
                await self._send(response, keep_alive)
            finally:
                self._outgoing.release(held)
        finally:
            self._statistics.request_ended()
        self._statistics.answered(path_class(self.request.path), response.status, time.monotonic() - began)
        if self.request.has_body:
            await self._drain_input()
        self._enter(Phase.IDLE)
        return keep_alive

    def _may_continue(self, request: Request) -> bool:
        too_old = time.monotonic() - self._opened > self._limits.connection_seconds
        return request.keep_alive and not request.has_body and not too_old

    async def _read_head(self) -> bytes:
        """Return a head with its empty line; b"" where the client had nothing more to ask."""
        first = b""
        try:
            if self.phase is Phase.IDLE:
                async with asyncio.timeout(self._limits.idle_seconds):
                    first = await self._reader.read(1)
                if not first:
                    return b""
                self._enter(Phase.READING)
            async with asyncio.timeout(self._limits.head_seconds):
                return first + await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise BadRequest(431, "the request's head is too large") from None
        except asyncio.IncompleteReadError as ended:
            if first + ended.partial:
                raise
            return b""
        except TimeoutError:
            if self.phase is Phase.IDLE:
                return b""
            raise BadRequest(408, "the request came too slowly") from None

    async def _send(self, response: Response, keep_alive: bool) -> None:
        """Write in pieces that wait for the client, so that a slow one holds no copy of its own."""
        assert self._writer is not None
        head = head_bytes(response, keep_alive, self._guard.headers())
        body = memoryview(response.body)
        if self.request is not None and self.request.method == "HEAD":
            body = body[:0]
        async with asyncio.timeout(self._limits.write_seconds):
            self._writer.write(head + body[:_CHUNK])
            for start in range(_CHUNK, len(body), _CHUNK):
                await self._writer.drain()
                self._writer.write(body[start : start + _CHUNK])
            await self._writer.drain()

    async def _drain_input(self) -> None:
        """Throw away what a refused client still sends, within bounds: a reset would take our answer with it."""
        assert self._transport is not None
        with contextlib.suppress(OSError, TimeoutError, ssl.SSLError):
            if self._transport.can_write_eof():
                self._transport.write_eof()
            left = _MOST_UNREAD
            async with asyncio.timeout(_SECONDS_OF_UNREAD):
                while left > 0:
                    piece = await self._reader.read(_CHUNK)
                    if not piece:
                        break
                    left -= len(piece)

    async def _close(self) -> None:
        """Send what is left; of TLS the last piece lies in a buffer that drain() knows nothing of."""
        assert self._writer is not None
        self._enter(Phase.IDLE)
        self._writer.close()
        async with asyncio.timeout(self._limits.write_seconds):
            await self._writer.wait_closed()


class _NoHandshake(OSError):
    """TLS was not spoken, or not with a certificate that is asked for."""
