"""The addresses of profiles, as net/http/pprof has them for one process, and the list of them for http_sd."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from gomem.exporters.html.pages import profiles_page
from gomem.exporters.html.rendering import POLICY
from gomem.exporters.http.profile_kinds import KINDS
from gomem.exporters.http.profiling import Profiling, later, refused
from gomem.exporters.http.request import Request
from gomem.exporters.http.response import HTML, JSON, Coming, Response, plain
from gomem.exporters.json.report import plain_json
from gomem.exporters.prometheus.identity import who
from gomem.tracer.fleet.view import FleetView, TargetState, TargetView

DISCOVERY = "/sd"
_PROFILES = re.compile(r"/targets/([^/]{1,256})/debug/pprof(?:/([a-z]{0,32}))?")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PID = re.compile(r"[1-9][0-9]{0,9}")
_READABLE = (TargetState.FOLLOWED, TargetState.KERNEL_ONLY)
_MOST_FIELDS = 16
_MOST_TOLD = 20


def profile_class(path: str) -> str | None:
    """Return the name under which requests for `path` are counted, None where it is none of these."""
    if path == DISCOVERY:
        return "sd"
    match = _PROFILES.fullmatch(path)
    return None if match is None else "profile" if match[2] else "profiles"


class ProfileRoutes:
    """Answers requests for profiles. Safe from many threads."""

    def __init__(self, profiling: Profiling) -> None:
        self._profiling = profiling
        self._listed: tuple[float, str, bytes] | None = None  # of the view published then, for that Host

    def answer(self, request: Request, view: FleetView | None) -> Response:
        """Return the response to a request for one of the addresses that have a `profile_class`."""
        if request.path == DISCOVERY:
            return self._discovery(request, view)
        match = _PROFILES.fullmatch(request.path)
        assert match is not None
        found = _called(view, unquote(match[1]))
        if isinstance(found, Response):
            return found
        kind = match[2]
        if not kind:
            return Response(200, profiles_page(found, _links(found)), HTML, _PAGE, "profiles")
        if kind not in KINDS:
            return refused(404, f"there is no profile {kind!r} here, but {', '.join(KINDS)}")
        return _wrong_query(request.query) or _not_now(found) or Coming.of(self._profiling.ask(found, kind))

    def _discovery(self, request: Request, view: FleetView | None) -> Response:
        host = request.header("host")
        if _HOST.fullmatch(host) is None:
            return plain(400, "the Host header is what the list has as address: HOST or HOST:PORT", "sd")
        if view is None:
            return plain(503, "no process has been looked at yet", "sd", Retry_After="5")
        if self._listed is None or self._listed[:2] != (view.published, host):
            self._listed = view.published, host, discovery(view, host)
        return Response(200, self._listed[2], JSON, {}, "sd")


_PAGE = {"Content-Security-Policy": POLICY}


def discovery(view: FleetView, host: str) -> bytes:
    """Return the processes as Prometheus' http_sd wants them, each with the labels that are known of it.

    Source: prometheus.io/docs/prometheus/latest/http_sd; __profile_path_prefix__ and service_name are Grafana Alloy's
    (populateLabels in internal/component/pyroscope/scrape/target.go).
    """
    groups = [
        {"targets": [host], "labels": {"__profile_path_prefix__": f"/targets/{one.pid}", **who(one)}}
        for one in view.targets
        if one.state in _READABLE and one.report is not None and one.report.process.go_version
    ]
    return plain_json(groups).encode()


def _links(target: TargetView) -> list[tuple[str, str]]:
    return [(f"/targets/{target.pid}/debug/pprof/{name}", kind.what) for name, kind in KINDS.items()]


def _called(view: FleetView | None, name: str) -> TargetView | Response:
    """Return the process of that pid, or the only one of that name: of its program, pod, container or workload."""
    targets = view.targets if view is not None else ()
    if _PID.fullmatch(name):
        found = [one for one in targets if one.pid == int(name)]
    else:
        found = [one for one in targets if name in _names(one)]
    if len(found) == 1:
        return found[0]
    if not found:
        return refused(404, "no followed process has that pid or name")
    pids = ", ".join(str(one.pid) for one in found[:_MOST_TOLD])
    return refused(409, f"{len(found)} processes have that name: take one by its pid ({pids})")


def _names(target: TargetView) -> tuple[str | None, ...]:
    workload = target.workload
    return target.name, workload.pod, workload.container, workload.owner


def _wrong_query(query: str) -> Response | None:
    """Return the answer to parameters of net/http/pprof that mean nothing here."""
    try:
        given = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return refused(400, "too many parameters")
    for name, value in given:
        if (name, value) == ("debug", "0"):
            continue
        if name == "debug":
            return refused(400, "debug=0 is the only form: a profile for go tool pprof, which prints it as text")
        if name == "seconds":
            return refused(400, "seconds: a profile is of one moment; go tool pprof -diff_base shows what came between")
        if name == "gc":
            return refused(400, "gc: the process is only read, and not made to collect")
        return refused(400, "the only parameter is debug=0")
    return None


def _not_now(target: TargetView) -> Response | None:
    """Return the answer where looks do not succeed either: a profile would wait as they do."""
    return None if target.state in _READABLE else later(target.why or target.state.value, 15)
