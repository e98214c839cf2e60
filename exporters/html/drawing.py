"""What the table's templates ask for: figures as words, and the geometry of its small pictures."""

from __future__ import annotations

from collections.abc import Sequence

from gomem.exporters.html.bars import Bar, Part
from gomem.exporters.units import UNKNOWN, percent, size, three_digits

_NONE = "-"  # no limit, or none that is known


def figure(value: float | str | None, unit: str) -> str:
    """Return the figure of a column of that unit as words."""
    if value is None or isinstance(value, str):
        return value or (_NONE if unit == "share" else UNKNOWN)
    if unit == "bytes":
        return size(value)
    if unit == "share":
        return percent(value, 1)
    if unit == "slope":
        return f"{'+' if value > 0 else ''}{size(value)}/h"
    return three_digits(value)


def placed(parts: Sequence[Part], scale: int) -> list[tuple[Part, str, str]]:
    """Return the parts that there is anything of, each with its place and width, of Bar.UNITS for `scale` bytes."""
    found, at = [], 0
    for part in parts:
        if part.bytes:
            found.append((part, f"{Bar.UNITS * at / scale:.1f}", f"{Bar.UNITS * part.bytes / scale:.1f}"))
            at += part.bytes
    return found


def told(parts: Sequence[Part]) -> str:
    """Return what a bar shows, for those who cannot see it."""
    return ", ".join(f"{part.name} {size(part.bytes)}" for part in parts if part.bytes)


def spark_path(values: Sequence[float | None]) -> str:
    """Return the path of a line through values, 1 wide each, of which the highest is at 0 and 0 at 1."""
    most = max([value for value in values if value is not None], default=0.0)
    path, on = "", False
    for at, value in enumerate(values):
        if value is not None:
            path += f"{'L' if on else 'M'}{at + 0.5},{1 - value / max(most, 1.0):.3f}{'' if on else 'h0'}"
        on = value is not None
    return path
