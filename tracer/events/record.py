"""Events: the one record that every event source yields and the model consumes.

A source (BPF, strace, a recording) yields batches: NumPy arrays of dtype EVENT, in order of `time`
within one batch. The BPF programs write this very record, so decoding a batch costs one frombuffer.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

MAX_STACK = 16


class EventKind(IntEnum):
    """What happened. Syscalls < 32 <= process events < 64 <= rare runtime roles < 96 <= frequent ones.

    RSS, RSS_PEAK and PAGE_FAULTS are sums over many hits, told now and then: of what the hits were is in no event.
    SPAN_PROBES_ON and _OFF are the source's own: from when until when it watched for span events; their first argument
    is the budget in millionths of the target's time, and whether that was spent. USED_PROBES_ON and _OFF say the
    same of USED, which is watched for from the start. STATES_UNSEEN is ours as well: until then runtime functions may
    have been called that had no probes yet. 73 was a call of the scavenger, in recordings of earlier versions.
    """

    MMAP = 1
    MUNMAP = 2
    MREMAP = 3
    MPROTECT = 4
    MADVISE = 5
    PROCESS_MADVISE = 6
    BRK = 7

    EXEC = 32
    EXIT = 33

    RSS = 40
    RSS_PEAK = 41
    PAGE_FAULTS = 42

    SPAN_PROBES_ON = 48
    SPAN_PROBES_OFF = 49
    STATES_UNSEEN = 50
    USED_PROBES_ON = 51
    USED_PROBES_OFF = 52

    RESERVE = 64
    MAP = 65
    USED = 66
    UNUSED = 67
    FAULT = 68
    FREE = 69
    ALLOC = 70
    GROW = 71
    ARENA = 72
    GC_START = 74
    GC_DONE = 75
    MALLOCGC = 96
    SPAN_ALLOC = 97
    SPAN_FREE = 98
    REFILL = 99
    LARGE_ALLOC = 100


SYSCALL_KINDS = tuple(kind for kind in EventKind if kind < 32)
ROLE_KINDS = tuple(kind for kind in EventKind if kind >= 64)
RARE_ROLES = tuple(kind for kind in ROLE_KINDS if kind < EventKind.MALLOCGC)
RESIDENCY_KINDS = (EventKind.RSS, EventKind.RSS_PEAK, EventKind.PAGE_FAULTS)
SPAN_ROLES = (EventKind.SPAN_ALLOC, EventKind.SPAN_FREE)
SPAN_MARKS = (EventKind.SPAN_PROBES_ON, EventKind.SPAN_PROBES_OFF)
USED_MARKS = (EventKind.USED_PROBES_ON, EventKind.USED_PROBES_OFF)

EVENT = np.dtype(
    [
        ("time", "<u8"),  # CLOCK_MONOTONIC ns: of a syscall, its exit; of a role, the hit
        ("entered", "<u8"),  # CLOCK_MONOTONIC ns of a syscall's entry; 0 for others
        ("tid", "<u4"),  # thread id, as the tracer's PID namespace numbers it
        ("kind", "<u2"),  # EventKind
        ("depth", "<u2"),  # valid entries of `stack`
        # Syscalls: the six arguments as the kernel got them. Roles, in canonical order whatever the
        # release's registers are: RESERVE, MAP, UNUSED, FAULT, FREE (address, bytes);
        # USED (address, bytes, prepared bytes or 0 if unknown); ALLOC (0, bytes);
        # GROW (0, bytes, runtime pages); ARENA (0, bytes); MALLOCGC (0, bytes); REFILL (0, span class in the lowest
        # byte, address of the mcache); LARGE_ALLOC (0, bytes): the last three are counted in the kernel, and no events;
        # GC_START (heapLive, the bytes counted as live then; heapMarked, those that the last cycle marked; the heap
        # goal that it had), each 0 if unknown;
        # SPAN_ALLOC, SPAN_FREE (address or 0 if unknown, bytes, span class, spanAllocType of runtime/mheap.go:
        # 0 the heap, 1 stacks, above that what else is managed by hand).
        # RSS (bytes of resident anonymous, file and shmem pages and of swap entries now, changes since the last such
        # event); RSS_PEAK (the highest of each since then, the highest sum of the first three).
        # PAGE_FAULTS since the last such event (address and bytes of a region, or 0 and 0 for all that were not told
        # apart by region; faults; bits for 64 equal parts of the region, the lowest first, set where one was touched
        # for the first time; faults taken by the kernel for the process; writes); result: faults on a page that was
        # in RAM already.
        ("args", "<u8", (6,)),
        ("result", "<i8"),  # syscalls: return value, or -errno; roles: 0
        # Return addresses in the target's address space, innermost caller first; for a role
        # stack[0] is the address in the caller that the probed function returns to.
        ("stack", "<u8", (MAX_STACK,)),
    ]
)

EventBatch = NDArray[np.void]


def no_events() -> EventBatch:
    """Return an empty batch."""
    return np.zeros(0, dtype=EVENT)
