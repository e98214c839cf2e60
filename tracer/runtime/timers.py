"""Timers that have not fired, and the functions that they will call.

Source: timer in runtime/time.go: up to Go 1.22 a P's slice of them (p.timers), since Go 1.23 a heap (timers.heap).
Stopped ones stay in it until the P gets round to them (deletedTimers, zombies). Since Go 1.23 timers with a channel are
in no heap unless a goroutine waits for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, MemoryByPages, Words, read_words
from gomem.tracer.report import TimerFunction, Timers
from gomem.tracer.runtime.caches import MOST_PS

MOST_TIMERS = 1 << 28
# Timers whose functions are looked at; of more, these are a sample.
LOOKED_AT = 2048
MOST_FUNCTIONS = 10
_WORD = 8
# What time.AfterFunc gives the runtime to call; the function to call is its argument.
_AFTER_FUNC = "time.goFunc"
_NO_NAME = "?"


def read_timers(memory: Memory, layout: Layout, allp: int, name_of: Callable[[int], str | None]) -> Timers:
    """Read the timers of every P in the slice at address `allp`; `name_of` tells the function at an address.

    Raises LayoutError for a release whose timers are not known, SnapshotError for counts that make no sense,
    TargetGone.
    """
    address, ps, _ = read_words(memory, allp, 3).tolist()
    if ps > MOST_PS:
        raise SnapshotError(f"the runtime claims {ps} Ps")
    of_each = [_slice_of(memory, layout, p) for p in read_words(memory, address, ps).tolist()]
    count, stopped = sum(length for _, length, _ in of_each), sum(gone for _, _, gone in of_each)
    if count > MOST_TIMERS or stopped > count:
        raise SnapshotError(f"the runtime claims {count} timers, {stopped} of them stopped")
    parts = [_some(memory, layout, start, length, count) for start, length, _ in of_each if length]
    chosen = np.concatenate(parts) if parts else np.zeros(0, np.uint64)
    found = _functions(memory, layout, chosen, name_of)
    rows = [TimerFunction(function, timers) for function, timers in found.most_common(MOST_FUNCTIONS)]
    return Timers(count, stopped, count * layout.size("timer"), len(chosen), rows)


def _slice_of(memory: Memory, layout: Layout, p: int) -> tuple[int, int, int]:
    """Return where a P's timers are, how many, and how many of them are stopped."""
    heaped = layout.has("p", "timers.heap")
    where, gone = ("timers.heap", "timers.zombies") if heaped else ("timers", "deletedTimers")
    start, length, capacity = read_words(memory, p + layout.offset("p", where), 3).tolist()
    if length > capacity or length > MOST_TIMERS:
        raise SnapshotError(f"a P claims {length} timers")
    stopped = int.from_bytes(memory.read(p + layout.offset("p", gone), 4), "little", signed=True)
    return start, length, min(max(stopped, 0), length)


def _some(memory: Memory, layout: Layout, start: int, length: int, of_all: int) -> Words:
    """Return the addresses of a P's timers, or of its share of LOOKED_AT, evenly taken."""
    stride = layout.size("timerWhen") if layout.has_struct("timerWhen") else _WORD
    if of_all <= LOOKED_AT:
        return read_words(memory, start, length * stride // _WORD)[:: stride // _WORD]
    wanted = max(length * LOOKED_AT // of_all, 1)
    # A few neighbours at a time: one read for each would take as long as reading all.
    pieces = np.linspace(0, length, -(-wanted // 16) + 1).astype(np.int64)
    found = [
        read_words(memory, start + at * stride, min(16, length - at) * stride // _WORD)[:: stride // _WORD]
        for at in pieces[:-1].tolist()
    ]
    return np.concatenate(found)[:wanted]


def _functions(memory: Memory, layout: Layout, timers: Words, name_of: Callable[[int], str | None]) -> Counter[str]:
    pages = MemoryByPages(memory)
    called, argument = layout.offset("timer", "f"), layout.offset("timer", "arg") + layout.offset("eface", "data")
    found: Counter[str] = Counter()
    for timer in timers.tolist():
        try:
            name = _name(pages, pages.word(timer + called), name_of)
            if name == _AFTER_FUNC:
                name = _name(pages, pages.word(timer + argument), name_of)
        except SnapshotError:
            name = _NO_NAME  # it has gone meanwhile
        found[name] += 1
    return found


def _name(pages: MemoryByPages, function: int, name_of: Callable[[int], str | None]) -> str:
    """Return the name of a function value: it points at where its code begins."""
    return (name_of(pages.word(function)) if function else None) or _NO_NAME
