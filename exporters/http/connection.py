"""One connection: aiohttp's protocol, with a deadline for each phase and one whole head at a time.

aiohttp parses heads, runs the handler and writes what it returns. It knows no deadline for a head and no bound for
what is sent behind one, so both are kept here: bytes wait until a head is whole, and the parser gets no second one
before the first is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import StreamReader
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError
from aiohttp.web import Response as WholeResponse
from aiohttp.web import StreamResponse
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_server import Server as Protocols

from gomem.exporters.http.admission import Admission
from gomem.exporters.http.answers import Answers
from gomem.exporters.http.limits import Limits
from gomem.exporters.http.phases import Phase, PhaseTimer
from gomem.exporters.http.places import Client
from gomem.exporters.http.rates import TokenBucket
from gomem.exporters.http.request import MOST_HEAD_BYTES, BadRequest, Request, check_head, refusal_of, request_of
from gomem.exporters.http.response import Response, all_headers, last_words, plain
from gomem.exporters.http.routes import path_class
from gomem.exporters.http.statistics import Statistics

_CHUNK = 128 << 10  # more than what aiohttp lets gather before it waits for the client
_MOST_UNREAD = 256 << 10  # what is read and thrown away so that a refusal arrives
_END_OF_HEAD = b"\r\n\r\n"
_NEVER = 1e8  # seconds: aiohttp closes idle connections by a timer of its own, which knows of no other phase


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all connections of a server share."""

    limits: Limits
    admission: Admission
    statistics: Statistics
    answers: Answers
    settle: Callable[[Connection], bool]  # whether there is a place for it, now that its handshake is over
    forget: Callable[[Connection], None]
    log: Callable[[str], None]


class Connection(RequestHandler):
    """Lives on the loop's thread, from before the TLS handshake on."""

    def __init__(self, protocols: Protocols, around: Surroundings, client: Client) -> None:
        super().__init__(
            protocols, loop=asyncio.get_running_loop(), keepalive_timeout=_NEVER, lingering_time=0, tcp_keepalive=False,
            access_log=None,  # type: ignore[arg-type]  # as aiohttp itself does where none is wanted
            max_line_size=MOST_HEAD_BYTES, max_field_size=MOST_HEAD_BYTES,
        )  # fmt: skip
        self.client = client
        self.answered = 0  # requests
        self.timer = PhaseTimer(around.limits, self._too_late)
        self.greeting: asyncio.Task[None] | None = None
        self._opened = self.timer.since
        self._around = around
        self._pace = TokenBucket(around.limits.requests_burst, around.limits.requests_rate)
        self._held = bytearray()  # what came and was not parsed
        self._busy = False  # with a head that the parser has
        self._ended = False  # the client has no more to say
        self._unread = _MOST_UNREAD
        self._wire: asyncio.Transport | None = None
        self._left: asyncio.Future[None] = self._loop.create_future()

    @property
    def since(self) -> float:
        """When it began to do what it does now."""
        return self.timer.since

    @property
    def asks_nothing(self) -> bool:
        """Whether it waits for its client to say what he wants."""
        return self.timer.asks_nothing

    def overdue(self) -> float:
        """Return how many seconds longer it has held its place than it may where others want one; or less than 0."""
        return self.timer.overdue()

    def hang_up(self) -> None:
        """Close it without another word, whatever it is doing."""
        self.timer.enter(Phase.CLOSING)
        if self._wire is not None:
            self._wire.abort()
        elif self.greeting is not None:
            self.greeting.cancel()

    def _too_late(self) -> None:
        if self.timer.phase is Phase.READING:
            self._refuse(BadRequest(408, "the request came too slowly"))
        elif self.timer.phase is Phase.LEAVING:
            self._leave()
        else:
            if self.timer.phase is Phase.WRITING:
                self._around.statistics.refuse("slow")
            self.hang_up()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless the names in the client's certificate are not let in."""
        assert isinstance(transport, asyncio.Transport)
        certificate = transport.get_extra_info("peercert")
        if transport.get_extra_info("sslcontext") and not self._around.admission.admits(certificate):
            self._around.statistics.refuse("tls")
            transport.abort()
            return
        self.client.authenticated = bool(certificate)
        if not self._around.settle(self):
            transport.write(last_words(plain(503, "too many connections", Retry_After="1"), {}))
            transport.close()
            return
        self._wire = transport
        # drain() then waits until nothing is left; with 0, asyncio's TLS takes an empty buffer for a full one.
        transport.set_write_buffer_limits(1)
        super().connection_made(transport)
        self.timer.enter(Phase.READING)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        if exc is not None and self.timer.phase in (Phase.READING, Phase.IDLE):
            self._around.statistics.refuse("connection")
        self.timer.end()
        self._leave()
        super().connection_lost(exc)
        self._around.forget(self)

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio's own protocols
        """Answer those who have no more to say, too, except in TLS, where asyncio does not let us."""
        self._ended = True
        if self.timer.phase is Phase.LEAVING:
            self._leave()
        elif self.timer.phase is Phase.READING and self._held and not self._busy:
            self._around.statistics.refuse("connection")
        secure = self._wire is None or self._wire.get_extra_info("sslcontext") is not None
        return self._busy and not secure

    def data_received(self, data: bytes) -> None:
        """Keep what comes until a head is whole."""
        if self.timer.phase is Phase.LEAVING:
            self._unread -= len(data)
            if self._unread <= 0:
                self._leave()
            return
        self._held += data
        if not self._busy:
            self._next()
        elif len(self._held) > _CHUNK and self.transport is not None:
            self.transport.pause_reading()

    def _next(self) -> None:
        """Give the parser one whole head, if there is one. What is behind it waits."""
        if self._held and self.timer.phase is Phase.IDLE:
            self.timer.enter(Phase.READING)
        end = self._held.find(_END_OF_HEAD, 0, MOST_HEAD_BYTES)
        if end < 0:
            if len(self._held) >= MOST_HEAD_BYTES:
                self._refuse(BadRequest(431, "the request's head is too large"))
            elif self._ended:
                self.hang_up()
            return
        head = bytes(self._held[: end + len(_END_OF_HEAD)])
        del self._held[: len(head)]
        try:
            check_head(head)
        except BadRequest as refused:
            self._refuse(refused)
            return
        # The deadline goes on until the handler begins: the parser may have swallowed the head.
        self._busy = True
        super().data_received(head)

    def _resume(self) -> None:
        """Go on with the next head, some time after the one before was answered."""
        if self.transport is None or self.timer.phase is not Phase.IDLE:
            return
        self._pace.spend(self._around.answers.price())
        self._busy = False
        self.transport.resume_reading()
        self._next()

    def _refuse(self, refused: BadRequest) -> None:
        self._around.statistics.refuse("slow" if refused.status == 408 else "malformed")
        if self.transport is None:
            return
        self.transport.write(last_words(plain(refused.status, refused.why), self._around.admission.headers()))
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Throw away what a client still sends, within bounds: a reset would take our answer with it."""
        self.timer.enter(Phase.LEAVING)
        if self.transport is not None:
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.transport.resume_reading()
        if self._ended:
            self._leave()

    def _leave(self) -> None:
        if self.timer.phase is Phase.LEAVING:
            self.timer.enter(Phase.CLOSING)
            self.force_close()
        if not self._left.done():
            self._left.set_result(None)

    # What aiohttp calls

    async def respond(self, asked: BaseRequest) -> StreamResponse:
        """Answer one request; the response that is returned was sent already."""
        around, began = self._around, time.monotonic()
        self.timer.enter(Phase.ANSWERING)
        around.statistics.request_began()
        try:
            assert isinstance(asked, Asked)
            request = request_of(asked.message)
            response = await around.answers.answer(request, self.client)
            keep_alive = self._may_continue(request)
            held = response.body
            if not around.answers.outgoing.take(held):
                around.statistics.refuse("bytes")
                held, response = b"", plain(503, "too many answers are waiting for their readers", Retry_After="5")
            self.timer.enter(Phase.WRITING)
            try:
                sent = await self._send(asked, response, keep_alive)
            finally:
                around.answers.outgoing.release(held)
        except BadRequest as refused:
            around.statistics.refuse("malformed")
            return self._last(plain(refused.status, refused.why))
        except ConnectionError:
            if self.timer.phase is Phase.WRITING:
                around.statistics.refuse("connection")
            raise
        finally:
            around.statistics.request_ended()
        around.statistics.answered(path_class(request.path), response.status, time.monotonic() - began)
        self.answered += 1
        if keep_alive:
            self.timer.enter(Phase.IDLE)
            # Who asks faster than any scraper does is answered more slowly: a refusal would cost as much.
            self._loop.call_later(self._pace.seconds_to_next(), self._resume)
        elif request.has_body:
            self._say_goodbye()
            await asyncio.shield(self._left)
        return sent

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> StreamResponse:
        """Say what the parser has against a head, or that something went wrong on our side."""
        if isinstance(exc, BadHttpMethod):
            self._around.statistics.answered("other", 405, 0.0)
            return self._last(plain(405, "only GET and HEAD", Allow="GET, HEAD"))
        if isinstance(exc, HttpProcessingError):
            self._around.statistics.refuse("malformed")
            refused = refusal_of(exc)
            return self._last(plain(refused.status, refused.why))
        self._around.log(f"a connection ended: {type(exc).__name__}: {exc}")
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer is half sent")
        return self._last(plain(500, "this went wrong on our side"))

    def log_exception(self, *args: object, **kw: object) -> None:
        """Tell whoever runs this, in a line."""
        error = kw.get("exc_info")
        self._around.log(f"a connection ended: {type(error).__name__}: {error}")

    def _may_continue(self, request: Request) -> bool:
        too_old = time.monotonic() - self._opened > self._around.limits.connection_seconds
        return request.keep_alive and not request.has_body and not too_old and not (self._ended and not self._held)

    async def _send(self, asked: BaseRequest, response: Response, keep_alive: bool) -> StreamResponse:
        """Write in pieces that wait for the client, so that a slow one holds no copy of its own."""
        headers = all_headers(response, keep_alive, self._around.admission.headers())
        body = memoryview(response.body)
        # Of a small one head and body go out as one piece.
        if len(body) <= _CHUNK:
            sent: StreamResponse = WholeResponse(body=response.body, status=response.status, headers=headers)
            body = body[:0]
        else:
            sent = StreamResponse(status=response.status, headers=headers)
        if not keep_alive:
            sent.force_close()
        await sent.prepare(asked)
        for start in range(0, len(body) if asked.method != "HEAD" else 0, _CHUNK):
            await sent.write(body[start : start + _CHUNK])
        await sent.write_eof()
        await asked.writer.drain()
        if self.transport is None:
            raise ConnectionResetError("the client is gone")
        return sent

    def _last(self, response: Response) -> StreamResponse:
        return _LastWords(self, response, all_headers(response, False, self._around.admission.headers()))


class _LastWords(WholeResponse):
    """A response behind which the connection is closed, when the client had time to read it."""

    def __init__(self, connection: Connection, response: Response, headers: dict[str, str]) -> None:
        super().__init__(body=response.body, status=response.status, headers=headers)
        self.force_close()
        self._connection = connection

    async def write_eof(self, data: bytes = b"") -> None:
        """Send it, and wait."""
        await super().write_eof(data)
        self._connection._say_goodbye()
        await asyncio.shield(self._connection._left)


class Asked(BaseRequest):
    """aiohttp's request, which is answered in HTTP/1.1 whatever it was asked in (RFC 9110, 2.5)."""

    @property
    def message(self) -> RawRequestMessage:
        """What the parser has understood."""
        return self._message


def asked(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> Asked:
    """Return the request for a head; aiohttp's Server is given this as its request_factory."""
    loop = asyncio.get_running_loop()
    return Asked(message._replace(version=HttpVersion11), payload, protocol, writer, task, loop)
