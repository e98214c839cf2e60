"""Bars: what a total of bytes is made of. The geometry only; the templates draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gomem.exporters.units import size
from gomem.tracer.report import Report


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bar: bytes (None: not known), how it is called, and the class that colours it."""

    bytes: int | None
    name: str
    colour: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A part whose bytes are known, and its place in the bar, in units of its width."""

    bytes: int
    name: str
    colour: str
    x: str
    width: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A total in bytes and its parts, the first at the left. `whole`: the bytes of the full width."""

    UNITS: ClassVar = 10000  # the width of a whole bar

    title: str
    total: int | None
    whole: int
    parts: tuple[Drawn, ...]

    @property
    def words(self) -> str:
        """What the picture says, for those who cannot see it."""
        parts = ", ".join(f"{part.name} {size(part.bytes)}" for part in self.parts)
        return f"{self.title} {size(self.total)}: {parts}"


def bar(title: str, total: int | None, parts: Sequence[Part]) -> Bar:
    """Return a bar of `parts` of `total` bytes; parts that are not known are left out."""
    known = [(part, part.bytes) for part in parts if part.bytes is not None]
    whole = max(total or 0, sum(count for _, count in known), 1)
    drawn, at = [], 0.0
    for part, count in known:
        width = Bar.UNITS * count / whole
        drawn.append(Drawn(count, part.name, part.colour, f"{at:.1f}", f"{width:.1f}"))
        at += width
    return Bar(title, total, whole, tuple(drawn))


def in_ram(report: Report) -> Bar | None:
    """Return what the process has in RAM; None where that is not known."""
    resident = report.resident
    if resident is None:
        return None
    if report.heap is None:
        parts = [Part(resident.anonymous, "anonymous", "in_use"), Part(resident.file, "of files", "rest")]
        return bar("In RAM", resident.total, parts)
    pages = report.heap.resident
    heap = pages.in_use + pages.stacks + pages.free + pages.scavenged
    return bar(
        "In RAM", resident.total,
        [
            Part(pages.in_use, "heap in use", "in_use"),
            Part(pages.stacks, "goroutine stacks", "stacks"),
            Part(pages.free, "heap kept free", "free"),
            Part(pages.scavenged, "heap given back, still here", "scavenged"),
            Part(max(0, resident.total - heap), "other", "rest"),
        ],
    )  # fmt: skip


def address_space(report: Report) -> Bar | None:
    """Return what the runtime has mapped, by its state; None where that is not known."""
    virtual = report.virtual
    if virtual is None:
        return None
    return bar(
        "Address space", virtual.total,
        [
            Part(virtual.ready, "Ready", "ready"),
            Part(virtual.prepared, "Prepared", "prepared"),
            Part(virtual.reserved, "Reserved", "reserved"),
            Part(virtual.unmanaged, "not the Go runtime's", "unmanaged"),
        ],
    )  # fmt: skip
