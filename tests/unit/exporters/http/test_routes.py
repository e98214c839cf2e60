"""Health, and what pages may say, without sockets."""

from __future__ import annotations

import time

import pytest

from gomem.exporters.http import routes
from gomem.exporters.http.request import Request
from gomem.exporters.http.routes import Routes, path_class
from gomem.tracer.fleet.history import History
from gomem.tracer.fleet.view import FleetView
from tests.support.samples.reports import grown_and_scavenged, lazily_freed
from tests.support.samples.views import several, target, view


def get(path: str, **headers: str) -> Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("GET", path, "", names, True, False)


def made(now: FleetView | None) -> Routes:
    return Routes(lambda: now, lambda accept: (b"a 1\n", "text/plain"), False)


@pytest.mark.parametrize(
    ("age", "interval", "lasted", "status"),
    [(0, 1500, 1, 200), (4000, 1500, 1, 200), (8000, 1500, 1, 503), (4000, 1, 0.1, 503), (2000, 15, 600, 200),
     (-3600, 15, 1, 200)],
)  # fmt: skip
def test_alive_is_a_round_within_a_few_intervals(age: float, interval: float, lasted: float, status: int) -> None:
    now = view(age=age, interval_seconds=interval, round_seconds=lasted)
    assert made(now).healthz().status == status


def test_no_first_round_for_long_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = made(None)
    assert waiting.healthz().status == 200
    monkeypatch.setattr(routes, "_SECONDS_TO_FIRST_ROUND", -1.0)
    assert waiting.healthz().status == 503


def test_ready_is_a_finished_round() -> None:
    assert made(None).readyz().status == 503
    assert made(view(rounds=0)).readyz().status == 503
    assert made(view(rounds=1)).readyz().status == 200


def test_it_is_not_ready_when_all_figures_are_stale_and_tells_how_many_are_else() -> None:
    old = target(11, grown_and_scavenged(), looked=time.monotonic() - 1000)
    stale = made(view(old)).readyz()
    assert (stale.status, b"1 of 1 targets" in stale.body) == (503, True)
    partly = made(view(old, target(22, lazily_freed()))).readyz()
    assert (partly.status, b"1 of 2 targets" in partly.body) == (200, True)


def test_the_page_of_one_view_is_made_once() -> None:
    now = several()
    with_page = made(now)
    assert with_page.answer(get("/")).body is with_page.answer(get("/")).body
    packed = [with_page.answer(get("/", **{"accept-encoding": "gzip"})).body for _ in range(2)]
    assert packed[0] is packed[1]


def test_pages_allow_their_own_style_and_scripts_and_ask_nobody_but_us() -> None:
    policy = made(several()).answer(get("/")).headers["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert rules["connect-src"] == rules["form-action"] == "'self'"
    assert all(each.startswith("'sha256-") for name in ("script-src", "style-src") for each in rules[name].split())
    assert "unsafe" not in policy


def test_a_wish_is_answered_without_scripts() -> None:
    page = made(several()).answer(Request("GET", "/", "sort=name&filter=ingest", {}, True, False)).body.decode()
    assert 'id="p22"' in page
    assert 'id="p11"' not in page
    assert 'aria-sort="ascending"' in page
    assert '<meta http-equiv="refresh"' in page


@pytest.mark.parametrize("query", ["sort=evil", "sort=", "filter=%00%ff", "a=1&" * 40, "sort=-rss&sort=name"])
def test_a_wish_that_makes_no_sense_is_none(query: str) -> None:
    assert made(several()).answer(Request("GET", "/", query, {}, True, False)).status == 200


def test_who_has_the_newest_is_told_so() -> None:
    now = several()
    history = History(15.0)
    history.take(now)
    routes = Routes(lambda: now, lambda accept: (b"", ""), False, history=history)
    for path in ("/targets.json", "/targets/11/figures", "/targets/11/history.json"):
        first = routes.answer(get(path))
        assert first.status == 200
        again = routes.answer(get(path, if_none_match=first.headers["ETag"]))
        assert (again.status, again.body) == (304, b"")
        assert routes.answer(get(path, if_none_match='"another"')).status == 200


def test_maps_and_reports_are_for_those_who_were_let() -> None:
    shy = made(several())
    assert [shy.answer(get(f"/targets/11/{what}")).status for what in ("map", "report.json")] == [404, 404]
    assert b"--reports" in shy.answer(get("/targets/11/map")).body


def test_pages_made_for_one_request_are_rationed_and_metrics_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_RENDER_BURST", 1e-9)
    monkeypatch.setattr(routes, "_RENDER_SHARE", 0.0)
    poor = made(several())
    assert [poor.answer(get("/targets/11")).status for _ in range(3)] == [200, 503, 503]
    assert poor.answer(get("/targets/11/report.json")).status == 503
    assert poor.answer(Request("GET", "/metrics", "name[]=a", {}, True, False)).status == 503
    assert poor.answer(get("/metrics")).status == 200
    assert poor.answer(get("/")).status == 200


def test_each_format_of_the_metrics_is_compressed_once() -> None:
    bodies = {"a": bytes(5000), "b": bytes(6000)}
    both = Routes(lambda: None, lambda accept: (bodies[accept], f"text/{accept}"), False)
    answers = [both.answer(get("/metrics", accept=kind, **{"accept-encoding": "gzip"})).body for kind in "abab"]
    assert answers[0] is answers[2]
    assert answers[1] is answers[3]


@pytest.mark.parametrize(
    ("path", "name"),
    [("/", "index"), ("/metrics", "metrics"), ("/targets/1", "target"), ("/targets/1/report.json", "report"),
     ("/targets.json", "table"), ("/targets/1/history.json", "history"), ("/targets/1/figures", "figures"),
     ("/targets/1/map", "map"), ("/targets/1/maps", "other"), ("/targets/x", "other"),
     ("/targets/99999999999", "other"), ("/../etc", "other")],
)  # fmt: skip
def test_paths_are_counted_in_few_classes(path: str, name: str) -> None:
    assert path_class(path) == name
