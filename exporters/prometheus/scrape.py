"""Answers to scrapes: what was rendered once for a view, in the format and the coding that the scraper asked for."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from exporters.prometheus.catalog import MetricOptions
from exporters.prometheus.exposition import classic, openmetrics
from exporters.prometheus.families import Family, HighWater, families
from tracer.fleet.view import FleetView

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_WRITERS = {CLASSIC: classic, OPENMETRICS: openmetrics}
_TYPES = {
    "application/openmetrics-text": OPENMETRICS,
    "text/plain": CLASSIC,
    "text/*": CLASSIC,
    "*/*": CLASSIC,
}
_MOST_ACCEPTED = 32  # of a header that anybody may send
_FAST = 1  # gzip level: twice the speed of the default for a tenth more bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer and the headers that describe it; `content_encoding` is "gzip" or ""."""

    body: bytes
    content_type: str
    content_encoding: str


class Scrapes:
    """Renders each view once for all scrapers, however many ask at the same time."""

    def __init__(self, view: Callable[[], FleetView | None], options: MetricOptions | None = None) -> None:
        """`view` returns the newest view, None before the first."""
        self._view = view
        self._options = options or MetricOptions()
        self._high_water = HighWater()
        self._lock = Lock()
        self._rendered: FleetView | None = None
        self._families: list[Family] | None = None
        self._bodies: dict[tuple[str, bool], bytes] = {}
        self._asked: set[tuple[str, bool]] = set()

    def answer(self, accept: str | None = None, accept_encoding: str | None = None) -> Answer:
        """Answer a request with these headers, at once if the newest view was rendered already."""
        wanted = content_type(accept), _takes_gzip(accept_encoding)
        with self._lock:
            self._asked.add(wanted)
            body = self._body(*wanted)
        return Answer(body, wanted[0], "gzip" if wanted[1] else "")

    def prepare(self) -> None:
        """Render the newest view as scrapers have asked before; to be called when a view was published."""
        with self._lock:
            for wanted in self._asked:
                self._body(*wanted)

    def _body(self, kind: str, zipped: bool) -> bytes:
        view = self._view()
        if self._families is None or view is not self._rendered:
            self._families = families(view, self._options, self._high_water)
            self._rendered = view
            self._bodies.clear()
        body = self._bodies.get((kind, zipped))
        if body is None:
            body = gzip.compress(self._body(kind, False), _FAST, mtime=0) if zipped else _WRITERS[kind](self._families)
            self._bodies[kind, zipped] = body
        return body


def content_type(accept: str | None) -> str:
    """Return the format that an Accept header prefers; Prometheus' own where it says nothing that is known."""
    best, weight = CLASSIC, 0.0
    for part in (accept or "").split(",")[:_MOST_ACCEPTED]:
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        offered = _TYPES.get(name)
        if offered is not None and _version_fits(offered, parameters) and (given := _weight(parameters)) > weight:
            best, weight = offered, given
    return best


def _version_fits(offered: str, parameters: list[str]) -> bool:
    versions = [word.removeprefix("version=") for word in parameters if word.startswith("version=")]
    return not versions or f"version={versions[0]};" in offered


def _takes_gzip(accept_encoding: str | None) -> bool:
    for part in (accept_encoding or "").split(",")[:_MOST_ACCEPTED]:
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        if name in ("gzip", "*"):
            return _weight(parameters) > 0
    return False


def _weight(parameters: list[str]) -> float:
    """Return the q parameter, 0 for one that makes no sense."""
    given = [word.removeprefix("q=") for word in parameters if word.startswith("q=")]
    try:
        return min(max(float(given[0]), 0.0), 1.0) if given else 1.0
    except ValueError:
        return 0.0
