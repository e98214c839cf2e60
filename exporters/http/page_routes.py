"""The pages for people, and what their scripts ask for: each made once per view where that can be."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from gomem.exporters.html.pages import figures_page, index_page, refresh_of, table_json, target_page
from gomem.exporters.html.rendering import POLICY
from gomem.exporters.html.table import Row, Rows, Wish
from gomem.exporters.http.profiling import Profiling
from gomem.exporters.http.request import Request
from gomem.exporters.http.response import HTML, JSON, Coming, Response, plain
from gomem.exporters.json.report import plain_json, render_json
from gomem.tracer.fleet.history import History
from gomem.tracer.fleet.view import FleetView, TargetView

MAP = "map"
_TARGET = re.compile(r"/targets/([1-9][0-9]{0,9})(?:/(report\.json|history\.json|figures|map))?")
_CLASSES = {"report.json": "report", "history.json": "history", "figures": "figures", "map": MAP, None: "target"}
_TABLE = "/targets.json"
_PAGE = {"Content-Security-Policy": POLICY}
_NO_REPORTS = "reports and memory maps are not enabled here; gomem serve --reports enables them"


def page_class(path: str) -> str | None:
    """Return the name under which requests for `path` are counted, None where it is none of these."""
    if path in ("/", _TABLE):
        return "index" if path == "/" else "table"
    match = _TARGET.fullmatch(path)
    return _CLASSES[match[2]] if match is not None else None


class PageRoutes:
    """Answers requests for pages. Safe from many threads."""

    def __init__(
        self,
        view: Callable[[], FleetView | None],
        history: History | None,
        maps: Profiling | None,
        *,
        reports: bool,
        profiles: bool,
    ) -> None:
        """Take memory maps by `maps`. `reports`: those and whole reports are shown; `profiles`: there are some, too."""
        self._view = view
        self._history = history
        self._maps = maps
        self._reports = reports
        self._profiles = profiles
        self._lock = threading.Lock()
        self._rows = Rows(history)
        self._made: dict[str, tuple[float, bytes]] = {}  # by class, of the view published then

    def answer(self, request: Request) -> Response:
        """Return the response to a request for one of the addresses that have a `page_class`."""
        view = self._view()
        if request.path == "/":
            return Response(200, self._index(view, request.query), HTML, _PAGE, "index")
        if request.path == _TABLE:
            return self._table(request, view)
        match = _TARGET.fullmatch(request.path)
        assert match is not None
        pid, kind = int(match[1]), _CLASSES[match[2]]
        if kind == "history":
            return self._course(request, pid)
        if kind in ("report", MAP) and not self._reports:
            return plain(404, _NO_REPORTS, kind)
        target = _with_pid(view, pid)
        if target is None:
            return plain(404, f"no followed process has the pid {pid}", kind)
        return self._of_target(request, target, kind)

    def _of_target(self, request: Request, target: TargetView, kind: str) -> Response:
        if kind == "target":
            course = self._history.course(target.pid) if self._history is not None else None
            refresh = refresh_of(self._view())
            return Response(200, target_page(target, self._reports, self._profiles, course, refresh), HTML, _PAGE, kind)
        if kind == "figures":
            tag = _tag(target.start_ticks, target.looks, target.failed_looks, target.state)
            return _unless_known(request, tag, kind) or Response(
                200, figures_page(target, self._reports), HTML, {**_PAGE, "ETag": tag}, kind
            )
        if target.report is None:
            return plain(404, "no look at this process has succeeded yet", kind)
        if kind == MAP and self._maps is not None:
            return Coming.of(self._maps.ask(target, MAP))
        return Response(200, render_json(target.report).encode(), JSON, {}, "report")

    def _index(self, view: FleetView | None, query: str) -> bytes:
        if view is None:
            return index_page(None)
        if query:
            return index_page(view, self._all_rows(view), Wish.of(query))
        return self._once("index", view, lambda: index_page(view, self._all_rows(view)))

    def _table(self, request: Request, view: FleetView | None) -> Response:
        if view is None:
            return plain(503, "no process has been looked at yet", "table", Retry_After="2")
        tag = _tag(view.published)
        if known := _unless_known(request, tag, "table"):
            return known
        body = self._once("table", view, lambda: plain_json(table_json(view, self._all_rows(view))).encode())
        return Response(200, body, JSON, {"ETag": tag}, "table")

    def _all_rows(self, view: FleetView) -> list[Row]:
        with self._lock:
            return self._rows.of(view)

    def _once(self, kind: str, view: FleetView, make: Callable[[], bytes]) -> bytes:
        made = self._made.get(kind)
        if made is None or made[0] != view.published:
            made = self._made[kind] = (view.published, make())  # the view may be large: not kept longer than needed
        return made[1]

    def _course(self, request: Request, pid: int) -> Response:
        version = self._history.version(pid) if self._history is not None else None
        if version is not None and (known := _unless_known(request, _tag(version), "history")):
            return known
        course = self._history.course(pid) if self._history is not None else None
        if course is None:
            return plain(404, f"nothing is known of the last hour of process {pid}", "history")
        body = {"ended": course.ended, "times": course.times, "figures": course.figures}
        return Response(200, plain_json(body).encode(), JSON, {"ETag": _tag(course.version)}, "history")


def _unless_known(request: Request, tag: str, kind: str) -> Response | None:
    """Return that nothing is new to who has what `tag` names."""
    return (
        Response(304, b"", headers={"ETag": tag}, path_class=kind) if tag in request.header("if-none-match") else None
    )


def _tag(*those: object) -> str:
    return '"' + "-".join(map(str, those)) + '"'


def _with_pid(view: FleetView | None, pid: int) -> TargetView | None:
    if view is None:
        return None
    return next((target for target in view.targets if target.pid == pid), None)
