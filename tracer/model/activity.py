"""What happened while watching: counts, bytes, transitions and the rare events, out of event batches.

Pure: batches in, plain rows of the report out. An exact model of the address space, once there is
one, is another consumer of the same batches; nothing here keeps intervals.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from tracer.events import RESIDENCY_KINDS, SPAN_MARKS, SPAN_ROLES, USED_MARKS, EventBatch, Kind
from tracer.model.batches import kinds_in, rows_among, table
from tracer.model.callers import Callers, Symbolize
from tracer.model.event_log import DEFAULT_LOG, EventLog
from tracer.model.explained import Explained, RoleJoin
from tracer.model.gc_cycles import MOST_CYCLES
from tracer.model.live_residency import LiveResidency
from tracer.model.madvise import advice_name
from tracer.model.sizes import event_bytes, failed_calls, grouped_sums, role_bytes
from tracer.model.sources_of_scavenging import scavenge_source
from tracer.model.span_events import SpanChurn
from tracer.model.timeline import Timeline
from tracer.report import EventCount, LoggedEvent, Transition

# runtime/mem.go: the legal transitions between region states.
TRANSITIONS: dict[Kind, tuple[str, str]] = {
    Kind.RESERVE: ("None", "Reserved"),
    Kind.MAP: ("Reserved", "Prepared"),
    Kind.USED: ("Prepared", "Ready"),
    Kind.UNUSED: ("Ready", "Prepared"),
    Kind.FAULT: ("Ready", "Reserved"),
    Kind.ALLOC: ("None", "Ready"),
    Kind.FREE: ("any", "None"),
}
_MARKS = (*SPAN_MARKS, *USED_MARKS, Kind.STATES_UNSEEN)
_NOT_COUNTED = (Kind.EXEC, Kind.EXIT, *RESIDENCY_KINDS, *_MARKS)
_COUNTED = tuple(kind for kind in Kind if kind not in _NOT_COUNTED)
_MOST_KINDS = max(Kind) + 2  # the last for kinds that a later gomem may know
_MADVISE, _MREMAP, _EXEC, _UNUSED = int(Kind.MADVISE), int(Kind.MREMAP), int(Kind.EXEC), int(Kind.UNUSED)
_BREAKS = table(Kind.BRK, Kind.EXEC)
_TRANSITIONS = table(*TRANSITIONS)
# The kinds that these take anything of.
_OF_RESIDENCY = frozenset(map(int, RESIDENCY_KINDS))
_OF_SPANS = frozenset(map(int, (*SPAN_ROLES, *SPAN_MARKS)))
_OF_TIMELINE = frozenset(map(int, (Kind.GC_START, Kind.GC_DONE, Kind.UNUSED, *SPAN_ROLES)))
_PIECE = 1 << 20  # events; small enough for exact sums in float64, see grouped_sums


class Activity:
    """Sums up any number of event batches.

    Bytes are those of events that succeeded. mmap, munmap, mprotect, madvise: the length rounded up to
    OS pages, as the kernel acts. mremap: the new size. process_madvise: the result. brk: by how much the
    break moved, up or down (0 for the first one seen). Roles: the size that the runtime names, not
    rounded; `used`: the prepared bytes in the range where the probe knows them, else the whole range.
    A role whose system call failed counts as failed.
    """

    def __init__(
        self, symbolize: Symbolize, *, os_page: int = 4096, log_limit: int = DEFAULT_LOG, most_cycles: int = MOST_CYCLES
    ) -> None:
        """Know nothing. At the most `log_limit` of the rare events and `most_cycles` GC cycles are kept."""
        self._os_page = os_page
        self._callers = self.callers = Callers(symbolize)  # may be shared with others that name the same stacks
        self._join = RoleJoin()
        self._log = EventLog(self._callers, log_limit)
        self._started = False
        self._counts = [0] * _MOST_KINDS
        self._bytes = [0] * _MOST_KINDS
        self._failed = [0] * _MOST_KINDS
        self._madvise: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._transitions: dict[tuple[Kind, str | None], list[int]] = defaultdict(lambda: [0, 0])
        self._scavenged: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._break: int | None = None
        self.spans = SpanChurn()
        self.timeline = Timeline(most_cycles)
        self.residency = LiveResidency()
        self.remap_grown = 0  # bytes that mremap added to regions
        self.remap_shrunk = 0

    def mark_start(self, time_ns: int) -> None:
        """Set the moment (CLOCK_MONOTONIC ns) that the log counts from; else the first event's."""
        self._log.start = time_ns
        self.spans.mark_start(time_ns)
        self._started = True

    @property
    def start(self) -> int:
        """The moment that the log counts from, CLOCK_MONOTONIC ns; 0 before any event."""
        return self._log.start

    def feed(self, batch: EventBatch, explained: Explained | None = None) -> None:
        """Take the next events of the target.

        `explained`: how the roles of this batch were joined with their calls, if somebody did.
        """
        if explained is not None and len(batch) <= _PIECE:
            self._feed(batch, explained)
            return
        for start in range(0, len(batch), _PIECE):
            piece = batch[start : start + _PIECE]
            self._feed(piece, self._join.feed(piece))

    def events(self) -> dict[str, EventCount]:
        """Return counts by the names of syscalls and roles; those that did not happen are absent."""
        return {
            kind.name.lower(): EventCount(self._counts[kind], self._bytes[kind], self._failed[kind])
            for kind in _COUNTED
            if self._counts[kind] or self._failed[kind]
        }

    def madvise(self) -> dict[str, EventCount]:
        """Return the madvise calls by advice, in the order of the advice's number."""
        return {advice_name(advice): EventCount(*self._madvise[advice]) for advice in sorted(self._madvise)}

    def transitions(self) -> list[Transition]:
        """Return the changes of region state by role and runtime function, the largest first."""
        rows = [
            Transition(*TRANSITIONS[kind], kind.name.lower(), function, count, size)
            for (kind, function), (count, size) in self._transitions.items()
            if count
        ]
        order = list(TRANSITIONS)
        rows.sort(key=lambda row: (order.index(Kind[row.event.upper()]), -row.bytes, row.function or ""))
        return rows

    def scavenged_by_source(self) -> dict[str, EventCount]:
        """Return what sysUnused gave back, by who asked: background, allocation, FreeOSMemory, other."""
        return {source: EventCount(*counts) for source, counts in sorted(self._scavenged.items())}

    def log(self) -> tuple[list[LoggedEvent], int]:
        """Return the rare events by time, and how many more there were than the log holds."""
        return self._log.entries(), self._log.dropped

    def _feed(self, batch: EventBatch, explained: Explained) -> None:
        if not len(batch):
            return
        if not self._started:
            entered = np.where(batch["entered"] > 0, batch["entered"], batch["time"])
            self.mark_start(int(entered.min()))
        present = kinds_in(batch)
        failed = failed_calls(batch)
        sizes = event_bytes(batch, self._os_page, present)
        sizes[failed] = 0
        self._count_breaks(batch, sizes, failed)
        self._count(batch, sizes, failed, present)
        if _MADVISE in present:
            self._count_madvise(batch, sizes, failed)
        if _MREMAP in present:
            self._count_remaps(batch, failed)
        self._count_transitions(batch, sizes)
        self._take_back_failed(failed, explained)
        self._log.feed(batch, sizes, failed, explained)
        for kinds, feed in (
            (_OF_RESIDENCY, self.residency.feed), (_OF_SPANS, self.spans.feed), (_OF_TIMELINE, self.timeline.feed)
        ):  # fmt: skip
            if not kinds.isdisjoint(present):
                feed(batch)

    def _count(
        self, batch: EventBatch, sizes: NDArray[np.uint64], failed: NDArray[np.bool_], present: frozenset[int]
    ) -> None:
        kinds = np.minimum(batch["kind"], _MOST_KINDS - 1)
        known = sorted({min(kind, _MOST_KINDS - 1) for kind in present})
        counts = np.bincount(kinds, minlength=_MOST_KINDS)
        failures = np.bincount(kinds[failed], minlength=_MOST_KINDS)
        for kind, size in zip(known, grouped_sums(kinds, sizes, _MOST_KINDS, known), strict=True):
            self._counts[kind] += int(counts[kind] - failures[kind])
            self._failed[kind] += int(failures[kind])
            self._bytes[kind] += size

    def _count_breaks(self, batch: EventBatch, sizes: NDArray[np.uint64], failed: NDArray[np.bool_]) -> None:
        """Size the brk calls. They return the break, moved or not: one failed if that is not what was asked."""
        for row in rows_among(batch, _BREAKS).tolist():
            if batch["kind"][row] == _EXEC:
                self._break = None
                continue
            wanted, now = int(batch["args"][row, 0]), int(batch["result"][row])
            failed[row] = wanted not in (0, now)
            page = -self._os_page
            if self._break is not None:
                sizes[row] = abs((-(-now & page)) - (-(-self._break & page)))
            self._break = now

    def _count_madvise(self, batch: EventBatch, sizes: NDArray[np.uint64], failed: NDArray[np.bool_]) -> None:
        rows = (batch["kind"] == _MADVISE).nonzero()[0]
        advices, group = np.unique(batch["args"][rows, 2] & np.uint64(0xFFFFFFFF), return_inverse=True)
        totals = grouped_sums(group.reshape(-1), sizes[rows], len(advices))
        failures = np.bincount(group.reshape(-1), failed[rows], len(advices))
        for advice, count, size, lost in zip(advices, np.bincount(group.reshape(-1)), totals, failures, strict=True):
            entry = self._madvise[int(advice) if len(self._madvise) < 256 else 0xFFFFFFFF]
            entry[0] += int(count - lost)
            entry[1] += size
            entry[2] += int(lost)

    def _count_remaps(self, batch: EventBatch, failed: NDArray[np.bool_]) -> None:
        rows = ((batch["kind"] == _MREMAP) & ~failed).nonzero()[0]
        dont_unmap = 4
        for old, new, flags in batch["args"][rows][:, 1:4].tolist():
            before = 0 if flags & dont_unmap else -(-old // self._os_page)
            grown = (-(-new // self._os_page) - before) * self._os_page
            self.remap_grown += max(grown, 0)
            self.remap_shrunk += max(-grown, 0)

    def _count_transitions(self, batch: EventBatch, sizes: NDArray[np.uint64]) -> None:
        rows = rows_among(batch, _TRANSITIONS)
        if not len(rows):
            return
        chains = self._callers.label(batch, rows)
        group = chains * _MOST_KINDS + batch["kind"][rows]
        keys, inverse = np.unique(group, return_inverse=True)
        totals = grouped_sums(inverse.reshape(-1), sizes[rows], len(keys))
        for key, count, size in zip(keys, np.bincount(inverse.reshape(-1)), totals, strict=True):
            chain = self._callers.chains[int(key) // _MOST_KINDS]
            kind = Kind(int(key) % _MOST_KINDS)
            self._add_transition(kind, chain.function, int(count), size)
            if kind is Kind.UNUSED:
                scavenged = self._scavenged[scavenge_source(chain.callers)]
                scavenged[0] += int(count)
                scavenged[1] += size

    def _take_back_failed(self, failed: NDArray[np.bool_], explained: Explained) -> None:
        """Roles were counted when they were hit; one whose mmap then failed did nothing."""
        refused = failed[explained.rows].nonzero()[0]
        if not len(refused):
            return
        roles = explained.roles[refused]
        chains = self._callers.label(roles, np.arange(len(roles)))
        for role, chain, size in zip(roles, chains, role_bytes(roles), strict=True):
            kind = Kind(int(role["kind"]))
            self._counts[kind] -= 1
            self._failed[kind] += 1
            self._bytes[kind] -= int(size)
            self._add_transition(kind, self._callers.chains[chain].function, -1, -int(size))

    def _add_transition(self, kind: Kind, function: str | None, count: int, size: int) -> None:
        entry = self._transitions[(kind, function)]
        entry[0] += count
        entry[1] += size
