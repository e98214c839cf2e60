"""What the exporter of OpenTelemetry logged last: the reason of a failed push."""

from __future__ import annotations

import logging

from gomem.exporters.units import clean


class LastWords(logging.Handler):
    """Keeps the last warning of a logger instead of printing all of them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, in one line."""
        self.last = clean(record.getMessage(), 300)
