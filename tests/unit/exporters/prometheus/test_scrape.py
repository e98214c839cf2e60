"""Which format a scraper gets, and how often a view is rendered."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from gomem.exporters.prometheus import Scrapes
from gomem.exporters.prometheus import scrape as module
from gomem.exporters.prometheus.families import HighWater, Row, rows_of_target
from gomem.exporters.prometheus.metric import ProcessMetric
from gomem.exporters.prometheus.scrape import CLASSIC, OPENMETRICS, content_type
from gomem.tracer.fleet.view import FleetView, TargetView
from tests.support.samples.fleet import target, view, whole

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
def written(monkeypatch: pytest.MonkeyPatch) -> list[TargetView]:
    """The processes whose lines were written, in order."""
    seen: list[TargetView] = []

    def counting(metrics: Sequence[ProcessMetric], one: TargetView, high_water: HighWater) -> Iterator[list[Row]]:
        seen.append(one)
        return rows_of_target(metrics, one, high_water)

    monkeypatch.setattr(module, "rows_of_target", counting)
    return seen


def test_a_view_is_rendered_once_for_many_scrapers_at_the_same_time(written: list[TargetView]) -> None:
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
    assert len(written) == 1
    assert len(bodies) == 8
    assert len(set(map(id, bodies))) == 1


def test_both_formats_share_what_was_written(written: list[TargetView]) -> None:
    shown = view(target(whole()))
    scrapes = Scrapes(lambda: shown)
    classic, openmetrics = (scrapes.answer(accept)[0].decode().splitlines() for accept in (None, PROMETHEUS_2))
    assert len(written) == 1
    assert [line for line in classic if line[0] != "#"] == [line for line in openmetrics if line[0] != "#"]


def test_a_new_view_is_shown_and_only_what_changed_is_written_anew(written: list[TargetView]) -> None:
    first, second = target(whole(), 1, looks=1), target(whole(), 2, looks=1)
    newest = [view(first, second)]
    scrapes = Scrapes(lambda: newest[0])
    before = scrapes.answer()[0].decode()
    newest[0] = view(first, target(whole(), 2, looks=2), target(whole(), 3))
    after = scrapes.answer()[0].decode()
    assert 'gomem_looks_total{pid="2",process="orders"} 1\n' in before
    assert 'gomem_looks_total{pid="2",process="orders"} 2\n' in after
    assert [one.pid for one in written] == [1, 2, 2, 3]
    assert before.count('pid="1"') == after.count('pid="1"')


def test_a_process_that_is_gone_leaves_nothing() -> None:
    newest = [view(target(whole(), 1), target(whole(), 2))]
    scrapes = Scrapes(lambda: newest[0])
    scrapes.answer()
    newest[0] = view(target(whole(), 2))
    assert b'pid="1"' not in scrapes.answer()[0]
    newest[0] = view()
    assert b"pid=" not in scrapes.answer()[0]


def test_what_was_published_is_prepared_before_anybody_asks(written: list[TargetView]) -> None:
    newest: list[FleetView | None] = [None]
    scrapes = Scrapes(lambda: newest[0])
    scrapes.prepare()
    newest[0] = view(target(whole()))
    scrapes.prepare()
    assert len(written) == 1
    assert b"gomem_process_resident_bytes{" in scrapes.answer(PROMETHEUS_2)[0]
    assert len(written) == 1


def test_one_process_that_cannot_be_shown_does_not_hide_the_others() -> None:
    broken = target(replace(whole(), kinds=[None]), 1)
    shown, heard = view(broken, target(whole(), 2)), []
    scrapes = Scrapes(lambda: shown, complain=lambda pid, error: heard.append((pid, type(error))))
    scrapes.prepare()
    text = scrapes.answer()[0].decode()
    assert 'gomem_process_resident_bytes{pid="2"' in text
    assert 'pid="1"' not in text
    assert "\ngomem_metric_errors_total 1\n" in text
    assert heard == [(1, AttributeError)]


@pytest.mark.parametrize("accept", ["text/plain", PROMETHEUS_2])
def test_metrics_of_others_stand_beside_them(accept: str) -> None:
    others = CollectorRegistry()
    Counter("gomem_http_requests", "Requests.", registry=others).inc()
    shown = view(target(whole()))
    scrapes = Scrapes(lambda: shown)
    scrapes.add(others)
    body, kind = scrapes.answer(accept)
    parse = parse_classic if kind == CLASSIC else parse_openmetrics
    names = {sample.name for family in parse(body.decode()) for sample in family.samples}
    assert {"gomem_http_requests_total", "gomem_process_resident_bytes", "gomem_build_info"} <= names
