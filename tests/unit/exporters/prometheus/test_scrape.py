"""Which format a scraper gets, and how often a view is rendered."""

from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from exporters.prometheus import MetricOptions, Scrapes
from exporters.prometheus import scrape as module
from exporters.prometheus.families import Family, HighWater, families
from exporters.prometheus.scrape import CLASSIC, OPENMETRICS, content_type
from tests.unit.exporters.prometheus.fleet import target, view, whole
from tracer.fleet.view import FleetView

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, CLASSIC),
        ("", CLASSIC),
        ("*/*", CLASSIC),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        ("text/html,application/xhtml+xml,*/*;q=0.8", CLASSIC),
        ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.1", CLASSIC),
        ("Application/OpenMetrics-Text ; Version=1.0.0 ; Q=1", OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", CLASSIC),
        ("application/openmetrics-text;q=0", CLASSIC),
        ("application/openmetrics-text;q=nan", CLASSIC),
        ("application/openmetrics-text;q=", CLASSIC),
        (",;,=;q," * 10_000, CLASSIC),
    ],
)
def test_the_format_is_the_one_that_the_scraper_likes_best(accept: str | None, kind: str) -> None:
    assert content_type(accept) == kind


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[FleetView | None]:
    """The views that were rendered, in order."""
    seen: list[FleetView | None] = []

    def counting(shown: FleetView | None, options: MetricOptions, high_water: HighWater) -> list[Family]:
        seen.append(shown)
        return families(shown, options, high_water)

    monkeypatch.setattr(module, "families", counting)
    return seen


def test_a_view_is_rendered_once_for_many_scrapers_at_the_same_time(rendered: list[FleetView | None]) -> None:
    shown = view(target(whole()))
    scrapes = Scrapes(lambda: shown)
    start, bodies = threading.Barrier(8), []

    def scrape() -> None:
        start.wait()
        bodies.append(scrapes.answer(PROMETHEUS_2)[0])

    threads = [threading.Thread(target=scrape) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rendered) == 1
    assert len(bodies) == 8
    assert len(set(map(id, bodies))) == 1


def test_a_new_view_is_rendered_anew(rendered: list[FleetView | None]) -> None:
    newest = [view(target(whole(), looks=1))]
    scrapes = Scrapes(lambda: newest[0])
    first = scrapes.answer()[0]
    newest[0] = view(target(whole(), looks=2))
    second = scrapes.answer()[0]
    assert b"\ngomem_looks_total{pid=\"100\",process=\"orders\"} 1\n" in first
    assert b"\ngomem_looks_total{pid=\"100\",process=\"orders\"} 2\n" in second
    assert len(rendered) == 2


def test_what_scrapers_asked_for_is_prepared_when_a_view_is_published(rendered: list[FleetView | None]) -> None:
    newest: list[FleetView | None] = [None]
    scrapes = Scrapes(lambda: newest[0])
    scrapes.answer(PROMETHEUS_2)
    newest[0] = view(target(whole()))
    scrapes.prepare()
    assert rendered == [None, newest[0]]
    scrapes.answer(PROMETHEUS_2)
    assert len(rendered) == 2


@pytest.mark.parametrize("accept", ["text/plain", PROMETHEUS_2])
def test_metrics_of_others_stand_beside_them(accept: str) -> None:
    others = CollectorRegistry()
    Counter("gomem_http_requests", "Requests.", registry=others).inc()
    shown = view(target(whole()))
    body, kind = Scrapes(lambda: shown, beside=[others]).answer(accept)
    parse = parse_classic if kind == CLASSIC else parse_openmetrics
    names = {sample.name for family in parse(body.decode()) for sample in family.samples}
    assert {"gomem_http_requests_total", "gomem_process_resident_bytes", "gomem_build_info"} <= names
