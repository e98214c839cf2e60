"""How long something takes, as people type it: 10, 10s, 2m, 1h30m, 500ms."""

from __future__ import annotations

import re

_SECONDS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(h|min|ms|m|s)", re.ASCII | re.IGNORECASE)
_LONGEST = 64  # characters


def parse_duration(text: str) -> float | None:
    """Return the seconds that `text` means: a plain number is seconds. None where it is no duration with units."""
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return float(sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts))
