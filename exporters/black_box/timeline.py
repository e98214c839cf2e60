"""The looks at one process in a few kilobytes: the last ones all, older ones the more thinly the older they are."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from msgspec import convert

from gomem.exporters.black_box.contents import Moment, Timeline
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.report import Report
from gomem.tracer.report.whole import stat
from gomem.tracer.watch.moments import rfc3339

MOST = 128  # moments, of 15 numbers each: 15 KB
_NONE = -1
_LARGEST = (1 << 63) - 1  # what a process says of itself may be a lie
_FIGURES = tuple(name for name in Moment.__struct_fields__ if name not in ("at", "before_end"))
_ROW = len(_FIGURES) + 1
_PARTS = 1 << 20  # of a share, which is kept as a whole number


class Looks:
    """Keeps the figures of looks."""

    def __init__(self) -> None:
        self.count = 0
        self._rows: array[int] = array("q")

    def __len__(self) -> int:
        return len(self._rows) // _ROW

    def add(self, moment: int, report: Report, cgroup: CgroupMemory | None, near: float | None) -> None:
        """Take what a look saw at a `moment` of CLOCK_MONOTONIC, ns; `cgroup`: the newest figures of its cgroup."""
        self.count += 1
        if len(self) >= MOST:
            self._thin()
        self._rows.append(moment)
        values = _figures(report, cgroup, near)
        self._rows.extend(_NONE if value is None else min(max(value, 0), _LARGEST) for value in values)

    def until(self, end: int, wall: int) -> Timeline:
        """Return the timeline of a process whose end was noticed at `end`, at the time of day `wall`; both ns."""
        return Timeline(self.count, list(self._moments(end, wall)))

    def _moments(self, end: int, wall: int) -> Iterator[Moment]:
        for at in range(0, len(self._rows), _ROW):
            moment, *values = self._rows[at : at + _ROW]
            found: dict[str, object] = {
                name: None if value == _NONE else value for name, value in zip(_FIGURES, values, strict=True)
            }
            if values[-1] != _NONE:
                found["near"] = round(values[-1] / _PARTS, 4)
            before = end - moment
            yield convert({"at": rfc3339(wall - before), "before_end": round(max(before, 0) / 1e9, 3), **found}, Moment)

    def _thin(self) -> None:
        """Drop every second one of the older half: however long it lives, its beginning stays in sight."""
        half = MOST // 2 * _ROW
        kept: array[int] = array("q")
        for at in range(0, half, 2 * _ROW):
            kept.extend(self._rows[at : at + _ROW])
        self._rows = kept + self._rows[half:]


def _figures(report: Report, cgroup: CgroupMemory | None, near: float | None) -> tuple[int | None, ...]:
    """Return the values of _FIGURES."""
    heap, own = report.heap, report.process.cgroup
    use = heap.limit_use if heap is not None else None
    scheduler = report.structure.scheduler if report.structure is not None else None
    limits = [limit for limit in (cgroup.max if cgroup else None, own.memory_max if own else None) if limit is not None]
    idle, released = stat(report, "HeapIdle"), stat(report, "HeapReleased")
    return (
        report.resident.total if report.resident is not None else None,
        stat(report, "HeapInuse"),
        stat(report, "HeapAlloc"),
        heap.live if heap is not None else None,
        heap.goal if heap is not None else None,
        idle - released if idle is not None and released is not None else None,
        stat(report, "StackInuse"),
        use.total if use is not None else None,
        use.limit if use is not None else None,
        stat(report, "NumGC"),
        scheduler.goroutines if scheduler is not None else None,
        own.memory_current if own is not None else None,
        min(limits, default=None),
        None if near is None else int(near * _PARTS),
    )
