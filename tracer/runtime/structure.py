"""How a runtime is organised beside pages and spans: central lists, reservations, allocators, counts of the scheduler.

Source: mcentral in runtime/mcentral.go, spanSet in runtime/mspanset.go (Go 1.15 and later), arenaHint and fixalloc in
runtime/mheap.go and runtime/mfixalloc.go, schedt in runtime/runtime2.go, gcount and mcount in runtime/proc.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, MemoryByPages, Words, read_words
from gomem.tracer.report import ArenaHint, FixallocRow, McentralRow, QueuedCalls, Scheduler
from gomem.tracer.runtime.caches import MOST_PS
from gomem.tracer.runtime.finalizers import read_queued
from gomem.tracer.runtime.goroutines import MOST_GOROUTINES, all_gs, count_states, g_bytes
from gomem.tracer.runtime.structs import Record, read_record

# What a heap can have in one set: a span of 8 KB each in 1 TB.
MOST_SPANS_IN_SET = 1 << 27
MOST_HINTS = 1 << 10
# Above this only their number is read, not their states.
MOST_STATES = 1 << 18


class Structure(Struct, frozen=True):
    """What was found; a part that this release lacks, or that could not be read, is None or empty."""

    mcentral: list[McentralRow] | None = None
    arena_hints: list[ArenaHint] | None = None
    current_arena: tuple[int, int] | None = None  # mheap.curArena: where the heap grows now
    fixed_allocs: list[FixallocRow] | None = None
    scheduler: Scheduler | None = None
    queued: QueuedCalls | None = None


NOTHING_KNOWN = Structure()


def read_structure(
    memory: Memory, layout: Layout, addresses: Mapping[str, int], mheap: Record
) -> tuple[Structure, list[str]]:
    """Return the structure, and why a part of it is missing. Raises TargetGone only."""
    missed: list[str] = []

    def attempt(what: str, read: Callable[[], object]) -> object:
        try:
            return read()
        except (SnapshotError, LayoutError) as error:
            missed.append(f"{what}: {error.what}")
            return None

    parts = {
        "mcentral": attempt("mcentral", lambda: mcentral_rows(mheap)),
        "arena_hints": attempt("arena hints", lambda: arena_hints(memory, mheap)),
        "current_arena": attempt("current arena", lambda: current_arena(mheap)),
        "fixed_allocs": attempt("fixed-size allocators", lambda: fixed_allocs(mheap)),
        "queued": attempt("queues of finalizers", lambda: read_queued(memory, layout, addresses)),
        "scheduler": attempt("goroutines", lambda: read_scheduler(memory, layout, addresses)),
    }
    return Structure(**parts), missed  # type: ignore[arg-type]


def mcentral_rows(mheap: Record) -> list[McentralRow] | None:
    """Return the sizes of each span class's sets, of classes that have any span; None before Go 1.15.

    SnapshotError if a set has more spans than a heap can have.
    """
    layout = mheap.layout
    if not layout.has("mcentral", "partial") or not layout.has_struct("spanSet"):
        return None
    central = layout.field("mheap", "central")
    words = np.frombuffer(mheap.bytes_at(central.offset, central.size), "<u8").reshape(central.count, -1)
    index = layout.offset("spanSet", "index") // 8
    step = layout.size("spanSet") // 8
    swept = mheap.number("sweepgen") // 2 % 2
    partial, full = (
        _set_sizes(words[:, [layout.offset("mcentral", name) // 8 + index + step * which for which in (0, 1)]])
        for name in ("partial", "full")
    )
    return [
        McentralRow(
            span_class, int(partial[span_class].sum()), int(full[span_class].sum()),
            int(partial[span_class, 1 - swept]), int(full[span_class, 1 - swept]),
        )
        for span_class in np.flatnonzero((partial + full).sum(axis=1)).tolist()
    ]  # fmt: skip


def _set_sizes(index: Words) -> NDArray[np.int64]:
    """Return how many spans spanSets hold: the tail less the head, which a pop may push past the tail."""
    low, high = index & np.uint64(0xFFFF_FFFF), index >> np.uint64(32)
    sizes = np.maximum(low.astype(np.int64) - high.astype(np.int64), 0)
    if len(sizes) and int(sizes.max()) > MOST_SPANS_IN_SET:
        raise SnapshotError(f"a central list claims {int(sizes.max())} spans")
    return sizes


def arena_hints(memory: Memory, mheap: Record) -> list[ArenaHint]:
    """Return where the runtime will try to get the next arenas, in its order."""
    layout = mheap.layout
    where, down, follow = (layout.offset("arenaHint", name) for name in ("addr", "down", "next"))
    # The hints lie side by side, some 170 to an OS page.
    pages = MemoryByPages(memory)
    hints: list[ArenaHint] = []
    address = mheap.number("arenaHints")
    while address:
        if len(hints) >= MOST_HINTS:
            raise SnapshotError(f"the list of arenaHint does not end within {MOST_HINTS} elements")
        hints.append(ArenaHint(pages.word(address + where), bool(pages.word(address + down) & 0xFF)))
        address = pages.word(address + follow)
    return hints


def current_arena(mheap: Record) -> tuple[int, int] | None:
    """Return [base, end) of what is left of the reservation that the heap grows into; None where there is none yet."""
    if not mheap.has("curArena.base"):
        return None
    base, end = mheap.number("curArena.base"), mheap.number("curArena.end")
    if base > end or end > 1 << 57:
        raise SnapshotError("mheap.curArena is not a range")
    return (base, end) if end else None


def fixed_allocs(mheap: Record) -> list[FixallocRow]:
    """Return what mheap's allocators of one size have handed out: mspans, mcaches, specials and the like."""
    layout = mheap.layout
    rows = []
    for name in layout.fields("mheap"):
        if layout.field("mheap", name).type.rpartition(".")[2] != "fixalloc":
            continue
        size, in_use = mheap.number(f"{name}.size"), mheap.number(f"{name}.inuse")
        if size > 1 << 20 or in_use > 1 << 48:
            raise SnapshotError(f"mheap.{name} makes no sense")
        rows.append(FixallocRow(name, size, in_use))
    return rows


def read_scheduler(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> Scheduler:
    """Count goroutines as runtime.NumGoroutine does, and threads as the runtime does.

    Raises LayoutError if allgs or sched could not be found in the executable, SnapshotError for counts that
    make no sense.
    """
    for name in ("sched", "allgs"):
        if name not in addresses:
            raise LayoutError(f"the global {name} could not be found in the executable")
    sched = read_record(memory, layout, "schedt", addresses["sched"])
    ps = _slice_at(memory, addresses["allp"], MOST_PS, "Ps")
    _, made = _slice_at(memory, addresses["allgs"], MOST_GOROUTINES, "goroutines")
    free = _free_goroutines(sched) + sum(_free_of_p(memory, layout, p) for p in _words(memory, ps))
    system = sched.number("ngsys", signed=True)
    threads = sched.number("mnext", signed=True) - sched.number("nmfreed", signed=True)
    goroutines = made - free - system
    if not 0 <= free <= made + MOST_PS or not 0 <= system <= made or not 0 < threads < 1 << 24:
        raise SnapshotError("the scheduler's counts make no sense")
    return Scheduler(
        goroutines=max(goroutines, 0),
        system_goroutines=system,
        goroutine_states=count_states(memory, layout, all_gs(memory, addresses["allgs"]))
        if made <= MOST_STATES
        else None,
        ms=threads,
        ps=ps[1],
        ended_goroutines=min(free, made),
        ended_bytes=min(free, made) * g_bytes(layout),
    )


def _slice_at(memory: Memory, address: int, bound: int, what: str) -> tuple[int, int]:
    first, length, capacity = read_words(memory, address, 3).tolist()
    if length > capacity or length > bound:
        raise SnapshotError(f"the runtime claims {length} {what}")
    return first, length


def _words(memory: Memory, where: tuple[int, int]) -> list[int]:
    words: list[int] = read_words(memory, *where).tolist()
    return words


def _free_goroutines(sched: Record) -> int:
    if sched.has("gFree.n"):
        return sched.number("gFree.n", signed=True)
    return sum(sched.number(f"gFree.{which}.size", signed=True) for which in ("stack", "noStack"))


def _free_of_p(memory: Memory, layout: Layout, p: int) -> int:
    name = "gFree.n" if layout.has("p", "gFree.n") else "gFree.size"
    return int.from_bytes(memory.read(p + layout.offset("p", name), 4), "little", signed=True)
