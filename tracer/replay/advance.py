"""An address space as a look saw it, brought forward to a later moment by what the model made of the events since.

Pure. What is mapped and its region states are the model's; the kinds of what was there already stay those of the look.
What is in RAM, and which heap pages are in use, no event tells: that is not brought forward.
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.addresses.region_states import NONE, UNKNOWN
from gomem.tracer.model import mappings as mapped
from gomem.tracer.model import states
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.report import KINDS, KindRow, Virtual
from gomem.tracer.snapshot import join
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.snapshot.join import AddressSpace

Index = NDArray[np.int64]
Points = NDArray[np.uint64]
_NO_PAGE = 255  # as gomem.tracer.snapshot.join marks what is no heap page, or none of which more is known


def advance(look: Snapshot, model: AddressSpaceModel) -> tuple[Virtual, list[KindRow]]:
    """Return the address space of `look` as the model has it now, and its kinds without what is in RAM."""
    space = _advanced(look, model)
    rows = [replace(row, resident=None, swap=None) for row in join.kind_rows(space)]
    return join.virtual(space, runtime_known=look.runtime is not None), rows


def _advanced(look: Snapshot, model: AddressSpaceModel) -> AddressSpace:
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
    new, nothing = old < 0, np.zeros(len(start), np.uint64)
    return AddressSpace(
        start=start,
        end=end,
        mapping=np.where(new, len(look.kernel.mappings) + np.cumsum(new), _from(space.mapping, old, 0)),
        kind=np.where(new, _new_kinds(arena, told, value), _from(space.kind, old, 0)),
        state=np.where(told == UNKNOWN, _from(space.state, old, NONE), told),
        page=np.full(len(start), _NO_PAGE, np.uint8),
        arena=np.where(new, arena, _from(space.arena, old, -1)),
        resident=nothing,
        swap=nothing,
        unmapped=space.unmapped,
    )


def containing(starts: Points, ends: Points, points: Points) -> Index:
    """Return which of the sorted ranges holds each point, or -1."""
    if not len(starts):
        return np.full(len(points), -1, np.int64)
    index = np.searchsorted(starts, points, side="right").astype(np.int64) - 1
    return np.where((index >= 0) & (points < ends[np.maximum(index, 0)]), index, -1)


def _new_kinds(arena: Index, told: Index, value: Index) -> Index:
    managed = (told != NONE) & (told != UNKNOWN)
    kind = np.where(value & mapped.FILE != 0, KINDS.index("file"), KINDS.index("other"))
    kind = np.where(managed, KINDS.index("runtime_other"), kind)
    return np.where(arena >= 0, KINDS.index("heap_arena"), kind)


def _arena_of(look: Snapshot, start: Points) -> Index:
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
