"""Mappings that come and go: which calls of a batch leave no trace, because the same bytes are unmapped again in it.

Programs map, use and unmap the same addresses over and over, and so make most of the calls that a busy process makes.
Of a run of such calls, each begun when the one before had ended, and with no other call of the batch on any of their
bytes, nothing is left of what was before the last munmap. The first two of a run are not passed over: what they find
may be of calls that they overlap with in time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tracer.events import EventBatch, Kind
from tracer.model.batches import table
from tracer.model.mappings import ADDRESS_SPACE, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_HUGETLB, PROT_GROWSDOWN
from tracer.model.sizes import failed_calls, round_up

_MMAP, _MUNMAP, _MREMAP, _MPROTECT = (int(kind) for kind in (Kind.MMAP, Kind.MUNMAP, Kind.MREMAP, Kind.MPROTECT))
# Calls whose bytes are known only when they are applied.
_ANYWHERE = table(Kind.BRK, Kind.EXEC)

_Rows = NDArray[np.bool_]
_Addresses = NDArray[np.uint64]


def passing(calls: EventBatch, wanted: _Rows, page: int) -> _Rows:
    """Tell which of some calls, in the order of their ends, leave no trace.

    `calls` are all in that time that change mappings, failed ones included. `wanted`: those to be kept in any case.
    """
    kinds, args = calls["kind"], calls["args"]
    mapped = kinds == _MMAP
    huge = mapped & (args[:, 3] & np.uint64(MAP_HUGETLB) != 0)
    growing = (kinds == _MPROTECT) & (args[:, 2] & np.uint64(PROT_GROWSDOWN) != 0)
    if (_ANYWHERE[kinds] | huge | growing).any():
        return np.zeros(len(calls), np.bool_)
    failed = failed_calls(calls)
    results = calls["result"].view(np.uint64)
    touching = ~failed | (kinds == _MPROTECT)  # which may have done a part of its work
    low, high = _ranges(np.where(mapped, results, args[:, 0]), args[:, 1], touching, page)
    chosen = mapped & (args[:, 3] & np.uint64(MAP_FIXED | MAP_FIXED_NOREPLACE) != MAP_FIXED)
    unmaps = kinds == _MUNMAP
    plain = (chosen | unmaps) & ~failed & ~wanted & (low < high)
    moved = (kinds == _MREMAP).nonzero()[0]
    to, to_end = _ranges(results[moved], args[moved, 2], ~failed[moved], page)

    order, first, apart = _grouped(np.concatenate((low, to)), np.concatenate((high, to_end)), len(calls))
    own = order < len(calls)
    order, first, apart = order[own], first[own], apart[own]
    plain, unmaps = plain[order] & apart, unmaps[order]
    follows = ~first & plain & (unmaps | np.append(False, unmaps[:-1]))
    follows[1:] &= plain[:-1] & (calls["entered"][order[1:]] > calls["time"][order[:-1]])
    return _undone(order, follows, unmaps)


def _ranges(start: _Addresses, size: _Addresses, touching: _Rows, page: int) -> tuple[_Addresses, _Addresses]:
    """Return where calls change something, (0, 0) for those that do not."""
    end = start + round_up(size, page)
    some = touching & (start < end) & (end <= ADDRESS_SPACE)
    return np.where(some, start, np.uint64(0)), np.where(some, end, np.uint64(0))


def _grouped(low: _Addresses, high: _Addresses, own: int) -> tuple[NDArray[np.intp], _Rows, _Rows]:
    """Return an order by range, and in it which is the first of its range, and which range overlaps no other one.

    The ranges from `own` on are other ones also where they are the same: where calls moved something to at any time.
    """
    order = np.argsort(low, kind="stable")
    low, high = low[order], high[order]
    first = np.append(True, (low[1:] != low[:-1]) | (high[1:] != high[:-1]) | (order[1:] >= own))
    starts = first.nonzero()[0]
    reach = np.maximum.accumulate(high)
    below = np.append(True, reach[starts[1:] - 1] <= low[starts[1:]])
    above = np.append(low[starts[1:]] >= high[starts[:-1]], True)
    return order, first, (below & above)[np.cumsum(first) - 1]


def _undone(order: NDArray[np.intp], follows: _Rows, unmaps: _Rows) -> _Rows:
    """Tell which calls are between the first two of their run and its last munmap."""
    begins = (~follows).nonzero()[0]
    run = np.cumsum(~follows) - 1
    at = np.arange(len(order))
    last = np.maximum.reduceat(np.where(unmaps, at, -1), begins)
    gone = np.zeros(len(order), np.bool_)
    gone[order[(at > begins[run] + 1) & (at < last[run])]] = True
    return gone
