"""What happened while watching: counts, bytes, transitions and the rare events, out of event batches.

Pure: batches in, plain rows of the report out. An exact model of the address space, once there is
one, is another consumer of the same batches; nothing here keeps intervals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.events.record import RESIDENCY_KINDS, SPAN_MARKS, SPAN_ROLES, EventBatch, EventKind
from gomem.tracer.model.batches import kinds_in
from gomem.tracer.model.callers import Callers, Symbolize
from gomem.tracer.model.event_counts import EventCounts
from gomem.tracer.model.event_log import DEFAULT_LOG, EventLog
from gomem.tracer.model.explained import Explained, RoleJoin
from gomem.tracer.model.gc_cycles import MOST_CYCLES
from gomem.tracer.model.last_failures import LastFailures
from gomem.tracer.model.live_residency import LiveResidency
from gomem.tracer.model.mapping_callers import KINDS as _OF_MAPPINGS
from gomem.tracer.model.mapping_callers import MappingCallers
from gomem.tracer.model.sizes import event_bytes, failed_calls, role_bytes
from gomem.tracer.model.span_events import SpanChurn
from gomem.tracer.model.timeline import Timeline
from gomem.tracer.model.transitions import Transitions
from gomem.tracer.report import EventCount, LoggedEvent, Transition

# The kinds that these take anything of.
_OF_RESIDENCY = frozenset(map(int, RESIDENCY_KINDS))
_OF_SPANS = frozenset(map(int, (*SPAN_ROLES, *SPAN_MARKS)))
_OF_TIMELINE = frozenset(map(int, (EventKind.GC_START, EventKind.GC_DONE, EventKind.UNUSED, *SPAN_ROLES)))
_PIECE = 1 << 20  # events; small enough for exact sums in float64, see grouped_sums


class Activity:
    """Sums up any number of event batches.

    Bytes are those of events that succeeded. mmap, munmap, mprotect, madvise: the length rounded up to
    OS pages, as the kernel acts. mremap: the new size. process_madvise: the result. brk: by how much the
    break moved, up or down (0 for the first one seen). Roles: the size that the runtime names, not
    rounded; `used`: the prepared bytes in the range where the probe knows them, else the whole range.
    `scavenge`: what the scavenger returned, which is what it called sysUnused for, whoever asked it to. How much it was
    asked for says little: at a memory limit each allocation asks, also when nothing is left to return.
    A role whose system call failed counts as failed.
    """

    def __init__(
        self,
        symbolize: Symbolize,
        *,
        os_page: int = 4096,
        log_limit: int = DEFAULT_LOG,
        log_latest: bool = False,
        most_cycles: int = MOST_CYCLES,
    ) -> None:
        """Know nothing. At the most `log_limit` of the rare events and `most_cycles` GC cycles are kept.

        Of the events the first ones, or with `log_latest` the last.
        """
        self._os_page = os_page
        self.callers = Callers(symbolize)  # may be shared with others that name the same stacks
        self._join = RoleJoin()
        self._log = EventLog(self.callers, log_limit, latest=log_latest)
        self.failures = LastFailures(self.callers)
        self.mapping_callers = MappingCallers(self.callers, os_page)
        self._started = False
        self._counts = EventCounts(os_page)
        self._transitions = Transitions(self.callers)
        self.spans = SpanChurn()
        self.timeline = Timeline(most_cycles)
        self.residency = LiveResidency()

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
        """Return counts by the names of syscalls and roles, and `scavenge`; those that did not happen are absent."""
        found, scavenged = self._counts.events(), self._transitions.scavenged()
        return found if scavenged is None else {**found, "scavenge": scavenged}

    def madvise(self) -> dict[str, EventCount]:
        """Return the madvise calls by advice, in the order of the advice's number."""
        return self._counts.madvise()

    def transitions(self) -> list[Transition]:
        """Return the changes of region state by role and runtime function, the largest first."""
        return self._transitions.rows()

    def scavenged_by_source(self) -> dict[str, EventCount]:
        """Return what sysUnused gave back, by who asked: background, allocation, FreeOSMemory, other."""
        return self._transitions.scavenged_by_source()

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
        self._counts.feed(batch, sizes, failed, present)
        self._transitions.feed(batch, sizes)
        self._take_back_failed(failed, explained)
        self._log.feed(batch, sizes, failed, explained)
        self.failures.feed(batch, failed)
        if not _OF_MAPPINGS.isdisjoint(present):
            self.mapping_callers.feed(batch, failed)
        for kinds, feed in (
            (_OF_RESIDENCY, self.residency.feed), (_OF_SPANS, self.spans.feed), (_OF_TIMELINE, self.timeline.feed)
        ):  # fmt: skip
            if not kinds.isdisjoint(present):
                feed(batch)

    def _take_back_failed(self, failed: NDArray[np.bool_], explained: Explained) -> None:
        """Roles were counted when they were hit; one whose mmap then failed did nothing."""
        refused = failed[explained.rows].nonzero()[0]
        if not len(refused):
            return
        roles = explained.roles[refused]
        chains = self.callers.label(roles, np.arange(len(roles)))
        for role, chain, size in zip(roles, chains, role_bytes(roles), strict=True):
            kind = EventKind(int(role["kind"]))
            self._counts.take_back(kind, int(size))
            self._transitions.add(kind, self.callers.chains[chain].function, -1, -int(size))
