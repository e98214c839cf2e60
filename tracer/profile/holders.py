"""Who holds the memory of a process: every byte of a joined look, by a path from the whole to its holder. Pure.

The look says for each piece of address space whose it is and how much of it is in RAM; a path is a name for that. What
is in pages in use is told by `in_use.py`, whose stacks there are by `goroutine_stacks.py`, and whose memory is
that Go has not by `mapped.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.region_states import NONE
from gomem.tracer.profile.slots import Integers, Sizes
from gomem.tracer.report import KINDS
from gomem.tracer.runtime.pages import PageState
from gomem.tracer.runtime.regions import Region
from gomem.tracer.snapshot.join import NOT_GROWN, AddressSpace

Path = tuple[str, ...]
Mask = NDArray[np.bool_]
# How a size was told. "pages": counted by OS page. "slots": by the runtime's counts of the slots in spans. "samples":
# estimated from the runtime's heap profile, within what is counted.
Basis = Literal["pages", "slots", "samples"]

GO_HEAP, GO_RUNTIME = "Go heap", "Go runtime"
_ARENA = KINDS.index("heap_arena")
_PAGES: dict[int, Path] = {
    PageState.WORK_BUF: (GO_RUNTIME, "GC work buffers"),
    PageState.FREE: (GO_HEAP, "free and retained"),
    PageState.SCAVENGED: (GO_HEAP, "scavenged, yet in RAM"),
    NOT_GROWN: (GO_HEAP, "arenas beyond what the heap has grown into"),
}
_ARENAS = (GO_HEAP, "arenas whose pages are not told apart")
_UNNAMED = "counted by the runtime, named by none of its structures"


@dataclass(frozen=True, slots=True)
class Holder:
    """What holds memory: bytes of address space, and how many of them are in RAM.

    `stack`: the call that made it, as indices of locations, the innermost first.
    """

    path: Path
    virtual: int
    resident: int
    basis: Basis = "pages"
    stack: tuple[int, ...] = ()


def merged(holders: Iterable[Holder]) -> list[Holder]:
    """Return the holders with those of one path, stack and basis made one, and without those of nothing."""
    sums: dict[tuple[Path, Basis, tuple[int, ...]], tuple[int, int]] = {}
    for one in holders:
        key = one.path, one.basis, one.stack
        virtual, resident = sums.get(key, (0, 0))
        sums[key] = virtual + one.virtual, resident + one.resident
    return [Holder(path, *sizes, basis, stack) for (path, basis, stack), sizes in sums.items() if any(sizes)]


def sizes_of(space: AddressSpace) -> Sizes:
    """Return the sizes of all pieces."""
    return Sizes(space.size.astype(np.int64), space.resident.astype(np.int64))


def heap_mask(space: AddressSpace) -> Mask:
    """Tell which pieces are of the Go heap."""
    return np.equal(space.kind, _ARENA)


def of_heap(space: AddressSpace) -> Iterator[Holder]:
    """Yield what holds the Go heap, but for its pages in use and those of stacks."""
    sizes, heap = sizes_of(space), heap_mask(space)
    for page in np.unique(space.page[heap]).tolist():
        if page not in (PageState.IN_USE, PageState.STACK):
            yield Holder(_PAGES.get(page, _ARENAS), *sizes.at(heap & (space.page == page)).total())


def runtime_mask(space: AddressSpace) -> Mask:
    """Tell which pieces are what the runtime needs for itself."""
    return np.not_equal(space.state, NONE) & ~heap_mask(space)


def of_runtime(space: AddressSpace, regions: Sequence[Region]) -> Iterator[Holder]:
    """Yield what the runtime needs for itself by what it is for; `regions`: sorted and disjoint."""
    own = np.flatnonzero(runtime_mask(space))
    names = [*dict.fromkeys(region.what for region in regions), _UNNAMED]
    number = {name: at for at, name in enumerate(names)}
    of_region = np.array([*(number[region.what] for region in regions), len(names) - 1], np.int64)
    which = of_region[_containing(regions, space.start[own])]
    sums = sizes_of(space).at(own).grouped(which, len(names))
    for name, virtual, resident in zip(names, sums.virtual.tolist(), sums.resident.tolist(), strict=True):
        yield Holder((GO_RUNTIME, name), virtual, resident)


def _containing(regions: Sequence[Region], points: NDArray[np.uint64]) -> Integers:
    """Return which region each point is in; that behind the last one where it is in none."""
    starts, ends = (np.array([getattr(region, edge) for region in regions], np.uint64) for edge in ("start", "end"))
    at = np.searchsorted(starts, points, side="right").astype(np.int64) - 1
    inside = (at >= 0) & (points < np.append(ends, np.uint64(0))[at])
    return np.where(inside, at, len(regions))
