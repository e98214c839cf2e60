"""How many bytes an event is about, and exact sums of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.batches import table

_MAX_ERRNO = 4095
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_EXEC, _FIRST_ROLE = int(EventKind.EXEC), int(EventKind.RESERVE)
_USED = int(EventKind.USED)
_MREMAP, _PROCESS_MADVISE = int(EventKind.MREMAP), int(EventKind.PROCESS_MADVISE)
_NO_CALL_BYTES = table(EventKind.BRK, EventKind.EXEC, EventKind.EXIT)
_NO_ROLE_BYTES = table(EventKind.GC_START, EventKind.GC_DONE)


def round_up(sizes: NDArray[np.uint64], page: int) -> NDArray[np.uint64]:
    """Round sizes up to OS pages as the kernel's PAGE_ALIGN does (wrapping at 2^64)."""
    mask = np.uint64(page - 1)
    rounded: NDArray[np.uint64] = (sizes + mask) & ~mask
    return rounded


def is_error(result: int) -> bool:
    """Tell whether a system call returned an error."""
    return -_MAX_ERRNO <= result < 0


def failed_calls(batch: EventBatch) -> NDArray[np.bool_]:
    """Tell which events are system calls that returned an error."""
    result = batch["result"]
    failed: NDArray[np.bool_] = (batch["kind"] < _EXEC) & (result < 0) & (result >= -_MAX_ERRNO)
    return failed


def event_bytes(batch: EventBatch, os_page: int, present: Collection[int]) -> NDArray[np.uint64]:
    """Return the bytes that each event is about, a system call or a role; `present`: the kinds that there are."""
    is_role = batch["kind"] >= _FIRST_ROLE
    if is_role.all():
        return role_bytes(batch)
    sizes = call_bytes(batch, os_page, present)
    return np.where(is_role, role_bytes(batch), sizes) if is_role.any() else sizes


def call_bytes(batch: EventBatch, os_page: int, present: Collection[int]) -> NDArray[np.uint64]:
    """Return the bytes that each system call acts on (0 for brk, whose size depends on the one before)."""
    kinds, args = batch["kind"], batch["args"]
    sizes = round_up(args[:, 1], os_page)
    if _MREMAP in present:
        remapped = kinds == _MREMAP
        sizes[remapped] = round_up(args[remapped, 2], os_page)
    if _PROCESS_MADVISE in present:
        advised = kinds == _PROCESS_MADVISE
        sizes[advised] = np.maximum(batch["result"][advised], 0).astype(np.uint64)
    sizes[_NO_CALL_BYTES[kinds]] = 0
    return sizes


def role_bytes(batch: EventBatch) -> NDArray[np.uint64]:
    """Return the bytes that each role is about; of `used` the prepared ones, if known."""
    kinds, args = batch["kind"], batch["args"]
    sizes = args[:, 1].copy()
    known = (kinds == _USED) & (args[:, 2] > 0)
    sizes[known] = args[known, 2]
    sizes[_NO_ROLE_BYTES[kinds]] = 0
    return sizes


def grouped_sums(
    group: NDArray[np.integer], values: NDArray[np.uint64], groups: int, wanted: Iterable[int] | None = None
) -> list[int]:
    """Return the exact sum of `values` in each of `groups` groups, or only in those `wanted`.

    float64 holds integers up to 2^53: halves of 32 bits, of at most 2^20 values, stay below that.
    """
    low = np.bincount(group, (values & _LOW).astype(np.float64), groups)
    high = np.bincount(group, (values >> _SHIFT).astype(np.float64), groups)
    return [(int(high[at]) << 32) + int(low[at]) for at in (range(groups) if wanted is None else wanted)]
