"""Answers to scrapes: what was rendered once for a view, in the format that the scraper asked for."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gomem.exporters.prometheus.catalog import MetricOptions, process_metrics
from gomem.exporters.prometheus.exposition import Heading, classic_heading, openmetrics_heading, samples
from gomem.exporters.prometheus.families import (
    NO_OWNER,
    Family,
    HighWater,
    cgroup_families,
    distinct,
    rows_of_target,
    tracer_families,
)
from gomem.exporters.prometheus.identity import LABELS
from gomem.exporters.prometheus.metric import Metric, MetricType
from gomem.exporters.prometheus.tracer_health import ERRORS
from gomem.tracer.fleet.view import FleetView, TargetView

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_HEADINGS: dict[str, Heading] = {CLASSIC: classic_heading, OPENMETRICS: openmetrics_heading}
_TYPES = {
    "application/openmetrics-text": OPENMETRICS,
    "text/plain": CLASSIC,
    "text/*": CLASSIC,
    "*/*": CLASSIC,
}
_MOST_ACCEPTED = 32  # of a header that anybody may send


class Scrapes:
    """Writes each process's lines once for each look at it, and puts them together once for each view.

    However many scrapers ask, and at the same time: they all get the same bytes.
    """

    def __init__(
        self,
        view: Callable[[], FleetView | None],
        options: MetricOptions | None = None,
        complain: Callable[[int, Exception], None] = lambda pid, error: None,
    ) -> None:
        """`view` returns the newest view, None before the first.

        `complain` gets what no code here was ready for, with the pid of the process that has no metrics for it.
        """
        self._view = view
        self._complain = complain
        self._errors = 0
        self._metrics = process_metrics(options or MetricOptions())
        self._beside = CollectorRegistry()
        self._high_water = HighWater()
        self._lock = Lock()
        self._written: dict[int, tuple[TargetView, list[str]]] = {}
        self._answered: FleetView | None = None
        self._bodies: dict[str, bytes] = {}

    def add(self, collector: Collector) -> None:
        """Serve the metrics of `collector` as well; they are taken once for each view."""
        self._beside.register(collector)

    def answer(self, accept: str | None = None) -> tuple[bytes, str]:
        """Return the body and the content type for an Accept header.

        As long as the view is the same one, the body is the same object.
        """
        wanted = content_type(accept)
        with self._lock:
            view = self._view()
            if view is not self._answered:
                self._answered = view
                self._bodies.clear()
            body = self._bodies.get(wanted)
            if body is None:
                self._write(view)
                body = self._bodies[wanted] = self._together(view, wanted)
            return body, wanted

    def prepare(self) -> None:
        """Write the lines of processes that were looked at since; what is left for a scrape takes milliseconds.

        To be called when a view was published, by the thread that did so.
        """
        with self._lock:
            self._write(self._view())

    def _write(self, view: FleetView | None) -> None:
        targets = distinct(view) if view is not None else []
        for pid in self._written.keys() - {target.pid for target in targets}:
            del self._written[pid]
        self._high_water.forget_others(targets)
        for target in targets:
            before = self._written.get(target.pid)
            if before is None or before[0] is not target:
                self._written[target.pid] = target, self._lines_of(target)

    def _lines_of(self, target: TargetView) -> list[str]:
        """Write one process's lines; what is wrong with one must not cost the others theirs."""
        found = zip(self._metrics, rows_of_target(self._metrics, target, self._high_water), strict=True)
        try:
            return [samples(Family(metric, rows, LABELS)) for metric, rows in found]
        except Exception as error:
            self._errors += 1
            self._complain(target.pid, error)
            return [""] * len(self._metrics)

    def _together(self, view: FleetView | None, wanted: str) -> bytes:
        texts = zip(*(lines for _, lines in self._written.values()), strict=True)
        parts: list[tuple[Metric[Any], str]] = [
            (metric, "".join(lines)) for metric, lines in zip(self._metrics, texts, strict=bool(self._written))
        ]
        errors = Family(ERRORS, [(NO_OWNER, (), None, self._errors)])
        beside = (*cgroup_families(view), *tracer_families(view), errors)
        parts += [(family.metric, samples(family)) for family in beside]
        gauges = {metric.name for metric, lines in parts if lines and metric.type is MetricType.GAUGE}
        heading = _HEADINGS[wanted]
        body = "".join(heading(metric, gauges) + lines for metric, lines in parts if lines)
        write_others, _ = choose_encoder(wanted)
        return body.encode() + write_others(self._beside)


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
