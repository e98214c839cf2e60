"""What is kept of the looks at a process to show them: a map of some, and the main figures of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gomem.tracer.errors import LayoutError, NotPermitted, SnapshotError, TargetError
from gomem.tracer.profile.beside import Beside
from gomem.tracer.profile.held import held_bytes
from gomem.tracer.report.goroutines import GoroutineReport
from gomem.tracer.report.memory_map import CoursePoint, MemoryMap, Moment, Picture
from gomem.tracer.runtime.slots import Slots, read_slots
from gomem.tracer.snapshot.glance import Glance
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.snapshot.join import virtual
from gomem.tracer.snapshot.memory_map import memory_map

MOST_MAPS = 16
_MOST_BYTES = 96 << 20  # of all maps together, but for the last
_MOST_POINTS = 4000
_BYTES_OF_A_SPAN, _BYTES_OF_AN_AREA = 32, 64

OnLook = Callable[[Snapshot, int], None]


@dataclass(frozen=True, slots=True)
class _Kept:
    ended: int  # CLOCK_MONOTONIC ns
    rss: int
    map: MemoryMap

    @property
    def bytes(self) -> int:
        spans, areas = len(self.map.spans.first), len(self.map.areas.start)
        return len(self.map.pages) + spans * _BYTES_OF_A_SPAN + areas * _BYTES_OF_AN_AREA


class Album:
    """Takes looks at one program as they come; the last one is always kept, and that with the most RAM."""

    def __init__(self, most: int = MOST_MAPS) -> None:
        """`most`: maps that are kept."""
        self._most = most
        self._before: list[_Kept] = []
        self._last: tuple[Snapshot, int] | None = None
        self._course: list[tuple[int, CoursePoint]] = []
        self._slots: Slots | None = None
        self.goroutines: GoroutineReport | None = None

    def see(self, look: Snapshot, ended: int) -> None:
        """Take a look that `ended` just now, CLOCK_MONOTONIC ns."""
        if self._last is not None and self._most > 1:
            self._keep(*self._last)
        self._last, self._slots = (look, ended), None
        self._note(ended, _point(look))

    def glance(self, at: int, seen: Glance) -> None:
        """Take the figures of a glance, of the moment `at`, CLOCK_MONOTONIC ns."""
        self._note(at, CoursePoint(rss=seen.rss, in_use=seen.in_use, live=seen.live))

    def _note(self, at: int, point: CoursePoint) -> None:
        self._course.append((at, point))
        if len(self._course) > _MOST_POINTS:
            del self._course[1:-1:2]

    def read_slots(self, inspector: Inspector) -> None:
        """Read which slots of the last look's spans hold objects; of those that have changed since it is not known."""
        runtime = self._last[0].runtime if self._last is not None else None
        layout = inspector.program.layout
        if runtime is None or layout is None:
            return
        try:
            memory = inspector.memory()
            memory.start_budget()
            self._slots = read_slots(memory, layout, runtime.spans)
        except (SnapshotError, LayoutError, TargetError, NotPermitted):
            return

    def has(self, ended: int) -> bool:
        """Tell whether the last look was that which `ended` then, or one after it."""
        return self._last is not None and self._last[1] >= ended

    def picture(self, start: int, beside: Beside | None = None) -> Picture:
        """Return what was seen, with moments counted from `start`, CLOCK_MONOTONIC ns.

        `beside`: what was read with the last look, while its process can still be asked for names.
        """
        if self._last is None:
            return Picture(goroutines=self.goroutines)
        look, ended = self._last
        kept = [*self._before, _Kept(ended, 0, memory_map(look, self._slots))]
        return Picture(
            [Moment(_seconds(one.ended, start), one.map) for one in kept],
            held_bytes(look, beside) if beside is not None and beside.is_of(look.kernel) else held_bytes(look),
            self.goroutines,
            [(_seconds(at, start), point) for at, point in sorted(self._course, key=lambda noted: noted[0])],
        )

    def _keep(self, look: Snapshot, ended: int) -> None:
        self._before.append(_Kept(ended, look.kernel.residency.rss_bytes, memory_map(look)))
        while len(self._before) >= self._most or sum(one.bytes for one in self._before) > _MOST_BYTES:
            del self._before[self._least_missed()]

    def _least_missed(self) -> int:
        """Return which map is the nearest to its neighbours in time; not the first, nor that with the most RAM."""
        kept = self._before
        peak = max(range(len(kept)), key=lambda at: kept[at].rss)
        inner = [at for at in range(1, len(kept) - 1) if at != peak]
        if not inner:
            return len(kept) - 1 if peak != len(kept) - 1 else 0
        return min(inner, key=lambda at: kept[at + 1].ended - kept[at - 1].ended)


def _seconds(at: int, start: int) -> float:
    return round((at - start) / 1e9, 3)


def _point(look: Snapshot) -> CoursePoint:
    runtime = look.runtime
    space = virtual(look.space, runtime_known=runtime is not None)
    memstats = runtime.memstats if runtime is not None else {}
    in_use = memstats.get("HeapInuse")
    return CoursePoint(
        rss=look.kernel.residency.rss_bytes,
        reserved=space.reserved,
        prepared=space.prepared,
        ready=space.ready,
        in_use=in_use if isinstance(in_use, int) else None,
        live=runtime.collector.live if runtime is not None else None,
        threads=look.kernel.status.threads,
    )
