"""An address space as a look saw it, brought forward to a later moment by what the model made of the events since.

Pure. What is mapped and its region states are the model's; the kinds of what was there already, and what of it is in
RAM, stay those of the look. Heap pages follow their states: Prepared ones are scavenged, and a scavenged one that is
Ready again is in use. Events do not tell in use from free otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tracer.inspection import Look
from tracer.join import PREPARED, READY, RESERVED, UNMANAGED, AddressSpace
from tracer.model import mappings as mapped
from tracer.model import states
from tracer.model.space import AddressSpaceModel
from tracer.report import KINDS, Arena, PageStates
from tracer.runtime.pages import PageState

Index = NDArray[np.int64]
Points = NDArray[np.uint64]
# As tracer.join marks what is no heap page: not grown into, or anything else.
_NOT_GROWN, _NO_PAGE = 254, 255
_STATE = np.array([UNMANAGED, RESERVED, PREPARED, READY, UNMANAGED], np.int64)


@dataclass(frozen=True, slots=True)
class Advanced:
    """The address space of the later moment, and whether it differs from the look's at all."""

    space: AddressSpace
    changed: bool


def advance(look: Look, model: AddressSpaceModel) -> Advanced:
    """Return the address space of `look` as the model has it now; new mappings count as not resident."""
    space = look.space
    maps_start, maps_value = model.mappings.map.columns()
    states_start, states_value = model.states.map.columns()
    points = np.unique(np.concatenate((space.start, space.end, maps_start, states_start)))
    start, end = points[:-1], points[1:]
    old = containing(space.start, space.end, start)
    value, told = _at(maps_start, maps_value, start), _at(states_start, states_value, start) & states.STATE_MASK
    keep = (value & mapped.MAPPED != 0) | ((value & mapped.UNKNOWN != 0) & (old >= 0))
    start, end, old, value, told = start[keep], end[keep], old[keep], value[keep], told[keep]
    arena = _arena_of(look, start)
    was_state, was_page = _from(space.state, old, UNMANAGED), _from(space.page, old, _NO_PAGE)
    state = np.where(told == states.UNKNOWN, was_state, _STATE[told])
    page = _pages(arena, state, was_page)
    new = old < 0
    residency = look.kernel.residency
    advanced = AddressSpace(
        start=start,
        end=end,
        mapping=np.where(new, len(look.kernel.mappings) + np.cumsum(new), _from(space.mapping, old, 0)),
        kind=np.where(new, _new_kinds(arena, told, value), _from(space.kind, old, 0)),
        state=state,
        page=page.astype(np.uint8),
        arena=np.where(new, arena, _from(space.arena, old, -1)),
        resident=np.where(new, np.uint64(0), residency.rss_in(start, end)),
        swap=np.where(new, np.uint64(0), residency.swap_in(start, end)),
        unmapped=space.unmapped,
    )
    same = not new.any() and np.array_equal(state, was_state) and int(space.size.sum()) == int(advanced.size.sum())
    return Advanced(advanced, not same)


def page_states(space: AddressSpace) -> PageStates:
    """Return the bytes of heap pages by state."""
    return PageStates(*(int(space.size[space.page == page].sum()) for page in PageState))


def arena_rows(arenas: list[Arena], space: AddressSpace) -> list[Arena]:
    """Return the same arenas with the figures of `space`."""
    rows = []
    for at, arena in enumerate(arenas):
        mine = space.arena == at
        size, state, page = space.size[mine], space.state[mine], space.page[mine]
        rows.append(
            replace(
                arena,
                reserved=int(size[state == RESERVED].sum()),
                prepared=int(size[state == PREPARED].sum()),
                ready=int(size[state == READY].sum()),
                in_use=int(size[page == PageState.IN_USE].sum()),
                stacks=int(size[page == PageState.STACK].sum()),
                work_bufs=int(size[page == PageState.WORK_BUF].sum()),
                free=int(size[page == PageState.FREE].sum()),
                scavenged=int(size[page == PageState.SCAVENGED].sum()),
                resident=int(space.resident[mine].sum()),
            )
        )
    return rows


def containing(starts: Points, ends: Points, points: Points) -> Index:
    """Return which of the sorted ranges holds each point, or -1."""
    if not len(starts):
        return np.full(len(points), -1, np.int64)
    index = np.searchsorted(starts, points, side="right").astype(np.int64) - 1
    return np.where((index >= 0) & (points < ends[np.maximum(index, 0)]), index, -1)


def _pages(arena: Index, state: Index, was: Index) -> Index:
    page = np.where((state == READY) & np.isin(was, (PageState.SCAVENGED, _NOT_GROWN, _NO_PAGE)), PageState.IN_USE, was)
    page = np.where(state == PREPARED, PageState.SCAVENGED, page)
    page = np.where(state == RESERVED, _NOT_GROWN, page)
    return np.where(arena >= 0, page, was)


def _new_kinds(arena: Index, told: Index, value: Index) -> Index:
    managed = (told != states.NONE) & (told != states.UNKNOWN)
    kind = np.where(value & mapped.FILE != 0, KINDS.index("file"), KINDS.index("other"))
    kind = np.where(managed, KINDS.index("runtime_other"), kind)
    return np.where(arena >= 0, KINDS.index("heap_arena"), kind)


def _arena_of(look: Look, start: Points) -> Index:
    regions = [region for region in look.runtime.regions if region.what == "arena"] if look.runtime else []
    bases = np.array([region.start for region in regions], np.uint64)
    ends = np.array([region.end for region in regions], np.uint64)
    return containing(bases, ends, start)


def _from(column: NDArray[np.int64] | NDArray[np.uint8], old: Index, otherwise: int) -> Index:
    """Return what the look's pieces have in a column, and `otherwise` where there was none."""
    if not len(column):
        return np.full(len(old), otherwise, np.int64)
    return np.where(old >= 0, column[np.maximum(old, 0)].astype(np.int64), otherwise)


def _at(starts: Points, values: Index, points: Points) -> Index:
    index = np.searchsorted(starts, points, side="right").astype(np.int64) - 1
    return values[np.maximum(index, 0)]
