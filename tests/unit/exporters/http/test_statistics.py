"""The server's counts as metrics, and bodies in wait."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gomem.exporters.http.send_budget import SendBudget
from gomem.exporters.http.statistics import Statistics, WebCollector
from gomem.exporters.http.tls import has_allowed_name


def test_counts_come_out_as_metrics() -> None:
    statistics = Statistics()
    statistics.connection_opened()
    statistics.request_began()
    statistics.answered("metrics", 200, 0.25)
    statistics.answered("metrics", 200, 0.5)
    statistics.answered("other", 404, 0.1)
    statistics.refuse("slow")
    statistics.reload_failed()
    registry = CollectorRegistry()
    registry.register(WebCollector(statistics.read))
    text = generate_latest(registry).decode()
    for line in (
        'gomem_http_requests_total{code="200",path="metrics"} 2.0',
        'gomem_http_requests_total{code="404",path="other"} 1.0',
        'gomem_http_request_duration_seconds_sum{path="metrics"} 0.75',
        'gomem_http_request_duration_seconds_count{path="metrics"} 2.0',
        'gomem_http_refused_total{reason="slow"} 1.0',
        "gomem_http_requests_in_flight 1.0",
        "gomem_http_connections 1.0",
        "gomem_web_config_reload_errors_total 1.0",
    ):
        assert line in text


def test_what_was_read_does_not_change_any_more() -> None:
    statistics = Statistics()
    before = statistics.read()
    statistics.answered("metrics", 200, 1)
    statistics.connection_opened()
    assert before.requests == {}
    assert before.connections == 0
    statistics.connection_closed()
    assert statistics.read().connections == 0


def test_one_body_for_many_readers_counts_once() -> None:
    waiting = SendBudget(100)
    body = bytes(90)
    assert waiting.take(body)
    assert waiting.take(body)
    assert waiting.bytes == 90
    assert not waiting.take(bytes(11))
    waiting.release(body)
    assert waiting.bytes == 90
    waiting.release(body)
    assert waiting.bytes == 0


def test_a_body_above_the_bound_goes_out_alone() -> None:
    waiting = SendBudget(100)
    large, small = bytes(1000), bytes(1)
    assert waiting.take(large)
    assert not waiting.take(small)
    assert waiting.take(b"")
    waiting.release(b"")
    waiting.release(large)
    assert waiting.take(small)


@pytest.mark.parametrize(
    ("names", "allowed", "let_in"),
    [
        ((("DNS", "a.example"),), ("a.example",), True),
        ((("DNS", "a.example"),), ("A.example",), False),
        ((("DNS", "b"), ("URI", "spiffe://x/y")), ("spiffe://x/y",), True),
        ((("IP Address", "FD00:0:0:0:0:0:0:7\n"),), ("fd00::7",), True),
        ((("IP Address", "10.0.0.1"),), ("10.0.0.2",), False),
        ((("DirName", "a.example"),), ("a.example",), False),
        ((), ("a",), False),
        ("nonsense", ("n",), False),
    ],
)
def test_names_in_certificates(names: object, allowed: tuple[str, ...], let_in: bool) -> None:
    assert has_allowed_name({"subjectAltName": names}, allowed) is let_in


def test_no_certificate_has_no_name() -> None:
    assert not has_allowed_name(None, ("a",))
    assert not has_allowed_name({}, ("a",))
