"""The figures that are told of each process beside all others, and kept of the last hour: each a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from gomem.tracer.report import RUNTIME_NONE, CollectorWork, Heap, Report, Resident, Virtual, stat

Figure = Callable[[Report], int | float | None]
Unit = Literal["bytes", "count", "rate", "share"]

_OUTSIDE = ("c_heap", "other")


def outside(report: Report) -> int | None:
    """Return the bytes in RAM of C's heap and of mappings that are not the Go runtime's; None where it is not known."""
    if report.kinds is None or report.heap is None:
        return None
    return sum(row.resident or 0 for row in report.kinds if row.kind in _OUTSIDE)


def _of_heap(take: Callable[[Heap], int | None]) -> Figure:
    return lambda report: take(report.heap) if report.heap is not None else None


def _of_ram(take: Callable[[Resident], int | None]) -> Figure:
    return lambda report: take(report.resident) if report.resident is not None else None


def _of_space(take: Callable[[Virtual], int | None]) -> Figure:
    return lambda report: take(report.virtual) if report.virtual is not None else None


def _of_collector(take: Callable[[CollectorWork], float | None]) -> Figure:
    def figure(report: Report) -> float | None:
        collector = report.heap.collector if report.heap is not None else None
        return take(collector) if collector is not None else None

    return figure


def _if_any(limit: int | None) -> int | None:
    return limit if limit is not None and limit < RUNTIME_NONE else None


def _container(report: Report) -> int | None:
    return _if_any(report.process.cgroup.memory_max) if report.process.cgroup is not None else None


def _threads(report: Report) -> int | None:
    if report.structure is not None:
        return report.structure.threads
    return report.thread_stacks.threads if report.thread_stacks is not None else None


def _goroutines(report: Report) -> int | None:
    scheduler = report.structure.scheduler if report.structure is not None else None
    return scheduler.goroutines if scheduler is not None else None


# By name: the unit, and how the figure is taken of a report. Parts of the heap are what of them is in RAM.
FIGURES: Mapping[str, tuple[Unit, Figure]] = {
    "rss": ("bytes", _of_ram(lambda ram: ram.total)),
    "firm": ("bytes", _of_ram(lambda ram: ram.total - (ram.lazy_free or 0))),
    "in_use": ("bytes", _of_heap(lambda heap: heap.resident.in_use)),
    "live": ("bytes", _of_heap(lambda heap: heap.live)),
    "goal": ("bytes", _of_heap(lambda heap: _if_any(heap.goal))),
    "free": ("bytes", _of_heap(lambda heap: heap.resident.free)),
    "stacks": ("bytes", _of_heap(lambda heap: heap.resident.stacks)),
    "outside": ("bytes", outside),
    "file": ("bytes", _of_ram(lambda ram: ram.file)),
    "swap": ("bytes", _of_ram(lambda ram: ram.swap)),
    "ready": ("bytes", _of_space(lambda space: space.ready)),
    "prepared": ("bytes", _of_space(lambda space: space.prepared)),
    "reserved": ("bytes", _of_space(lambda space: space.reserved)),
    "gomemlimit": ("bytes", _of_heap(lambda heap: _if_any(heap.memory_limit))),
    "container": ("bytes", _container),
    "threads": ("count", _threads),
    "goroutines": ("count", _goroutines),
    "cycles": ("count", lambda report: stat(report, "NumGC")),
    "gc_rate": ("rate", _of_collector(lambda collector: collector.cycles_per_second)),
    "mark_share": ("share", _of_collector(lambda collector: collector.mark_share)),
}
