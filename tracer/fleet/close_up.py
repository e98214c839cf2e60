"""What a fleet tells of the one process that somebody looks at closely: its memory map, goroutines, and call sites.

Each of them is read again only when it has not cost more than its share of one CPU: see `CloseUps`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from gomem.tracer.errors import GomemError, TargetExecuted, TargetGone
from gomem.tracer.fleet.schedule import LOOK_SHARE
from gomem.tracer.profile.goroutine_looks import GoroutineLooks
from gomem.tracer.profile.heap import heap_profile
from gomem.tracer.report.goroutines import GoroutineReport
from gomem.tracer.report.memory_map import MemoryMap
from gomem.tracer.report.profile import Profile
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.snapshot.memory_map import memory_map

_LEAST_GAP = 2.0  # seconds between two readings of one thing

_What = TypeVar("_What")


@dataclass(frozen=True, slots=True)
class Part(Generic[_What]):
    """One thing that was read: `what` (None: not yet, or not to be had, and `why` says why), `at` time.monotonic()."""

    what: _What | None = None
    why: str = ""
    at: float | None = None


@dataclass(frozen=True, slots=True)
class CloseUp:
    """What was read of one process beside its report. The parts are of different moments."""

    map: Part[MemoryMap] = field(default_factory=Part)
    goroutines: Part[GoroutineReport] = field(default_factory=Part)
    heap: Part[Profile] = field(default_factory=Part)


@dataclass(slots=True)
class _Turn(Generic[_What]):
    """When one part is read again: such that reading it takes LOOK_SHARE of one CPU at the most."""

    due: float = 0.0

    def take(self, before: Part[_What], read: Callable[[], _What]) -> Part[_What]:
        """Return what `read` gives if it is time to, else what there was before. Raises when the process has ended."""
        if time.monotonic() < self.due:
            return before
        used = time.thread_time()
        try:
            part = Part(read(), "", time.monotonic())
        except (TargetGone, TargetExecuted):
            raise
        except GomemError as error:
            part = Part(before.what, error.in_one_line(), before.at)
        self.due = time.monotonic() + max((time.thread_time() - used) / LOOK_SHARE, _LEAST_GAP)
        return part


class CloseUps:
    """Reads the close-ups of one process, for the thread that looks at it."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self._map, self._goroutines, self._heap = _Turn[MemoryMap](), _Turn[GoroutineReport](), _Turn[Profile]()
        self._newest = CloseUp()

    def take(self, look: Snapshot | None) -> CloseUp:
        """Return what is known after a look. Raises TargetGone, TargetExecuted."""
        newest, inspector = self._newest, self._inspector
        if look is not None:
            newest = replace(newest, map=self._map.take(newest.map, lambda: memory_map(look)))
        if inspector.program.is_go:
            newest = replace(
                newest,
                goroutines=self._goroutines.take(newest.goroutines, self._look_at_goroutines),
                heap=self._heap.take(newest.heap, lambda: heap_profile(inspector)),
            )
        self._newest = newest
        return newest

    def _look_at_goroutines(self) -> GoroutineReport:
        looks = GoroutineLooks(self._inspector, "creator")
        looks.look()
        return looks.report()
