"""Moments as a person names them: seconds since a beginning, or a date and a time."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from gomem.tracer.errors import UsageError

_FIX = "seconds since the beginning, as in --at 12.5, or a time, as in --at 2026-03-01T12:00:00Z"


def parse_moment(text: str) -> float | datetime:
    """Return seconds, or a time with its zone (UTC where none is given). Raises UsageError."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if not math.isfinite(seconds) or seconds < 0:
            raise UsageError(f"--at {text}: no moment of a recording", _FIX)
        return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--at {text}: neither seconds nor a time", _FIX) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def rfc3339(nanoseconds: int) -> str:
    """Return a time, ns since 1970, as RFC 3339 in UTC with milliseconds; "" outside the years 1 to 9999."""
    try:
        moment = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
