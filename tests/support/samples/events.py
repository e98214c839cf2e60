"""Events for the tests of the model, made one by one."""

from __future__ import annotations

import numpy as np

from gomem.tracer.events.record import EVENT, EventBatch, EventKind

PAGE = 4096
PRIVATE, SHARED, FIXED, ANONYMOUS, GROWSDOWN, NOREPLACE = 2, 1, 0x10, 0x20, 0x100, 0x100000
READ, WRITE, EXEC = 1, 2, 4


def event(
    kind: EventKind, at: int, *args: int, result: int = 0, entered: int | None = None, tid: int = 1, caller: int = 0
) -> np.void:
    """Return one event; a system call takes one ns unless `entered` says otherwise."""
    row: np.void = np.zeros(1, dtype=EVENT)[0]
    row["kind"], row["time"], row["tid"], row["result"] = kind, at, tid, result
    row["entered"] = (at - 1 if entered is None else entered) if kind < 32 else 0
    row["args"][: len(args)] = [arg % 2**64 for arg in args]
    if caller:
        row["depth"], row["stack"][0] = 1, caller
    return row


def batch(*events: np.void) -> EventBatch:
    return np.array(list(events), dtype=EVENT)


def mmap(at: int, result: int, pages: int, prot: int = READ | WRITE, flags: int = PRIVATE | ANONYMOUS,
         entered: int | None = None, tid: int = 1, hint: int | None = None) -> np.void:  # fmt: skip
    asked = result if hint is None else hint
    return event(EventKind.MMAP, at, asked, pages * PAGE, prot, flags, -1, result=result, entered=entered, tid=tid)


def munmap(at: int, address: int, pages: int, entered: int | None = None, tid: int = 1, result: int = 0) -> np.void:
    return event(EventKind.MUNMAP, at, address, pages * PAGE, entered=entered, tid=tid, result=result)


def mprotect(at: int, address: int, pages: int, prot: int, entered: int | None = None, tid: int = 1,
             result: int = 0) -> np.void:  # fmt: skip
    return event(EventKind.MPROTECT, at, address, pages * PAGE, prot, entered=entered, tid=tid, result=result)


def mremap(at: int, old: int, old_pages: int, new_pages: int, result: int, flags: int = 1,
           entered: int | None = None, tid: int = 1) -> np.void:  # fmt: skip
    args = old, old_pages * PAGE, new_pages * PAGE, flags, result if flags & 2 else 0
    return event(EventKind.MREMAP, at, *args, result=result, entered=entered, tid=tid)


def churn(count: int, random: np.random.Generator, slots: int = 20_000) -> EventBatch:
    """Return a busy runtime's and a busy program's events: half of each, in `slots` places of 64 KB."""
    events = np.zeros(count, EVENT)
    kinds = np.array(
        [EventKind.USED, EventKind.UNUSED, EventKind.MADVISE, EventKind.MMAP, EventKind.MUNMAP, EventKind.MPROTECT]
    )
    events["kind"] = random.choice(kinds, count, p=[0.2, 0.15, 0.15, 0.2, 0.15, 0.15])
    events["time"] = np.arange(1, count + 1) * 1000
    is_call = events["kind"] < EventKind.EXEC
    events["entered"] = np.where(is_call, events["time"] - 500, 0)
    events["tid"] = random.integers(1, 9, count)
    address = random.integers(0, slots, count, dtype=np.uint64) * np.uint64(16 * PAGE)
    heap = np.isin(events["kind"], (EventKind.USED, EventKind.UNUSED, EventKind.MADVISE))
    address += np.where(heap, np.uint64(0xC0_0000_0000), np.uint64(0x7F00_0000_0000))
    events["args"][:, 0] = address
    events["args"][:, 1] = PAGE * random.integers(1, 17, count, dtype=np.uint64)
    events["args"][:, 2] = np.where(events["kind"] == EventKind.MPROTECT, READ, READ | WRITE)
    events["args"][:, 3] = PRIVATE | ANONYMOUS | FIXED
    events["result"] = np.where(events["kind"] == EventKind.MMAP, address, 0).astype(np.int64)
    events["depth"] = 6
    events["stack"] = random.integers(0x400000, 0x500000, (100, 16), dtype=np.uint64)[random.integers(0, 100, count)]
    return events
