"""Takes connections on, before TLS and before aiohttp hears of them: aiohttp would take on everybody.

Each gets a place, in the place of one that only waits if need be, and keeps it until it is over; or it is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine, Sequence

from aiohttp.web import BaseRequest, StreamResponse
from aiohttp.web_server import Server as Protocols

from gomem.exporters.http.addresses import is_local
from gomem.exporters.http.admission import Admission
from gomem.exporters.http.answers import Answers
from gomem.exporters.http.connection import Connection, Surroundings, asked
from gomem.exporters.http.limits import Limits
from gomem.exporters.http.phases import Phase
from gomem.exporters.http.places import Client, NoPlace, Places
from gomem.exporters.http.rates import network_of
from gomem.exporters.http.response import last_words, plain
from gomem.exporters.http.statistics import Statistics

_SECONDS_AFTER_FAILED_ACCEPT = 0.2
_MOST_LINGERING = 32
_SECONDS_LINGERING = 1.0
_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: pid, uid, gid (unix(7))


class Acceptor:
    """Has all connections that are open. Lives on the loop's thread, and is made there."""

    def __init__(
        self, limits: Limits, admission: Admission, statistics: Statistics, answers: Answers, log: Callable[[str], None]
    ) -> None:
        self._admission = admission
        self._limits = limits
        self._statistics = statistics
        self._around = Surroundings(limits, admission, statistics, answers, self._settle, self._forget, log)
        self._places: Places[Connection] = Places(limits, admission.authenticates)
        self._protocols = Protocols(_respond, request_factory=asked)
        self._lingering: set[asyncio.Task[None]] = set()
        self._all_gone = asyncio.Event()

    async def accept(self, listener: socket.socket) -> None:
        """Take on, for ever, who connects to a listener."""
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
            self._admit(accepted, Client(_peer(accepted, peer), local))
            await asyncio.sleep(0)  # a flood of connections is accepted without ever letting others run, otherwise

    async def hang_up(self) -> None:
        """End all connections. Answers on their way get a moment."""
        for connection in [*self._places.taken, *self._places.greeting]:
            if connection.timer.phase not in (Phase.ANSWERING, Phase.WRITING):
                connection.hang_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.stop_seconds):
                while len(self._places):
                    self._all_gone.clear()
                    await self._all_gone.wait()
        for connection in [*self._places.taken, *self._places.greeting]:
            connection.hang_up()
        await cancel(list(self._lingering))

    def _admit(self, accepted: socket.socket, client: Client) -> None:
        """Take a connection on, in the place of one that only waits if need be; or refuse it."""
        encrypted = self._admission.encrypted
        try:
            self._places.count_newcomer(client.peer)
            victim = self._places.end_a_greeting() if encrypted else self._places.make_room(client)
        except NoPlace as refused:
            self._statistics.refuse(refused.reason)
            if refused.reason == "connection_rate":
                accepted.close()
            else:
                self._refuse(accepted)
            return
        self._evict(victim)
        connection = Connection(self._protocols, self._around, client)
        (self._places.greeting if encrypted else self._places.taken).add(connection)
        self._statistics.connection_opened()
        connection.greeting = asyncio.create_task(self._greet(connection, accepted))

    def _settle(self, connection: Connection) -> bool:
        """Give a connection whose handshake is over a place; tell whether there is one."""
        if connection not in self._places.greeting:
            return connection in self._places.taken
        try:
            victim = self._places.make_room(connection.client)
        except NoPlace as refused:
            self._statistics.refuse(refused.reason)
            return False
        self._evict(victim)
        self._places.greeting.discard(connection)
        self._places.taken.add(connection)
        return True

    def _evict(self, victim: Connection | None) -> None:
        if victim is not None:
            self._statistics.refuse("evicted")
            self._forget(victim)
            victim.hang_up()

    def _forget(self, connection: Connection) -> None:
        there = connection in self._places.taken or connection in self._places.greeting
        self._places.taken.discard(connection)
        self._places.greeting.discard(connection)
        if there:
            self._statistics.connection_closed()
            if not len(self._places):
                self._all_gone.set()

    async def _greet(self, connection: Connection, accepted: socket.socket) -> None:
        """Shake hands; from then on asyncio tells the connection what happens."""
        context = self._admission.tls_context()
        seconds = self._limits.handshake_seconds if context is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context, ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=self._limits.write_seconds if context is not None else None,
            )  # fmt: skip
        except (OSError, TimeoutError):
            self._statistics.refuse("connection" if context is None else "tls")
            self._forget(connection)
        except BaseException:
            self._forget(connection)
            # Behind what asyncio has in its queue for this descriptor: the number may be another connection's next.
            asyncio.get_running_loop().call_soon(accepted.close)
            raise

    def _refuse(self, accepted: socket.socket) -> None:
        """Say 503 if that can be said at once (not where TLS would have to be spoken first), and hang up."""
        if self._admission.encrypted or len(self._lingering) >= _MOST_LINGERING:
            accepted.close()
            return
        response = plain(503, "too many connections", Retry_After="1")
        with contextlib.suppress(OSError):
            accepted.send(last_words(response, {}))
            accepted.shutdown(socket.SHUT_WR)
        self._keep(_linger(accepted))

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)


async def cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _respond(request: BaseRequest) -> StreamResponse:
    connection = request.protocol
    assert isinstance(connection, Connection)
    return await connection.respond(request)


async def _linger(refused: socket.socket) -> None:
    """Read what the client still sends: closing with unread bytes would make the kernel reset, and lose our words."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_SECONDS_LINGERING):
            while await loop.sock_recv(refused, 4096):
                pass
    refused.close()


def _peer(accepted: socket.socket, address: object) -> str:
    """Return what stands for one client in all that is counted by client."""
    if accepted.family == socket.AF_UNIX:
        credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return f"uid {_CREDENTIALS.unpack(credentials)[1]}"
    return network_of(str(address[0])) if isinstance(address, tuple) and address else ""
