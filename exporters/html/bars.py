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


_KINDS = (
    ("outside Go", "c", ("c_heap", "other")),
    ("of files", "file", ("binary", "shared_library", "file")),
    ("Go runtime's own", "runtime", ("heap_metadata", "page_summary", "runtime_other", "other_runtime")),
    ("thread stacks", "thread", ("thread_stack",)),
)


def parts_of_ram(report: Report) -> list[Part] | None:
    """Return what RSS is made of, the sum of which it is; None where it is not known."""
    resident = report.resident
    if resident is None:
        return None
    if report.heap is None:
        return [Part(resident.anonymous, "anonymous", "in_use"), Part(resident.file, "of files", "file")]
    pages = report.heap.resident
    parts = [
        Part(pages.in_use, "heap in use", "in_use"),
        Part(pages.free, "heap kept free", "free"),
        Part(pages.scavenged, "heap given back, still here", "scavenged"),
        Part(pages.stacks, "goroutine stacks", "stack"),
    ]
    kinds = {row.kind: row.resident or 0 for row in report.kinds or ()}
    parts += [Part(sum(kinds.get(kind, 0) for kind in those), name, colour) for name, colour, those in _KINDS]
    told = sum(part.bytes or 0 for part in parts)
    return [*parts, Part(max(0, resident.total - told), "other", "unknown")]


def in_ram(report: Report) -> Bar | None:
    """Return what the process has in RAM; None where that is not known."""
    parts = parts_of_ram(report)
    return bar("In RAM", report.resident.total, parts) if parts is not None and report.resident is not None else None


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
