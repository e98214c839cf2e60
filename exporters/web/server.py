"""The HTTP server of `gomem serve`: small, read only, and bounded in everything that a client could use up.

One thread runs an asyncio loop that holds all connections; a few more make the answers. asyncio is in the process
anyway (pyroute2 is built on it), so this costs no memory that is not spent already, and unlike a thread for each
connection (http.server) it can put one deadline on a whole request, however slowly its bytes drip, do TLS handshakes
beside each other with a deadline of their own, and drop the slowest client when there is no room for the next.

A connection can take: a slot of `Limits.connections`, 16 KB of head, and the seconds that Limits gives each phase. It
is answered one request after the other; what is sent behind a request waits. Bodies of requests are never read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor

from exporters.web.addresses import Address, close_listeners, is_local, open_listeners
from exporters.web.connection import Connection, Limits, Phase
from exporters.web.guard import Guard
from exporters.web.outgoing import Outgoing
from exporters.web.rates import PeerBuckets, network_of
from exporters.web.response import Response, head_bytes, plain
from exporters.web.routes import Metrics, Routes
from exporters.web.statistics import Statistics, WebStatistics
from exporters.web.webconfig import WebConfig
from tracer.errors import GomemError
from tracer.fleet.view import FleetView

_SECONDS_TO_START = 60.0
_SECONDS_AFTER_FAILED_ACCEPT = 0.2
_MOST_LINGERING = 32
_SECONDS_LINGERING = 1.0

Log = Callable[[str], None]


class Server:
    """Serves metrics, health, pages and reports of the newest view. Use bind(), start() and stop(), or `with`.

    `metrics` takes an Accept header and returns (body, content type); it is called on several threads. `log` is told,
    rarely, what the person who runs this should know, from any thread.
    """

    def __init__(
        self,
        listen: Sequence[Address],
        view: Callable[[], FleetView | None],
        metrics: Metrics,
        web_config: WebConfig | None = None,
        allow_reports: bool = False,
        *,
        limits: Limits | None = None,
        log: Log = lambda message: None,
    ) -> None:
        self._listen = tuple(listen)
        self._limits = limits or Limits()
        self._log = log
        self._statistics = Statistics()
        self._routes = Routes(view, metrics, allow_reports)
        self._guard = Guard(web_config, self._routes, self._statistics, log)
        self._listeners: list[socket.socket] = []
        self._newcomers = PeerBuckets(self._limits.accepts_burst, self._limits.accepts_rate)
        self._outgoing = Outgoing(self._limits.waiting_bytes)
        self._connections: set[Connection] = set()
        self._lingering: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._workers = ThreadPoolExecutor(self._limits.workers, "gomem-web")

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return where it listens, with the ports that the system chose: `http://127.0.0.1:9469`, `unix:/path`."""
        return tuple(_url(listener, self._guard.encrypted) for listener in self._listeners)

    def statistics(self) -> WebStatistics:
        """Return what the server counted so far. Safe from any thread."""
        return self._statistics.read()

    def bind(self) -> None:
        """Take the addresses, and start no thread yet: what follows can still give up privileges for all of us.

        Raises ListenError, or WebConfigError for a broken certificate.
        """
        self._guard.check()
        self._listeners = open_listeners(self._listen)

    def start(self) -> None:
        """Serve, on threads of its own; binds first if that was not done. Raises as `bind` does."""
        if not self._listeners:
            self.bind()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="gomem-web", daemon=True)
        self._thread.start()
        if not started.wait(_SECONDS_TO_START) or self._stopping is None:
            raise GomemError("the web server's thread did not start", "its cause was told before")

    def stop(self, seconds: float = 5.0) -> None:
        """Close all sockets. Answers on their way get a moment; idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join(seconds)
        close_listeners(self._listeners)
        self._listeners = []
        self._workers.shutdown(wait=False, cancel_futures=True)

    # On the loop's thread from here on

    def _run(self, started: threading.Event) -> None:
        try:
            asyncio.run(self._serve(started))
        except Exception as error:  # whatever it is, people should hear that nobody answers any more
            self._log(f"the web server ended: {type(error).__name__}: {error}")
        finally:
            started.set()

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda loop, context: self._statistics.refuse("connection"))
        self._stopping = asyncio.Event()
        accepting = [asyncio.create_task(self._accept(listener)) for listener in self._listeners]
        started.set()
        await self._stopping.wait()
        await _cancel(accepting)
        for connection in list(self._connections):
            if connection.phase not in (Phase.ANSWERING, Phase.WRITING):
                connection.cancel()
        running = [connection.task for connection in self._connections if connection.task is not None]
        if running:
            await asyncio.wait(running, timeout=self._limits.stop_seconds)
        await _cancel([*running, *self._lingering])

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        local = is_local(listener)
        while True:
            try:
                accepted, peer = await loop.sock_accept(listener)
            except OSError:
                # Out of file descriptors, mostly; the connection waits in the kernel's queue.
                self._statistics.refuse("accept")
                await asyncio.sleep(_SECONDS_AFTER_FAILED_ACCEPT)
                continue
            accepted.setblocking(False)
            self._admit(accepted, _client(peer), local)
            await asyncio.sleep(0)  # a flood of connections is accepted without ever letting others run, otherwise

    def _admit(self, accepted: socket.socket, peer: str, local: bool) -> None:
        """Take a connection on, in the place of one that only waits if need be; or refuse it."""
        if not self._newcomers.of(peer).take():
            self._statistics.refuse("connection_rate")
            accepted.close()
            return
        same = sum(1 for connection in self._connections if connection.peer == peer)
        full = len(self._connections) >= self._limits.connections
        if full or same >= self._limits.connections_per_peer:
            victim = self._longest_waiting(None if full else peer)
            if victim is None:
                self._refuse(accepted)
                return
            self._statistics.refuse("evicted")
            self._drop(victim)
        if accepted.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(
            accepted, peer, local, self._limits, self._guard, self._statistics, self._outgoing
        )
        self._connections.add(connection)
        self._statistics.connection_opened()
        connection.task = asyncio.create_task(self._attend(connection))

    def _longest_waiting(self, peer: str | None) -> Connection | None:
        """Return the connection (of `peer`, or of all) that has done nothing for longest, if that is long."""
        waiting = [
            connection
            for connection in self._connections
            if connection.overdue() > 0 and peer in (None, connection.peer)
        ]
        return max(waiting, key=lambda connection: connection.overdue(), default=None)

    def _drop(self, connection: Connection) -> None:
        self._forget(connection)
        connection.cancel()

    def _forget(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._statistics.connection_closed()

    async def _attend(self, connection: Connection) -> None:
        try:
            await connection.serve(self._answer)
        except Exception as error:  # a bug of ours costs this connection, not the server
            self._log(f"a connection ended: {type(error).__name__}: {error}")
        finally:
            connection.abort()
            self._forget(connection)

    async def _answer(self, connection: Connection) -> Response:
        """Have a worker answer the connection's request; probes of health need none."""
        request = connection.request
        assert request is not None
        quick = self._guard.quick_answer(request)
        if quick is not None:
            return quick
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._workers, self._guard.answer, request, connection.peer, connection.local)
        try:
            async with asyncio.timeout(self._limits.answer_seconds):
                return await work
        except TimeoutError:
            return plain(503, "the answer took too long", Retry_After="5")

    def _refuse(self, accepted: socket.socket) -> None:
        """Say 503 if that can be said at once (not where TLS would have to be spoken first), and hang up."""
        self._statistics.refuse("connections")
        if self._guard.encrypted or len(self._lingering) >= _MOST_LINGERING:
            accepted.close()
            return
        response = plain(503, "too many connections", Retry_After="1")
        with contextlib.suppress(OSError):
            accepted.send(head_bytes(response, False, {}) + response.body)
            accepted.shutdown(socket.SHUT_WR)
        self._keep(_linger(accepted))

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)


async def _linger(refused: socket.socket) -> None:
    """Read what the client still sends: closing with unread bytes would make the kernel reset, and lose our words."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_SECONDS_LINGERING):
            while await loop.sock_recv(refused, 4096):
                pass
    refused.close()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _client(peer: object) -> str:
    """Return what stands for one client in all that is counted by client."""
    return network_of(str(peer[0])) if isinstance(peer, tuple) and peer else ""


def _url(listener: socket.socket, encrypted: bool) -> str:
    where = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{where}"
    host = f"[{where[0]}]" if ":" in where[0] else where[0]
    return f"{'https' if encrypted else 'http'}://{host}:{where[1]}"
