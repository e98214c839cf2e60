"""What a look at the target says of every byte, in the model's terms: what it starts from and is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.region_states import NONE
from gomem.tracer.model.mappings import EXECUTABLE, FILE, GROWSDOWN, MAPPED, READABLE, SHARED, UNKNOWN, WRITABLE

if TYPE_CHECKING:
    from gomem.tracer.kernel.maps import Mappings
    from gomem.tracer.snapshot.inspection import Snapshot

# The kernel maps these itself when a probe of anybody is hit first: no system call of the target's does.
_OF_THE_KERNEL = ("[uprobes]", "[uprobes-trampoline]")


class Cover(Struct, frozen=True):
    """Values of disjoint address ranges, sorted; columns of shape (n,)."""

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    value: NDArray[np.int64]

    def steps(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the same as Steps.columns: starts and values from address 0 to 2^64, 0 between the ranges."""
        if not len(self.start):
            return np.zeros(1, np.uint64), np.zeros(1, np.int64)
        gap = np.append(self.start[1:] != self.end[:-1], True)
        starts = np.concatenate((np.zeros(1, np.uint64), self.start, self.end[gap]))
        values = np.concatenate((np.zeros(1, np.int64), self.value, np.zeros(int(gap.sum()), np.int64)))
        if self.start[0] == 0:
            starts, values = starts[1:], values[1:]
        order = np.argsort(starts, kind="stable")
        return starts[order], values[order]


class ModelInput(Struct, frozen=True):
    """One look. Times are CLOCK_MONOTONIC ns.

    The mappings were read between `maps_began` and `ended`; what the states were made from between `began` and
    `ended`. `states` is None where the runtime could not be read, or only torn.
    """

    began: int
    maps_began: int
    ended: int
    mappings: Cover
    heap_end: int | None  # the break; rounded up to a page
    states: Cover | None
    arenas: tuple[tuple[int, int], ...] = ()  # base, size
    heap: tuple[int, int, int] | None = None  # goal, HeapAlloc, bytes marked by the last cycle

    @classmethod
    def of(cls, look: Snapshot) -> ModelInput:
        """Return a look in the model's terms."""
        kernel, runtime = look.kernel, look.runtime
        mappings = kernel.mappings
        maps_began, ended = kernel.mappings_read
        value = mapping_values(mappings)
        heap = [end for end, name in zip(mappings.end.tolist(), mappings.name, strict=True) if name == "[heap]"]
        cover = Cover(mappings.start, mappings.end, value)
        heap_end = max(heap, default=kernel.start_break or None)
        if runtime is None or not runtime.consistency.exact:
            return cls(maps_began, maps_began, ended, cover, heap_end, None)
        memstats = runtime.memstats
        goal, allocated = memstats["NextGC"], memstats["HeapAlloc"]
        assert isinstance(goal, int)
        assert isinstance(allocated, int)
        return cls(
            began=runtime.read_at[0],
            maps_began=maps_began,
            ended=ended,
            mappings=cover,
            heap_end=heap_end,
            states=_states(look),
            arenas=tuple((region.start, region.size) for region in runtime.regions if region.what == "arena"),
            heap=(goal, allocated, runtime.collector.live),
        )


def mapping_values(mappings: Mappings) -> NDArray[np.int64]:
    """Return what /proc/PID/maps shows of each mapping as a value of the model; the kernel's own count as unknown."""
    value = np.full(len(mappings), MAPPED, np.int64)
    for flag, column in (
        (READABLE, mappings.readable),
        (WRITABLE, mappings.writable),
        (EXECUTABLE, mappings.executable),
        (SHARED, mappings.shared),
        (FILE, (mappings.inode != 0) | (mappings.device != 0)),
        (GROWSDOWN, np.array([name == "[stack]" for name in mappings.name], np.bool_)),
    ):
        value |= np.where(column, flag, 0)
    value[np.array([name in _OF_THE_KERNEL for name in mappings.name], np.bool_)] = UNKNOWN
    return value


def _states(look: Snapshot) -> Cover:
    space = look.space
    keep = space.state != NONE
    return Cover(space.start[keep], space.end[keep], space.state[keep])
