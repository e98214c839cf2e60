"""Pushing the newest view to an OpenTelemetry collector, from a thread of its own.

A collector that is slow, down or hostile costs that thread time and nobody else anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gomem.exporters.prometheus.catalog import MetricOptions
from gomem.exporters.units import clean
from gomem.tracer.errors import BackendUnavailable, UsageError
from gomem.tracer.fleet.view import FleetView

METRICS_PATH = "/v1/metrics"
DEFAULT_INTERVAL = 60.0  # seconds
DEFAULT_TIMEOUT = 10.0  # seconds for a push with all its retries
_STOP_WITHIN = 5.0


class Sender(Protocol):
    """Sends a view; the parts of it that need the SDK."""

    def send(self, view: FleetView) -> str | None:
        """Send it all; return why that failed, None if it did not. Raises nothing."""

    def close(self) -> None:
        """Give up what is under way; called once, from another thread."""


@dataclass(frozen=True, slots=True)
class PushCounts:
    """What became of the pushes so far, and why the last one failed (empty: it did not)."""

    sent: int
    failed: int
    last_error: str


class OtlpPush:
    """Pushes each new view once, at most every `interval` seconds, until it is stopped."""

    def __init__(
        self,
        view: Callable[[], FleetView | None],
        sender: Sender,
        interval: float = DEFAULT_INTERVAL,
        complain: Callable[[str], None] = lambda message: None,
    ) -> None:
        """`complain` gets a line when pushing begins to fail, and one when it works again."""
        self._view = view
        self._sender = sender
        self._interval = interval
        self._complain = complain
        self._end = threading.Event()
        self._counts = PushCounts(0, 0, "")
        self._last: FleetView | None = None
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)

    def start(self) -> None:
        """Begin to push."""
        self._thread.start()

    def stop(self) -> None:
        """End it within some seconds, whatever the collector does."""
        self._end.set()
        self._sender.close()
        if self._thread.ident is not None:
            self._thread.join(_STOP_WITHIN)

    def counts(self) -> PushCounts:
        """Return what became of the pushes so far."""
        return self._counts

    def push(self) -> None:
        """Push the newest view now, unless it was pushed before."""
        view = self._view()
        if view is None or view is self._last:
            return
        error = self._sender.send(view)
        before = self._counts
        if error is None:
            self._last = view
            self._counts = PushCounts(before.sent + 1, before.failed, "")
            if before.last_error:
                self._complain("pushing over OTLP works again")
            return
        self._counts = PushCounts(before.sent, before.failed + 1, error)
        if not before.last_error and not self._end.is_set():
            self._complain(f"pushing over OTLP fails: {error}")

    def _run(self) -> None:
        while not self._end.is_set():
            started = time.monotonic()
            self.push()
            self._end.wait(max(self._interval - (time.monotonic() - started), 0.0))


def open_push(
    view: Callable[[], FleetView | None],
    endpoint: str,
    *,
    interval: float = DEFAULT_INTERVAL,
    timeout: float = DEFAULT_TIMEOUT,
    headers: Mapping[str, str] | None = None,
    certificate_file: str | None = None,
    own_names: bool = False,
    options: MetricOptions | None = None,
    complain: Callable[[str], None] = lambda message: None,
) -> OtlpPush:
    """Return a push to an OTLP/HTTP endpoint, not started yet.

    `own_names` adds the metrics of docs/metrics.md to those of the semantic conventions. The SDK's environment
    variables (OTEL_EXPORTER_OTLP_HEADERS, ..._CERTIFICATE, ..._COMPRESSION) hold where nothing is given. Raises
    UsageError for an endpoint that is none, BackendUnavailable without the extra `otlp`.
    """
    url = metrics_url(endpoint)
    try:
        from gomem.exporters.otlp.sender import HttpSender
    except ImportError as error:
        raise BackendUnavailable(
            f"OTLP needs OpenTelemetry's SDK: {clean(str(error), 120)}", "pip install 'gomem[otlp]'"
        ) from error
    sender = HttpSender(url, timeout, headers, certificate_file, own_names, options or MetricOptions())
    return OtlpPush(view, sender, interval, complain)


def metrics_url(endpoint: str) -> str:
    """Return where metrics go; an endpoint without a path gets OTLP's own. Raises UsageError."""
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(f"{clean(endpoint, 200)} is no http or https URL", "http://HOST:4318 or https://HOST/PATH")
    return urlunsplit(parts._replace(path=METRICS_PATH)) if parts.path in ("", "/") else endpoint


class PushCollector(Collector):
    """What became of the pushes, as metrics; register it beside the others."""

    def __init__(self, counts: Callable[[], PushCounts]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yield the families of one moment."""
        now = self._counts()
        yield CounterMetricFamily("gomem_otlp_pushes", "Views that the OpenTelemetry collector took.", now.sent)
        yield CounterMetricFamily(
            "gomem_otlp_push_failures",
            "Views that could not be pushed over OTLP; while this rises, the collector has gaps.",
            now.failed,
        )
