"""The model of a process's address space: what a look said, and what the events made of it since.

Pure: batches of events in, plain rows out. It starts from a look or from nothing, and takes events of any source in
order of time. What is not known yet (everything, when it starts from nothing) is UNKNOWN until an event or a look
says it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.region_states import NONE, PREPARED, READY, RESERVED
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.batches import picked, rows_among, table
from gomem.tracer.model.callers import Callers, Symbolize
from gomem.tracer.model.explained import Explained, RoleJoin
from gomem.tracer.model.gc_cycles import MOST_CYCLES, GcCycles
from gomem.tracer.model.mappings import MAPPED, MappingModel
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.model.sizes import failed_calls, is_error
from gomem.tracer.model.states import STATE_MASK, Anomaly, StateModel
from gomem.tracer.report import Virtual

# A role is applied at its hit, with the address that it names; these get theirs from the mmap that follows.
_BY_RESULT = (EventKind.RESERVE, EventKind.ALLOC)
_AT_HIT = (EventKind.MAP, EventKind.USED, EventKind.UNUSED, EventKind.FAULT, EventKind.FREE)
_CALLS = (EventKind.MMAP, EventKind.MUNMAP, EventKind.MREMAP, EventKind.MPROTECT, EventKind.BRK)
_OTHERS = (EventKind.EXEC, EventKind.GC_START, EventKind.GC_DONE)
_EXEC = int(EventKind.EXEC)
_IS_AT_HIT = table(*_AT_HIT)
_APPLIED = table(*_AT_HIT, *_CALLS, *_OTHERS)

_Made = tuple[int, int, int, int]  # a role: its kind, address and size, and the position of who called it in chains

_ARENA_MAKER = "runtime.(*mheap).sysAlloc"


class ArenaState(Struct, frozen=True):
    """Address space that the heap reserved in one piece, and its bytes by state.

    `scavenged` and `ready` are the heap pages that were grown into: events tell free from used pages only where
    they were scavenged, so `ready` is in use, stacks, work buffers and free together.
    """

    base: int
    size: int
    reserved: int
    scavenged: int
    ready: int


class AddressSpaceModel:
    """Mappings, region states, arenas and GC cycles of one process."""

    def __init__(
        self,
        symbolize: Symbolize | None = None,
        *,
        callers: Callers | None = None,
        os_page: int = 4096,
        most_cycles: int = MOST_CYCLES,
    ) -> None:
        """Know nothing. `callers` may be shared with others that name the same stacks; the last cycles are kept."""
        self.mappings = MappingModel(os_page)
        self.states = StateModel(os_page)
        self.cycles = GcCycles(most_cycles)
        self.time = 0  # of the last event, CLOCK_MONOTONIC ns
        self._callers = callers or Callers(symbolize or _nameless)
        self._join = RoleJoin()
        self._blind_until = 0
        self._arenas: dict[int, int] = {}  # base: size

    @classmethod
    def empty(cls, symbolize: Symbolize | None = None, *, os_page: int = 4096) -> AddressSpaceModel:
        """Return a model that knows nothing yet."""
        return cls(symbolize, os_page=os_page)

    def learn(self, model_input: ModelInput) -> None:
        """Take from a look what events do not tell: arenas that are there already, the heap's goal and size."""
        for base, size in model_input.arenas:
            self._arenas.setdefault(base, size)
        if model_input.heap is not None:
            self.cycles.look(model_input.began, model_input.ended, *model_input.heap)

    def blind(self, until: int) -> None:
        """Forget the region states, and take no role before `until` (ns): others of that time went unseen."""
        self._blind_until = max(until, self._blind_until)
        self.states.forget()

    def apply(self, batch: EventBatch, explained: Explained | None = None) -> None:
        """Take the next events, in order of time; `explained` if their roles were joined with their calls already."""
        if explained is None:
            explained = self._join.feed(batch)
        if len(batch):
            self.time = int(batch["time"][-1])
        made = self._roles_of_calls(batch, explained)
        rows = rows_among(batch, _APPLIED)
        by_role = np.zeros(len(batch), np.bool_)
        by_role[list(made)] = True
        begin = 0
        for end in (batch["kind"][rows] == _EXEC).nonzero()[0].tolist():
            if begin < end:
                self._apply_rows(batch, rows[begin:end], made, by_role)
            self.forget()
            begin = end + 1
        self._apply_rows(batch, rows[begin:], made, by_role)

    def _apply_rows(
        self, batch: EventBatch, rows: NDArray[np.intp], made: Mapping[int, _Made], by_role: NDArray[np.bool_]
    ) -> None:
        """Apply events of one program. Mappings and states do not depend on each other."""
        kinds = batch["kind"][rows]
        is_call = kinds < _EXEC
        self._apply_calls(batch, rows[is_call])
        at_hit = _IS_AT_HIT[kinds]
        states = rows[at_hit | is_call & by_role[rows]]
        begin = 0
        for end in by_role[states].nonzero()[0].tolist():
            self._apply_roles(batch, states[begin:end])
            row = int(states[end])
            if batch["entered"][row] >= self._blind_until:
                self._settle(*made[row], int(batch["time"][row]), int(batch["result"][row]))
            begin = end + 1
        self._apply_roles(batch, states[begin:])
        for row in rows[~(is_call | at_hit)].tolist():
            self._other(batch, row)

    def _apply_calls(self, batch: EventBatch, rows: NDArray[np.intp]) -> None:
        if not len(rows):
            return
        columns = (batch[name][rows].tolist() for name in ("kind", "entered", "time"))
        # A tuple at a time: thousands of lists at once would keep Python's collector busy.
        args = zip(*(batch["args"][rows, number].tolist() for number in range(5)), strict=True)
        apply = self.mappings.apply
        for one in zip(*columns, args, batch["result"][rows].tolist(), strict=True):
            apply(*one)

    def _apply_roles(self, batch: EventBatch, rows: NDArray[np.intp]) -> None:
        if self._blind_until:
            rows = rows[batch["time"][rows] >= self._blind_until]
        if len(rows):
            self.states.apply_all(picked(batch, rows), self._callers.label(batch, rows))

    def virtual(self) -> Virtual:
        """Return the mapped bytes, and those of each state; None where states are not known."""
        starts, values = self.mappings.map.columns()
        total = _sum_where(starts, values, values & MAPPED != 0)
        starts, values = self.states.map.columns()
        states = values & STATE_MASK
        if not (states <= READY).any():
            return Virtual(total, None, None, None, None)
        reserved, prepared, ready = (
            _sum_where(starts, values, states == state) for state in (RESERVED, PREPARED, READY)
        )
        return Virtual(total, reserved, prepared, ready, total - reserved - prepared - ready)

    def arenas(self) -> list[ArenaState]:
        """Return the address space of the heap, by address: reserved in one piece, or an arena that a look saw."""
        rows = []
        for base, size in sorted(self._arenas.items()):
            sums = dict.fromkeys(range(STATE_MASK + 1), 0)
            for start, end, value in self.states.map.pieces(base, base + size):
                sums[value & STATE_MASK] += end - start
            if sums[NONE] < size:
                rows.append(ArenaState(base, size, sums[RESERVED], sums[PREPARED], sums[READY]))
        return rows

    def owner_of(self, anomaly: Anomaly) -> str | None:
        """Return the function that an anomaly's transition was asked for by."""
        return self._callers.chains[anomaly.owner].function

    def forget(self) -> None:
        """Know nothing any more, as after an exec."""
        self.mappings.forget()
        self.states.forget()
        self.cycles.forget()
        self._arenas.clear()

    def _roles_of_calls(self, batch: EventBatch, explained: Explained) -> dict[int, _Made]:
        """Return the roles that the results of their calls still matter for, by the rows of these calls."""
        roles = explained.roles
        if not len(roles):
            return {}
        chains = self._callers.label(roles, np.arange(len(roles)))
        columns = (roles["kind"], roles["args"][:, 0], roles["args"][:, 1], chains)
        made = zip(*(column.tolist() for column in columns), strict=True)
        failed = failed_calls(batch)[explained.rows].tolist()
        rows = zip(explained.rows.tolist(), made, failed, strict=True)
        return {row: role for row, role, lost in rows if lost or role[0] in _BY_RESULT}

    def _settle(self, kind: int, address: int, size: int, owner: int, time: int, result: int) -> None:
        """Apply a role whose system call has ended: with the address that it got, or not at all."""
        role = EventKind(kind)
        if is_error(result):
            self.states.take_back(role, address, size)
        elif role in _BY_RESULT:
            self.states.apply(role, time, result, size, owner)
            if role is EventKind.RESERVE and _ARENA_MAKER in self._callers.chains[owner].callers:
                self._arenas[result] = size

    def _other(self, batch: EventBatch, row: int) -> None:
        kind, time, args = int(batch["kind"][row]), int(batch["time"][row]), batch["args"][row].tolist()
        if kind == EventKind.GC_START:
            self.cycles.start(time, *args[:3])
        else:
            self.cycles.done(time)


def _sum_where(starts: NDArray[np.uint64], values: NDArray[np.int64], keep: NDArray[np.bool_]) -> int:
    """Return the bytes of the pieces to keep; the last piece, which ends at 2^64, is never one."""
    sizes = np.diff(starts)
    return int(sizes[keep[:-1]].sum()) if len(values) > 1 else 0


def _nameless(address: int) -> None:
    del address
