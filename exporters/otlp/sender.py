"""Sending a view over OTLP/HTTP with OpenTelemetry's own exporter, which retries, compresses and does TLS."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from requests.adapters import HTTPAdapter

from gomem.exporters.otlp.last_words import LastWords
from gomem.exporters.otlp.metrics_data import INSTRUMENTS, metrics_data, own_instruments, with_cgroups
from gomem.exporters.prometheus.catalog import MetricOptions
from gomem.exporters.prometheus.families import HighWater
from gomem.exporters.units import clean
from gomem.tracer.fleet.view import FleetView

# What it says of a collector that is down, at every attempt, is not for standard error.
_LOGGER = logging.getLogger("opentelemetry.exporter")
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False


class _Unread(HTTPAdapter):
    """Takes the head of an answer only: a collector may send a body without end, or a byte now and then."""

    def send(self, *args: Any, **options: Any) -> requests.Response:
        """Send a request as ever, and hang up when its answer has a head."""
        response = super().send(*args, **{**options, "stream": True})
        response.raw.close()
        response.raw = io.BytesIO()
        return response


def _session() -> requests.Session:
    session = requests.Session()
    session.max_redirects = 0  # who leads us elsewhere would get the figures, and the headers with our keys
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Unread())
    return session


class HttpSender:
    """Sends all processes of a view in one request."""

    def __init__(
        self,
        url: str,
        timeout: float,
        headers: Mapping[str, str] | None,
        certificate_file: str | None,
        own_names: bool,
        options: MetricOptions,
    ) -> None:
        """`timeout` is in seconds, for one view with all retries."""
        self._exporter = OTLPMetricExporter(
            endpoint=url, timeout=timeout, headers=dict(headers or {}) or None, certificate_file=certificate_file,
            compression=Compression.Gzip, session=_session(),
        )  # fmt: skip
        self._own_names = own_names
        self._instruments = INSTRUMENTS + (own_instruments(options) if own_names else ())
        self._high_water = HighWater()
        self._words = LastWords()
        _LOGGER.addHandler(self._words)

    def send(self, view: FleetView) -> str | None:
        """Send it all; return why that failed, None if it did not."""
        try:
            self._words.last = ""
            data = metrics_data(view, self._high_water, self._instruments)
            result = self._exporter.export(with_cgroups(data, view) if self._own_names else data)
        except Exception as error:
            # requests and its adapters raise many kinds; none may end the thread that pushes.
            return clean(f"{type(error).__name__}: {error}", 300)
        return None if result is MetricExportResult.SUCCESS else self._words.last or "the collector refused it"

    def close(self) -> None:
        """Give up what is under way."""
        self._exporter.shutdown()
        _LOGGER.removeHandler(self._words)
