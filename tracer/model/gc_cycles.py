"""Garbage collections, from the events of their start and end."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

MOST_CYCLES = 1000
LARGEST = 1 << 57  # bytes of address space
_SETTLED = 15_000_000  # ns after gcMarkTermination was called, until the controller knows what was marked


class GcCycle(Struct):
    """One cycle; times in CLOCK_MONOTONIC ns, sizes in bytes, None for what was not seen.

    `heap_before` is what counted as live when it began (gcController.heapLive), `heap_after` the bytes that it marked
    (heapMarked), `goal` the heap goal that it had (lastHeapGoal): the events of its start and the next one's say so
    where the probe can read them. Else a look says it that came between the cycle before and this one: the heap goal,
    and the allocated heap (HeapAlloc); and one that came between this one and the next: the bytes marked.
    """

    started: int | None = None
    ended: int | None = None
    goal: int | None = None
    heap_before: int | None = None
    heap_after: int | None = None


class GcCycles:
    """Pairs starts with ends; keeps the last cycles and counts those that ended."""

    def __init__(self, most: int = MOST_CYCLES) -> None:
        self.ended = 0
        self._cycles: deque[GcCycle] = deque(maxlen=most)
        self._open: GcCycle | None = None
        self._next_goal: int | None = None
        self._next_heap: int | None = None

    @property
    def cycles(self) -> list[GcCycle]:
        """The cycles in order of time, the one under way included."""
        return [*self._cycles, *([self._open] if self._open else [])]

    def start(self, time: int, live: int = 0, last_marked: int = 0, last_goal: int = 0) -> None:
        """Begin a cycle, with what the event of its start says of it and of the one before; 0: nothing."""
        if self._open is not None:
            self._cycles.append(self._open)
        live, last_marked, last_goal = (size if size < LARGEST else 0 for size in (live, last_marked, last_goal))
        if self._cycles and self._cycles[-1].ended is not None:
            last = self._cycles[-1]
            last.heap_after, last.goal = last_marked or last.heap_after, last_goal or last.goal
        self._open = GcCycle(started=time, goal=self._next_goal, heap_before=live or self._next_heap)
        self._next_goal = self._next_heap = None

    def done(self, time: int) -> None:
        """End the cycle that is under way, or one whose start was not seen."""
        cycle = self._open or GcCycle()
        cycle.ended = time
        self._cycles.append(cycle)
        self._open = None
        self._next_goal = self._next_heap = None
        self.ended += 1

    def look(self, began: int, ended: int, goal: int, allocated: int, marked: int) -> None:
        """Take what a look saw: the next goal, HeapAlloc, and the bytes marked by the last cycle.

        Events may be known that came after it. One into which a cycle fell is of no use.
        """
        before, after = None, None
        for cycle in reversed(self.cycles):
            if cycle.started is not None and cycle.started > ended:
                after = cycle
            elif cycle.ended is not None and cycle.ended + _SETTLED <= began:
                before = cycle
                break
            else:
                return
        if after is None:
            self._next_goal, self._next_heap = goal, allocated
        else:
            after.goal, after.heap_before = after.goal or goal, after.heap_before or allocated
        if before is not None and before.heap_after is None:
            before.heap_after = marked

    def forget(self) -> None:
        """Drop a cycle whose end will not be seen."""
        self._open = None
        self._next_goal = self._next_heap = None
