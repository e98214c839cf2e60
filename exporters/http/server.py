"""The HTTP server of `gomem serve`: aiohttp's, read only, and bounded in everything that a client could use up.

One thread runs an asyncio loop that holds all connections; a few more make the answers. Who is taken on is decided in
`acceptor`, what a connection may do then in `connection`, what an answer may cost in `answers`, how much of it all in
`limits`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

from gomem.exporters.http.acceptor import Acceptor, cancel
from gomem.exporters.http.addresses import Address, close_listeners, open_listeners
from gomem.exporters.http.admission import Admission
from gomem.exporters.http.answers import Answers
from gomem.exporters.http.limits import Limits
from gomem.exporters.http.profiling import Profiling
from gomem.exporters.http.routes import Metrics, Routes
from gomem.exporters.http.statistics import Statistics, WebStatistics
from gomem.exporters.http.webconfig import WebConfig
from gomem.tracer.errors import GomemError
from gomem.tracer.fleet.history import History
from gomem.tracer.fleet.view import FleetView

_SECONDS_TO_START = 60.0

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
        profiling: Profiling | None = None,
        history: History | None = None,
        maps: Profiling | None = None,
        limits: Limits | None = None,
        log: Log = lambda message: None,
    ) -> None:
        self._listen = tuple(listen)
        self._limits = limits or Limits()
        self._log = log
        self._statistics = Statistics()
        routes = Routes(view, metrics, allow_reports, profiling, history, maps)
        self._admission = Admission(web_config, routes, self._statistics, log)
        self._listeners: list[socket.socket] = []
        self._answers = Answers(self._limits, self._admission)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return where it listens, with the ports that the system chose: `http://127.0.0.1:9469`, `unix:/path`."""
        return tuple(_url(listener, self._admission.encrypted) for listener in self._listeners)

    def statistics(self) -> WebStatistics:
        """Return what the server counted so far. Safe from any thread."""
        return self._statistics.read()

    def cpu_seconds(self) -> float:
        """Return the CPU time of all that clients have made it do. Safe from any thread."""
        return self._answers.cpu.seconds()

    def bind(self) -> None:
        """Take the addresses, and start no thread yet: what follows can still give up privileges for all of us.

        Raises ListenError, or WebConfigError for a broken certificate.
        """
        self._admission.check()
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
        self._answers.close()

    # On the loop's thread from here on

    def _run(self, started: threading.Event) -> None:
        self._answers.cpu.begin()
        try:
            asyncio.run(self._serve(started))
        except Exception as error:  # whatever it is, people should hear that nobody answers any more
            self._log(f"the web server ended: {type(error).__name__}: {error}")
        finally:
            self._answers.cpu.end()
            started.set()

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda loop, context: self._statistics.refuse("connection"))
        self._stopping = asyncio.Event()
        acceptor = Acceptor(self._limits, self._admission, self._statistics, self._answers, self._log)
        working = [asyncio.create_task(acceptor.accept(listener)) for listener in self._listeners]
        working.append(asyncio.create_task(self._answers.keep_to_budget()))
        started.set()
        await self._stopping.wait()
        await cancel(working)
        await acceptor.hang_up()


def _url(listener: socket.socket, encrypted: bool) -> str:
    where = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{where}"
    host = f"[{where[0]}]" if ":" in where[0] else where[0]
    return f"{'https' if encrypted else 'http'}://{host}:{where[1]}"
