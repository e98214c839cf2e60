"""What each address answers: a pure function of the request and the newest view, without sockets."""

from __future__ import annotations

import gzip
import re
import threading
import time
from collections.abc import Callable
from urllib.parse import parse_qsl

from gomem.exporters.http.page_routes import PageRoutes, page_class
from gomem.exporters.http.profile_routes import ProfileRoutes, profile_class
from gomem.exporters.http.profiling import Profiling
from gomem.exporters.http.request import Request, accepts_gzip
from gomem.exporters.http.response import Response, plain
from gomem.exporters.http.selection import select_families
from gomem.exporters.runbooks import runbooks
from gomem.tracer.fleet.history import History
from gomem.tracer.fleet.view import STALE_AFTER, FleetView
from gomem.tracer.machine.cpu_budget import CpuBudget

Metrics = Callable[[str], tuple[bytes, str]]

# Alive: a round was finished within so many intervals, or so many of its own durations where it takes longer.
_INTERVALS_ALIVE = 5
# A first round over a whole node, with BPF programs to compile.
_SECONDS_TO_FIRST_ROUND = 120.0
_LEAST_SECONDS_ALIVE = 30.0
# What is rendered anew for each request must not take the CPU (and Python's one interpreter lock) from the looks.
_RENDER_BURST, _RENDER_SHARE = 5.0, 0.1  # seconds of CPU time at once, and share of one CPU in the long run
_SMALLEST_TO_COMPRESS = 1024
_MOST_NAMES = 200
_MOST_KEPT = 5  # the list as a page and for scripts, and metrics in each of their formats
_RUNBOOK = re.compile(r"/runbooks/([A-Za-z]{1,64})\.md")
_METHODS = ("GET", "HEAD")


class Routes:
    """Answers requests. Safe from many threads; a page is rendered once per view."""

    def __init__(
        self,
        view: Callable[[], FleetView | None],
        metrics: Metrics,
        allow_reports: bool,
        profiling: Profiling | None = None,
        history: History | None = None,
        maps: Profiling | None = None,
    ) -> None:
        """`profiling` takes profiles, `maps` memory maps for those who may see reports; None: nobody does."""
        self._view = view
        self._metrics = metrics
        self._pages = PageRoutes(view, history, maps, reports=allow_reports, profiles=profiling is not None)
        self._profiles = ProfileRoutes(profiling) if profiling is not None else None
        self._started = time.monotonic()
        self._compressed = Compressed()
        self._budget = CpuBudget(_RENDER_BURST, _RENDER_SHARE)

    def answer(self, request: Request) -> Response:
        """Return the response to any request."""
        if request.method not in _METHODS:
            return plain(405, "only GET and HEAD", path_class(request.path), Allow="GET, HEAD")
        if path_class(request.path) in ("profile", "map"):
            return self._find(request)  # which is compressed as it is, and has a budget of its own
        if not _is_dear(request):
            return self._finished(request, self._find(request))
        if not self._budget.is_open():
            return plain(503, "too many pages were asked for; wait a little", path_class(request.path), Retry_After="5")
        began = time.thread_time()
        try:
            return self._finished(request, self._find(request))
        finally:
            self._budget.spend(time.thread_time() - began)

    def _finished(self, request: Request, response: Response) -> Response:
        if accepts_gzip(request.header("accept-encoding")):
            response = self._compressed.of(response)
        if request.path == "/metrics":
            return _with_header(response, "Vary", "Accept, Accept-Encoding")
        return _with_header(response, "Vary", "Accept-Encoding")

    def _find(self, request: Request) -> Response:
        if request.path == "/metrics":
            body, content_type = self._metrics(request.header("accept"))
            names = _names(request.query)
            return Response(200, select_families(body, names) if names else body, content_type, {}, "metrics")
        if request.path == "/healthz":
            return self.healthz()
        if request.path == "/readyz":
            return self.readyz()
        if page_class(request.path) is not None:
            return self._pages.answer(request)
        if profile_class(request.path) is not None:
            return self._profile(request)
        match = _RUNBOOK.fullmatch(request.path)
        if match is not None and (page := runbooks().get(match[1])) is not None:
            return Response(200, page, path_class="runbook")
        return plain(404, "there is /, /metrics, /healthz, /readyz, /targets/PID and /runbooks/ALERT.md")

    def healthz(self) -> Response:
        """Say whether the tracer still looks at its targets. Takes no time."""
        view = self._view()
        if view is None:
            waited = time.monotonic() - self._started
            if waited > _SECONDS_TO_FIRST_ROUND:
                return plain(503, f"no round over the targets was finished in {waited:.0f} s", "healthz")
            return plain(200, "alive; the first round is not done yet", "healthz")
        health = view.health
        age = view.age()
        limit = max(_INTERVALS_ALIVE * max(health.interval_seconds, health.round_seconds), _LEAST_SECONDS_ALIVE)
        if age > limit:
            return plain(503, f"the last round over the targets was {age:.0f} s ago, limit {limit:.0f} s", "healthz")
        return plain(200, "alive", "healthz")

    def readyz(self) -> Response:
        """Say whether /metrics has figures that are not stale, and of how many targets they are."""
        view = self._view()
        if view is None or view.health.rounds < 1:
            return plain(503, "the first round over the targets is not done yet", "readyz")
        stale = view.stale(view.age())
        told = f"{len(stale)} of {len(view.targets)} targets have not been looked at for {STALE_AFTER} intervals"
        with_figures = {one.pid for one in view.targets if one.report is not None}
        if with_figures and with_figures <= {one.pid for one in stale}:
            return plain(503, told, "readyz")
        return plain(200, f"ready; {told}" if stale else "ready", "readyz")

    def _profile(self, request: Request) -> Response:
        if self._profiles is None:
            kind = path_class(request.path)
            return plain(404, "profiles are not enabled here; gomem serve --profiles enables them", kind)
        return self._profiles.answer(request, self._view())


class Compressed:
    """Compresses responses; the newest ones of each content type are kept, for those who ask for the same bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def of(self, response: Response) -> Response:
        """Return the response with its body gzipped, if that is worth it."""
        if len(response.body) < _SMALLEST_TO_COMPRESS:
            return response
        with self._lock:
            kind = response.path_class, response.content_type
            body, packed = self._kept.get(kind, (None, b""))
            if body is not response.body:
                packed = gzip.compress(response.body, compresslevel=1, mtime=0)  # text this repetitive gains 5% beyond
                for_many = response.path_class in ("metrics", "index", "table")
                if for_many and (kind in self._kept or len(self._kept) < _MOST_KEPT):
                    self._kept[kind] = (response.body, packed)
        headers = {**response.headers, "Content-Encoding": "gzip"}
        return Response(response.status, packed, response.content_type, headers, response.path_class)


def path_class(path: str) -> str:
    """Return the name under which requests for `path` are counted; there are few."""
    simple = {"/metrics": "metrics", "/healthz": "healthz", "/readyz": "readyz"}
    if path in simple:
        return simple[path]
    if _RUNBOOK.fullmatch(path):
        return "runbook"
    return page_class(path) or profile_class(path) or "other"


def _is_dear(request: Request) -> bool:
    """Whether the answer is made for this request alone, and not once per view."""
    kind = path_class(request.path)
    if kind in ("metrics", "index"):
        return bool(request.query)
    return kind in ("target", "figures", "history", "report", "profiles", "sd")


def _names(query: str) -> frozenset[str]:
    """Return the values of name[], by which Prometheus' own clients select metrics."""
    if not query:
        return frozenset()
    try:
        pairs = parse_qsl(query, max_num_fields=_MOST_NAMES)
    except ValueError:
        return frozenset()
    return frozenset(value for name, value in pairs if name == "name[]")


def _with_header(response: Response, name: str, value: str) -> Response:
    return Response(
        response.status, response.body, response.content_type, {**response.headers, name: value}, response.path_class
    )
