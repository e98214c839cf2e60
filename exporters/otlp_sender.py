"""Sending a view over OTLP/HTTP with OpenTelemetry's own exporter, which retries, compresses and does TLS."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult

from exporters.otlp import INSTRUMENTS, metrics_data, own_instruments
from exporters.otlp_push import LastWords
from exporters.prometheus.catalog import MetricOptions
from exporters.prometheus.families import HighWater
from exporters.units import clean
from tracer.fleet.view import FleetView

# What it says of a collector that is down, at every attempt, is not for standard error.
_LOGGER = logging.getLogger("opentelemetry.exporter")
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False


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
            compression=Compression.Gzip,
        )  # fmt: skip
        self._instruments = INSTRUMENTS + (own_instruments(options) if own_names else ())
        self._high_water = HighWater()
        self._words = LastWords()
        _LOGGER.addHandler(self._words)

    def send(self, view: FleetView) -> str | None:
        """Send it all; return why that failed, None if it did not."""
        try:
            self._words.last = ""
            result = self._exporter.export(metrics_data(view, self._high_water, self._instruments))
        except Exception as error:
            # requests and its adapters raise many kinds; none may end the thread that pushes.
            return clean(f"{type(error).__name__}: {error}", 300)
        return None if result is MetricExportResult.SUCCESS else self._words.last or "the collector refused it"

    def close(self) -> None:
        """Give up what is under way."""
        self._exporter.shutdown()
        _LOGGER.removeHandler(self._words)
