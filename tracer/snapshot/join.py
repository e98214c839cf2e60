"""The product: for every byte of address space, what the runtime says of it x what the kernel says of it.

Pure: a runtime snapshot and the kernel's mappings and residency in, the sections of the report out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, distinct, split
from gomem.tracer.addresses.region_states import NONE, PREPARED, READY, RESERVED
from gomem.tracer.kernel.mapping_kinds import Program, mapping_kinds
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.native.c_memory import NativeRange
from gomem.tracer.report import (
    KINDS,
    Accounting,
    Arena,
    KindRow,
    PageResidency,
    PageStates,
    StateResidency,
    Virtual,
)
from gomem.tracer.runtime.pages import PageState
from gomem.tracer.runtime.regions import Region
from gomem.tracer.runtime.snapshot import RuntimeSnapshot

# What owned ranges say of their bytes: a PageState, or one of these.
_NATIVE, NOT_GROWN, _BY_PROTECTION = 253, 254, 255

Index = NDArray[np.int64]
Addresses = NDArray[np.uint64]


class _Owned(Struct, frozen=True):
    """What the runtime owns and what C is proven to use, in ranges of one state; sorted, disjoint; shape (n,)."""

    start: Addresses
    end: Addresses
    kind: Index  # into KINDS
    page: NDArray[np.uint8]  # PageState, _NATIVE, NOT_GROWN or _BY_PROTECTION
    arena: Index  # which arena, or -1


class AddressSpace(Struct, frozen=True):
    """Every mapped byte, cut so that each piece has one mapping, one kind and one state; shape (n,) each."""

    start: Addresses
    end: Addresses
    mapping: Index
    kind: Index
    state: Index  # of region_states, never UNKNOWN
    page: NDArray[np.uint8]
    arena: Index
    resident: Addresses
    swap: Addresses
    unmapped: int  # bytes that the runtime claims and the kernel has not

    @property
    def size(self) -> Addresses:
        """Return the size of each piece."""
        return self.end - self.start

    def bytes_in(self, state: int) -> int:
        """Return the bytes in one region state."""
        return int(self.size[self.state == state].sum())


def join(
    mappings: Mappings,
    residency: Residency,
    snapshot: RuntimeSnapshot | None,
    program: Program | None,
    natives: Sequence[NativeRange] = (),
) -> AddressSpace:
    """Join the kernel's view with the runtime's; without a snapshot every byte is unmanaged.

    `natives`: what C is proven to use, disjoint from the runtime's regions.
    """
    regions = snapshot.regions if snapshot else []
    space = _overlay(mappings, residency, _owned(regions, natives, snapshot), program)
    if snapshot is None:
        return space
    found = _owed_by_accounting(mappings, space, snapshot)
    if not found:
        return space
    return _overlay(mappings, residency, _owned([*regions, *found], natives, snapshot), program)


def _start(one: Region | NativeRange) -> int:
    return one.start


def _owned(regions: Sequence[Region], natives: Sequence[NativeRange], snapshot: RuntimeSnapshot | None) -> _Owned:
    starts, ends, pages = snapshot.pages.runs() if snapshot else _no_runs()
    columns: list[tuple[Addresses, Addresses, int, NDArray[np.uint8], int]] = []
    arena = -1
    everything: list[Region | NativeRange] = [*regions, *natives]
    for region in sorted(everything, key=_start):
        kind = KINDS.index(region.kind)
        if isinstance(region, Region) and region.what == "arena":
            arena += 1
            columns.append(_arena_ranges(region, kind, arena, starts, ends, pages))
        else:
            edge = np.array([region.start], np.uint64), np.array([region.end], np.uint64)
            page = _BY_PROTECTION if isinstance(region, Region) else _NATIVE
            columns.append((*edge, kind, np.array([page], np.uint8), -1))
    if not columns:
        none = np.zeros(0, np.uint64)
        return _Owned(none, none, np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.int64))
    lengths = [len(column[0]) for column in columns]
    return _Owned(
        np.concatenate([column[0] for column in columns]),
        np.concatenate([column[1] for column in columns]),
        np.repeat(np.array([column[2] for column in columns], np.int64), lengths),
        np.concatenate([column[3] for column in columns]),
        np.repeat(np.array([column[4] for column in columns], np.int64), lengths),
    )


def _no_runs() -> tuple[Addresses, Addresses, NDArray[np.uint8]]:
    return np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint8)


def _arena_ranges(
    region: Region, kind: int, arena: int, starts: Addresses, ends: Addresses, pages: NDArray[np.uint8]
) -> tuple[Addresses, Addresses, int, NDArray[np.uint8], int]:
    """Cut one arena at the borders of its page runs; what lies between runs has not been grown into."""
    low, high = np.uint64(region.start), np.uint64(region.end)
    first = int(np.searchsorted(ends, low, side="right"))
    last = int(np.searchsorted(starts, high, side="left"))
    begin = np.maximum(starts[first:last], low)
    until = np.minimum(ends[first:last], high)
    points = distinct(np.concatenate((np.array([low, high], np.uint64), begin, until)))
    cut, end = points[:-1], points[1:]
    run = np.searchsorted(begin, cut, side="right") - 1
    inside = (run >= 0) & (cut < until[np.maximum(run, 0)]) if len(begin) else np.zeros(len(cut), np.bool_)
    state = np.full(len(cut), NOT_GROWN, np.uint8)
    state[inside] = pages[first:last][run[inside]]
    return cut, end, kind, state, arena


def _overlay(mappings: Mappings, residency: Residency, owned: _Owned, program: Program | None) -> AddressSpace:
    points = distinct(np.concatenate((mappings.start, mappings.end, owned.start, owned.end)))
    start, end = points[:-1], points[1:]
    mapping = _containing(mappings.start, mappings.end, start)
    owner = _containing(owned.start, owned.end, start)
    unmapped = int((end - start)[(mapping < 0) & (owner >= 0)].sum())
    keep = mapping >= 0
    start, end, mapping, owner = start[keep], end[keep], mapping[keep], owner[keep]
    mine = owner >= 0
    kind = mapping_kinds(mappings, program)[mapping]
    page = np.full(len(start), _BY_PROTECTION, np.uint8)
    arena = np.full(len(start), -1, np.int64)
    kind[mine], page[mine], arena[mine] = owned.kind[owner[mine]], owned.page[owner[mine]], owned.arena[owner[mine]]
    return AddressSpace(
        start=start,
        end=end,
        mapping=mapping,
        kind=kind,
        state=np.where(mine, _states(page, mappings.readable[mapping]), NONE),
        page=np.where(mine, page, np.uint8(_BY_PROTECTION)),
        arena=arena,
        resident=residency.rss_in(start, end),
        swap=residency.swap_in(start, end),
        unmapped=unmapped,
    )


def _containing(starts: Addresses, ends: Addresses, points: Addresses) -> Index:
    """Return which of the sorted ranges holds each point, or -1."""
    if not len(starts):
        return np.full(len(points), -1, np.int64)
    index = np.searchsorted(starts, points, side="right").astype(np.int64) - 1
    return np.where((index >= 0) & (points < ends[np.maximum(index, 0)]), index, -1)


def _states(page: NDArray[np.uint8], readable: NDArray[np.bool_]) -> Index:
    """Return the region state of owned pieces.

    Outside the arenas everything that is mapped is used at once (sysMap and sysUsed, or sysAlloc), so that
    what is accessible is Ready and what is PROT_NONE is Reserved.
    """
    state = np.where(readable, READY, RESERVED)
    state = np.where(page == NOT_GROWN, RESERVED, state)
    state = np.where(page == _NATIVE, NONE, state)
    state = np.where(page == PageState.SCAVENGED, PREPARED, state)
    return np.where(page < PageState.SCAVENGED, READY, state)


def _owed_by_accounting(mappings: Mappings, space: AddressSpace, snapshot: RuntimeSnapshot) -> list[Region]:
    """Return anonymous ranges that no structure names but the runtime's own count of its bytes proves its.

    Only when all that is left over is exactly what the count lacks; else some of it is the program's own.
    """
    account = accounting(space, snapshot)
    missing = account.unexplained if account else _missing_of_sys(space, snapshot)
    if missing <= 0:
        return []
    anonymous = np.array([not name for name in mappings.name], np.bool_) & mappings.writable & ~mappings.shared
    other = KINDS.index("other")
    left = (space.state == NONE) & (space.kind == other) & anonymous[space.mapping]
    if int(space.size[left].sum()) != missing:
        return []
    return [
        Region(start, end - start, "runtime_other", "counted by the runtime, named by none of its structures")
        for start, end in zip(space.start[left].tolist(), space.end[left].tolist(), strict=True)
    ]


def _missing_of_sys(space: AddressSpace, snapshot: RuntimeSnapshot) -> int:
    """Return what the ranges found lack of memstats.Sys, which counts all that was ever mapped (up to Go 1.18)."""
    told = snapshot.memstats["Sys"]
    assert isinstance(told, int)
    index, rounding = _uncounted(snapshot)
    return told + index + rounding - space.bytes_in(READY) - space.bytes_in(PREPARED)


def _uncounted(snapshot: RuntimeSnapshot) -> tuple[int, int]:
    """Return the bytes that the runtime does not count: the heap index, and what fills requests up to OS pages."""
    rounding = sum(region.end - region.start - region.size for region in snapshot.regions if region.counted)
    return sum(region.size for region in snapshot.regions if region.what == "heap index"), rounding


def accounting(space: AddressSpace, snapshot: RuntimeSnapshot) -> Accounting | None:
    """Compare the Ready bytes found with those that the runtime counts (gcController.mappedReady, from Go 1.19 on)."""
    counted = snapshot.collector.mapped_ready
    if counted is None:
        return None
    index, rounding = _uncounted(snapshot)
    ready = space.bytes_in(READY)
    expected = counted + index + rounding
    return Accounting(
        mapped_ready=counted,
        heap_index=index,
        page_rounding=rounding,
        unexplained=expected - ready,
    )


def virtual(space: AddressSpace, mappings: Mappings | None = None, *, runtime_known: bool) -> Virtual:
    """Return the address space by region state; `mappings` are those that it was joined from."""
    total = int(space.size.sum())
    if not runtime_known:
        return Virtual(total, None, None, None, None)
    reserved, prepared, ready, unmanaged = (space.bytes_in(state) for state in (RESERVED, PREPARED, READY, NONE))
    if mappings is None:
        return Virtual(total, reserved, prepared, ready, unmanaged)
    closed = np.append(~(mappings.readable | mappings.writable | mappings.executable), False)
    # What was mapped after the look is in none of them.
    no_access = (space.state == NONE) & closed[np.minimum(space.mapping, len(mappings))]
    masks = (*(space.state == state for state in (RESERVED, PREPARED, READY, NONE)), no_access)
    resident = StateResidency(*(int(space.resident[mask].sum()) for mask in masks))
    return Virtual(total, reserved, prepared, ready, unmanaged, int(space.size[no_access].sum()), resident)


def kind_rows(space: AddressSpace, anonymous: Addresses | None = None, shmem: Addresses | None = None) -> list[KindRow]:
    """Sum the pieces by kind, largest residency first; kinds without any piece are left out.

    `anonymous`, `shmem`: how much of each piece's residency is that, None where it could not be told.
    """
    rows = []
    size = space.size
    for number in distinct(space.kind).tolist():
        mask = space.kind == number
        reserved, prepared, ready = (
            int(size[mask & (space.state == state)].sum()) for state in (RESERVED, PREPARED, READY)
        )
        rows.append(
            KindRow(
                KINDS[number],
                len(distinct(space.mapping[mask])),
                int(size[mask].sum()),
                reserved,
                prepared,
                ready,
                int(space.resident[mask].sum()),
                int(space.swap[mask].sum()),
                None if anonymous is None else int(anonymous[mask].sum()),
                None if shmem is None else int(shmem[mask].sum()),
            )
        )
    return sorted(rows, key=lambda row: (-(row.resident or 0), -row.virtual))


def arena_rows(space: AddressSpace, snapshot: RuntimeSnapshot) -> list[Arena]:
    """Return every arena, by address."""
    bases = [region for region in snapshot.regions if region.what == "arena"]
    starts, ends, pages = snapshot.pages.runs()
    first = np.array([region.start for region in bases], np.uint64)
    last = np.array([region.end for region in bases], np.uint64)
    # Neighbouring arenas share a run that is one state across their border.
    runs, run = split(Ranges(starts, ends), np.concatenate((first, last)))
    count = len(bases)
    use = np.zeros((5, count + 1), np.int64)
    where = pages[run].astype(np.int64), _containing(first, last, runs.start)
    np.add.at(use, where, runs.sizes().astype(np.int64))
    states = np.zeros((4, count + 1), np.int64)
    mine = space.arena >= 0
    np.add.at(states, (space.state[mine], space.arena[mine]), space.size[mine].astype(np.int64))
    resident = np.zeros(count + 1, np.int64)
    np.add.at(resident, space.arena[mine], space.resident[mine].astype(np.int64))
    return [
        Arena(
            base=region.start,
            size=region.size,
            reserved=int(states[RESERVED, at]),
            prepared=int(states[PREPARED, at]),
            ready=int(states[READY, at]),
            in_use=int(use[PageState.IN_USE, at]),
            stacks=int(use[PageState.STACK, at]),
            work_bufs=int(use[PageState.WORK_BUF, at]),
            free=int(use[PageState.FREE, at]),
            scavenged=int(use[PageState.SCAVENGED, at]),
            resident=int(resident[at]),
        )
        for at, region in enumerate(bases)
    ]


def page_states(snapshot: RuntimeSnapshot) -> PageStates:
    """Return the bytes of heap pages by state."""
    return PageStates(*(snapshot.pages.bytes_of(state) for state in PageState))


def page_residency(space: AddressSpace) -> PageResidency:
    """Return how much of each page state is in RAM."""
    return PageResidency(*(int(space.resident[space.page == page].sum()) for page in (*PageState, NOT_GROWN)))
