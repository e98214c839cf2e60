"""What the server counts of itself, and how Prometheus gets it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class WebStatistics:
    """Counts since the server began."""

    requests: Mapping[tuple[str, int], int]  # by class of path, and status code
    seconds: Mapping[str, float]  # spent on answering, by class of path
    refused: Mapping[str, int]  # connections and requests that got nothing, by reason
    in_flight: int  # requests being answered now
    connections: int  # open now
    accepted: int  # connections so far
    reload_errors: int  # times that a changed web configuration could not be used


class Statistics:
    """Counts from the server's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, float] = {}
        self._refused: Counter[str] = Counter()
        self._in_flight = 0
        self._connections = 0
        self._accepted = 0
        self._reload_errors = 0

    def connection_opened(self) -> None:
        """Count a connection that was taken on."""
        with self._lock:
            self._accepted += 1
            self._connections += 1

    def connection_closed(self) -> None:
        """Count its end."""
        with self._lock:
            self._connections -= 1

    def refuse(self, reason: str) -> None:
        """Count what was turned away."""
        with self._lock:
            self._refused[reason] += 1

    def request_began(self) -> None:
        """Count a request whose head has come."""
        with self._lock:
            self._in_flight += 1

    def request_ended(self) -> None:
        """Count it out again, answered or not."""
        with self._lock:
            self._in_flight -= 1

    def answered(self, path_class: str, status: int, seconds: float) -> None:
        """Count a response, and the time from the request's head to its last byte."""
        with self._lock:
            self._requests[path_class, status] += 1
            self._seconds[path_class] = self._seconds.get(path_class, 0.0) + seconds

    def reload_failed(self) -> None:
        """Count a web configuration that could not be reread."""
        with self._lock:
            self._reload_errors += 1

    def read(self) -> WebStatistics:
        """Return all counts of one moment."""
        with self._lock:
            return WebStatistics(
                dict(self._requests), dict(self._seconds), dict(self._refused),
                self._in_flight, self._connections, self._accepted, self._reload_errors,
            )  # fmt: skip


class WebCollector(Collector):
    """The server's counts as metrics; register it beside the others."""

    def __init__(self, statistics: Callable[[], WebStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Yield the families of one moment."""
        now = self._statistics()
        requests = CounterMetricFamily(
            "gomem_http_requests",
            "HTTP requests answered, by class of path (never the path itself) and status code.",
            labels=["path", "code"],
        )
        for (path_class, code), count in sorted(now.requests.items()):
            requests.add_metric([path_class, str(code)], count)
        yield requests
        duration = SummaryMetricFamily(
            "gomem_http_request_duration_seconds",
            "Time from a request's head to the last byte of its answer. A slow reader adds to it.",
            labels=["path"],
        )
        for path_class, seconds in sorted(now.seconds.items()):
            count = sum(count for (name, _), count in now.requests.items() if name == path_class)
            duration.add_metric([path_class], count_value=count, sum_value=seconds)
        yield duration
        refused = CounterMetricFamily(
            "gomem_http_refused",
            "Connections and requests turned away, by reason: too many, too slow, malformed, TLS or password failed.",
            labels=["reason"],
        )
        for reason, count in sorted(now.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        yield GaugeMetricFamily("gomem_http_requests_in_flight", "HTTP requests being answered now.", now.in_flight)
        yield GaugeMetricFamily("gomem_http_connections", "HTTP connections open now.", now.connections)
        yield CounterMetricFamily("gomem_http_connections_accepted", "HTTP connections taken on.", now.accepted)
        yield CounterMetricFamily(
            "gomem_web_config_reload_errors",
            "Times that a changed web configuration or certificate could not be used; the one before stays in force.",
            now.reload_errors,
        )
