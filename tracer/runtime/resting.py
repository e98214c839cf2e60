"""The goroutines of a process that runs on meanwhile: those at rest with their stacks, those that run without."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Bytes, Memory
from gomem.tracer.runtime.goroutine_stacks import Unwinder
from gomem.tracer.runtime.goroutines import FIELDS, RUNNING, Goroutines, read_goroutines, read_gs, together

# What changes when a goroutine runs in between. trackingSeq counts how often it did (casgstatus, Go 1.17 and later), so
# that one is told which comes to rest in the very same call again.
_KEPT = (
    "atomicstatus", "goid", "trackingSeq", "sched.pc", "sched.sp", "syscallpc", "syscallsp", "stack.lo", "stack.hi",
)  # fmt: skip
_ATTEMPTS = 2  # of all together
# Those that go on again and again are caught one by one: a few microseconds for each.
_MOST_CAUGHT, _TRIES = 1 << 12, 16
_LARGEST_COPY = 1 << 16


@dataclass(frozen=True, slots=True)
class Resting:
    """Goroutines at rest, the nodes of their stacks in a tree of calls, and whether these are whole, shape (n,) each.

    `running`: those that ran, or were never caught at rest. `unreadable`: how many of allgs are no g.
    """

    goroutines: Goroutines
    node: NDArray[np.int64]
    whole: NDArray[np.bool_]
    running: Goroutines
    unreadable: int


_Part = tuple[Goroutines, NDArray[np.int64], NDArray[np.bool_]]


def read_resting(memory: Memory, layout: Layout, addresses: Mapping[str, int], unwinder: Unwinder) -> Resting:
    """Read all goroutines and unwind those at rest; each stack is of the moment that its g is of.

    Raises LayoutError and SnapshotError where there is no list of goroutines that makes sense.
    """
    read = read_goroutines(memory, layout, addresses)
    running, left = _parted(read.some(read.alive))
    parts, runs = [], [running]
    for _ in range(_ATTEMPTS):
        part, left = _unwound(memory, layout, unwinder, left)
        running, left = _parted(left)
        parts.append(part)
        runs.append(running)
    caught = _Copies(memory, layout, np.sort(left.address)[:_MOST_CAUGHT].tolist())
    rest = read_gs(caught, layout, np.array(caught.gs, np.uint64))
    stacks = unwinder.unwind(rest, caught)
    parts.append((rest, stacks.node, stacks.whole))
    runs.append(left.some(~np.isin(left.address, rest.address)))
    kept, nodes, whole = zip(*parts, strict=True)
    return Resting(together(kept), np.concatenate(nodes), np.concatenate(whole), together(runs), read.unreadable)


def _unwound(memory: Memory, layout: Layout, unwinder: Unwinder, gs: Goroutines) -> tuple[_Part, Goroutines]:
    """Return those that have not moved while they were unwound, with their stacks, and the others as they are now."""
    stacks = unwinder.unwind(gs, memory)
    again = read_gs(memory, layout, gs.address)
    there = np.isin(gs.address, again.address)
    still = there.copy()
    still[there] = _unmoved(gs.some(there), again)
    return (gs.some(still), stacks.node[still], stacks.whole[still]), again.some(~still[there] & again.alive)


def _parted(goroutines: Goroutines) -> tuple[Goroutines, Goroutines]:
    """Return those that run, and the others."""
    running = goroutines.status == RUNNING
    return goroutines.some(running), goroutines.some(~running)


def _unmoved(before: Goroutines, after: Goroutines) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = before.status == after.status
    for name in _KEPT[1:]:
        if name in before.columns:
            same &= before[name] == after[name]
    return same


class _Copies:
    """Memory of goroutines that were caught at rest: their gs, and what is in use of their stacks."""

    def __init__(self, memory: Memory, layout: Layout, addresses: Sequence[int]) -> None:
        """Copy those at `addresses` that rest long enough."""
        self.room = memory.room
        self.gs: list[int] = []
        self._memory = memory
        self._size = layout.size("g")
        self._spots = {name: layout.field("g", name) for name in FIELDS if layout.has("g", name)}
        self._copies: dict[int, bytes] = {}
        for address in addresses:
            self._catch(address)
        self._starts = sorted(self._copies)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of a copy."""
        at = bisect_right(self._starts, address) - 1
        start = self._starts[at] if at >= 0 else address
        found = self._copies.get(start, b"")[address - start : address - start + size]
        if len(found) != size:
            raise SnapshotError(f"nothing was copied of {address:#x}")
        return found

    def read_into(self, address: int, buffer: Bytes) -> None:
        """Fill a buffer from a copy."""
        buffer[:] = np.frombuffer(self.read(address, buffer.nbytes), np.uint8)

    def _catch(self, address: int) -> None:
        for _ in range(_TRIES):
            try:
                raw = self._memory.read(address, self._size)
                sp, high = self._in_use(raw)
                stack = self._memory.read(sp, min(max(high - sp, 0), _LARGEST_COPY))
                again = self._memory.read(address, self._size)
            except SnapshotError:
                continue
            if self._rests(raw) and self._moment(raw) == self._moment(again):
                self.room.take(len(raw) + len(stack), 1, "bytes of its goroutines")
                self._copies |= {address: raw, sp: stack}
                self.gs.append(address)
                return

    def _in_use(self, raw: bytes) -> tuple[int, int]:
        return self._number(raw, "syscallsp") or self._number(raw, "sched.sp"), self._number(raw, "stack.hi")

    def _rests(self, raw: bytes) -> bool:
        columns = {"atomicstatus": np.array([self._number(raw, "atomicstatus")], np.uint64)}
        one = Goroutines(np.zeros(1, np.uint64), columns)
        return bool(one.alive[0]) and int(one.status[0]) != RUNNING

    def _moment(self, raw: bytes) -> list[int]:
        return [self._number(raw, name) for name in _KEPT if name in self._spots]

    def _number(self, raw: bytes, name: str) -> int:
        spot = self._spots[name]
        return int.from_bytes(raw[spot.offset : spot.offset + min(spot.size, 8)], "little")
