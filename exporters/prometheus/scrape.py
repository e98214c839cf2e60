"""Answers to scrapes: what was rendered once for a view, in the format that the scraper asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from exporters.prometheus.catalog import MetricOptions
from exporters.prometheus.exposition import END, classic, openmetrics
from exporters.prometheus.families import Family, HighWater, families
from tracer.fleet.view import FleetView

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_TYPES = {
    "application/openmetrics-text": OPENMETRICS,
    "text/plain": CLASSIC,
    "text/*": CLASSIC,
    "*/*": CLASSIC,
}
_MOST_ACCEPTED = 32  # of a header that anybody may send


class Scrapes:
    """Renders each view once for all scrapers, however many ask at the same time."""

    def __init__(
        self,
        view: Callable[[], FleetView | None],
        options: MetricOptions | None = None,
        beside: Sequence[Collector] = (),
    ) -> None:
        """`view` returns the newest view, None before the first.

        The metrics of the collectors `beside` are taken when a view is rendered, and are of that moment.
        """
        self._view = view
        self._options = options or MetricOptions()
        self._beside = CollectorRegistry()
        for collector in beside:
            self._beside.register(collector)
        self._high_water = HighWater()
        self._lock = Lock()
        self._rendered: FleetView | None = None
        self._families: list[Family] | None = None
        self._bodies: dict[str, bytes] = {}
        self._asked: set[str] = set()

    def answer(self, accept: str | None = None) -> tuple[bytes, str]:
        """Return the body and the content type for an Accept header, at once if the newest view was rendered already.

        As long as the view is the same one, the body is the same object.
        """
        wanted = content_type(accept)
        with self._lock:
            self._asked.add(wanted)
            return self._body(wanted), wanted

    def prepare(self) -> None:
        """Render the newest view in the formats that were asked for before; to be called when a view was published."""
        with self._lock:
            for wanted in self._asked:
                self._body(wanted)

    def _body(self, wanted: str) -> bytes:
        view = self._view()
        if self._families is None or view is not self._rendered:
            self._families = families(view, self._options, self._high_water)
            self._rendered = view
            self._bodies.clear()
        body = self._bodies.get(wanted)
        if body is None:
            body = self._bodies[wanted] = self._write(self._families, wanted)
        return body

    def _write(self, made: Sequence[Family], wanted: str) -> bytes:
        write_others, _ = choose_encoder(wanted)
        others = write_others(self._beside)
        return (classic(made) if wanted == CLASSIC else openmetrics(made).removesuffix(END)) + others


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


def _weight(parameters: list[str]) -> float:
    """Return the q parameter, 0 for one that makes no sense."""
    given = [word.removeprefix("q=") for word in parameters if word.startswith("q=")]
    try:
        return min(max(float(given[0]), 0.0), 1.0) if given else 1.0
    except ValueError:
        return 0.0
