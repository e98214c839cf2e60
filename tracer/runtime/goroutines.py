"""Every g that the runtime has made: what it does, since when, who created it, and where its stack is.

Source: g, gobuf and stack in runtime/runtime2.go, allgs and forEachGRace in runtime/proc.go, isSystemGoroutine in
runtime/traceback.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import distinct
from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words, read_words
from gomem.tracer.runtime.size_classes import SizeClasses
from gomem.tracer.runtime.spans import read_blocks

MOST_GOROUTINES = 1 << 24
_GS_AT_ONCE = 1 << 12
_HELD = 32  # of a g: its address, once more for the sorting, and where it lies
_WORD = 8

# What there is to say of a g, by the runtime's names; no release has all of them.
FIELDS = (
    "atomicstatus", "goid", "waitreason", "waitsince", "gopc", "startpc", "parentGoid", "stack.lo", "stack.hi",
    "sched.pc", "sched.sp", "sched.bp", "sched.lr", "syscallpc", "syscallsp", "syscallbp", "m", "labels",
    "runningCleanups", "trackingSeq",
)  # fmt: skip
STATES = {1: "runnable", 2: "running", 3: "syscall", 4: "waiting", 8: "copystack", 9: "preempted", 10: "leaked"}
RUNNING, SYSCALL, WAITING, LEAKED = 2, 3, 4, 10
DEAD = (6, 11)  # free, to be used again; and lent to a C thread
_SCAN = 0x1000  # set while the collector looks at the stack
_NOT_ALIVE = (0, *DEAD)  # idle: being made
# Functions that goroutines began with, which are looked at by their names; no program has as many.
_MOST_STARTS = 1 << 16

# They begin in the runtime, and go on in the program.
_OF_THE_PROGRAM = {"runtime.main", "runtime.corostart", "runtime.handleAsyncEvent"}


@dataclass(frozen=True)
class Goroutines:
    """All gs, dead ones too, in order of their addresses; columns by field have shape (n,).

    A release that lacks a field has no column of it. `unreadable`: how many of allgs are no g.
    """

    address: Words
    columns: Mapping[str, Words]
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.address)

    def __getitem__(self, field: str) -> Words:
        return self.columns[field]

    def get(self, field: str) -> Words | None:
        """Return the column of a field, None where the release has no such field."""
        return self.columns.get(field)

    @cached_property
    def status(self) -> Words:
        """What each does, as a key of STATES or something else, whether or not the collector looks at its stack."""
        return self.columns["atomicstatus"] & np.uint64(0xFFFF_FFFF & ~_SCAN)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Tell which are neither free nor being made."""
        return ~np.isin(self.status, _NOT_ALIVE)

    def some(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Goroutines:
        """Return those at indices, or under a mask."""
        return Goroutines(self.address[which], {name: column[which] for name, column in self.columns.items()})


def together(parts: Sequence[Goroutines]) -> Goroutines:
    """Return those of all parts, of which there is at least one, in their order."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns}
    return Goroutines(np.concatenate([part.address for part in parts]), columns)


def all_gs(memory: Memory, address: int) -> Words:
    """Return the addresses in runtime.allgs, which is at `address`, sorted, each once; SnapshotError for no slice."""
    first, length, capacity = read_words(memory, address, 3).tolist()
    if length > capacity or length > MOST_GOROUTINES:
        raise SnapshotError(f"the runtime claims {length} goroutines")
    memory.room.take(length, _HELD, "goroutines")
    return distinct(read_words(memory, first, length))


def read_goroutines(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> Goroutines:
    """Read all gs of a process whose globals are at `addresses`.

    Raises LayoutError where allgs could not be found in the executable, SnapshotError where it makes no sense.
    """
    if "allgs" not in addresses:
        raise LayoutError("the global allgs could not be found in the executable")
    return read_gs(memory, layout, all_gs(memory, addresses["allgs"]))


def read_gs(memory: Memory, layout: Layout, address: Words) -> Goroutines:
    """Read the gs at sorted addresses, shape (n,); those that cannot be read are counted and left out."""
    fields = [name for name in FIELDS if layout.has("g", name) and layout.field("g", name).size <= _WORD]
    memory.room.take(len(address), _WORD * (len(fields) + 1), "goroutines")
    kept: list[Words] = []
    parts: dict[str, list[Words]] = {name: [] for name in fields}
    for some, columns in _batches(memory, layout, address[address % np.uint64(_WORD) == 0], fields):
        kept.append(some)
        for name, column in columns.items():
            parts[name].append(column)
    read = _joined(kept)
    return Goroutines(read, {name: _joined(part) for name, part in parts.items()}, len(address) - len(read))


def count_states(memory: Memory, layout: Layout, address: Words) -> dict[str, int]:
    """Count the gs at sorted addresses by state; those that are free or being made are left out.

    Raises SnapshotError where one of them is no g.
    """
    if np.any(address % np.uint64(_WORD)):
        raise SnapshotError("allgs holds something that is not a g")
    counts: dict[str, int] = {}
    for first in range(0, address.size, _GS_AT_ONCE):
        columns = _columns(memory, layout, address[first : first + _GS_AT_ONCE], ("atomicstatus",))
        gs = Goroutines(address, columns)
        statuses, numbers = np.unique(gs.status[gs.alive], return_counts=True)
        for status, number in zip(statuses.tolist(), numbers.tolist(), strict=True):
            name = STATES.get(status, "other")
            counts[name] = counts.get(name, 0) + number
    return dict(sorted(counts.items()))


def g_bytes(layout: Layout) -> int:
    """Return what a g takes of the heap; its size alone where the release's size classes are not known."""
    try:
        return SizeClasses.of(layout).taken(layout.size("g"))
    except LayoutError:
        return layout.size("g")


def system_goroutines(
    goroutines: Goroutines,
    name_of: Callable[[int], str],
    calls_back: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
) -> NDArray[np.bool_]:
    """Tell which are the runtime's own, as its profiles do: by the function that each began with (isSystemGoroutine).

    `name_of`: the function at an address. What runs finalizers and cleanups is the program's while it calls one:
    `calls_back` tells that of the goroutines at indices.
    """
    starts, which, counts = np.unique(goroutines["startpc"], return_inverse=True, return_counts=True)
    own, callers = np.zeros(len(starts), np.bool_), np.zeros(len(starts), np.bool_)
    for at in np.argsort(-counts, kind="stable")[:_MOST_STARTS].tolist():
        name = name_of(int(starts[at]))
        own[at] = name.startswith("runtime.") and name not in _OF_THE_PROGRAM
        callers[at] = name in _CALLERS
    found, indices = own[which], np.flatnonzero(callers[which])
    if len(indices):
        found[indices] = ~calls_back(indices)
    return found


# What finalizers (up to Go 1.24 and since) and cleanups are called by.
_CALLERS = {"runtime.runfinq", "runtime.runFinalizers", "runtime.runCleanups"}


def _batches(
    memory: Memory, layout: Layout, address: Words, fields: Sequence[str]
) -> Iterator[tuple[Words, dict[str, Words]]]:
    for first in range(0, address.size, _GS_AT_ONCE):
        some = address[first : first + _GS_AT_ONCE]
        try:
            yield some, _columns(memory, layout, some, fields)
        except SnapshotError:
            for one in np.split(some, some.size):
                try:
                    yield one, _columns(memory, layout, one, fields)
                except SnapshotError:
                    continue


def _columns(memory: Memory, layout: Layout, address: Words, fields: Sequence[str]) -> dict[str, Words]:
    words, position = read_blocks(memory, address, layout.size("g"))
    columns = {}
    for name in fields:
        spot = layout.field("g", name)
        column = words[position + spot.offset // _WORD]
        if spot.size < _WORD:
            column = column >> np.uint64(spot.offset % _WORD * 8) & np.uint64((1 << spot.size * 8) - 1)
        columns[name] = column
    return columns


def _joined(parts: list[Words]) -> Words:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)
