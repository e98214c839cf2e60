"""How far two moments of reports are apart. Pure."""

from __future__ import annotations

from datetime import datetime


def seconds_between(before: str, after: str) -> float | None:
    """Return the seconds from one moment to the other, both RFC 3339; None where one is none."""
    try:
        return round((datetime.fromisoformat(after) - datetime.fromisoformat(before)).total_seconds(), 3)
    except (ValueError, TypeError, OverflowError):
        return None
