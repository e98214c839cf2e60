"""How many bytes an event is about, and exact sums of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tracer.events import EventBatch, Kind

_MAX_ERRNO = 4095
_ADDRESS_SPACE = 1 << 47  # of a user process on amd64 and arm64
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def round_up(sizes: NDArray[np.uint64], page: int) -> NDArray[np.uint64]:
    """Round sizes up to OS pages as the kernel's PAGE_ALIGN does (wrapping at 2^64)."""
    mask = np.uint64(page - 1)
    rounded: NDArray[np.uint64] = (sizes + mask) & ~mask
    return rounded


def failed_calls(batch: EventBatch) -> NDArray[np.bool_]:
    """Tell which events are system calls that returned an error."""
    result = batch["result"]
    failed: NDArray[np.bool_] = (batch["kind"] < Kind.EXEC) & (result < 0) & (result >= -_MAX_ERRNO)
    return failed


def call_bytes(batch: EventBatch, os_page: int) -> NDArray[np.uint64]:
    """Return the bytes that each system call acts on (0 for brk, whose size depends on the one before)."""
    kinds, args = batch["kind"], batch["args"]
    sizes = round_up(args[:, 1], os_page)
    remapped = kinds == Kind.MREMAP
    sizes[remapped] = round_up(args[remapped, 2], os_page)
    advised = kinds == Kind.PROCESS_MADVISE
    sizes[advised] = np.maximum(batch["result"][advised], 0).astype(np.uint64)
    sizes[(kinds == Kind.BRK) | (kinds == Kind.EXEC) | (kinds == Kind.EXIT)] = 0
    return sizes


def role_bytes(batch: EventBatch) -> NDArray[np.uint64]:
    """Return the bytes that each role is about; of `used` the prepared ones, if known, of `scavenge` those wanted."""
    args = batch["args"]
    sizes = args[:, 1].copy()
    known = (batch["kind"] == Kind.USED) & (args[:, 2] > 0)
    sizes[known] = args[known, 2]
    sizes[(batch["kind"] == Kind.GC_START) | (batch["kind"] == Kind.GC_DONE)] = 0
    # debug.FreeOSMemory asks for ^uintptr(0): all there is, which is no number of bytes.
    sizes[(batch["kind"] == Kind.SCAVENGE) & (sizes > np.uint64(_ADDRESS_SPACE))] = 0
    return sizes


def grouped_sums(group: NDArray[np.intp], values: NDArray[np.uint64], groups: int) -> list[int]:
    """Return the exact sum of `values` in each of `groups` groups.

    float64 holds integers up to 2^53: halves of 32 bits, of at most 2^20 values, stay below that.
    """
    low = np.bincount(group, (values & _LOW).astype(np.float64), groups)
    high = np.bincount(group, (values >> _SHIFT).astype(np.float64), groups)
    return [(int(h) << 32) + int(part) for h, part in zip(high, low, strict=True)]
