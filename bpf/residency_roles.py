"""The optional roles of BpfSource that keep residency live between looks: page-faults and rss.

What is hit at nearly every page fault, of any process, is held by the guardian: it is taken off while gomem itself is
stopped, and comes back when it runs on. What happened meanwhile is not known, and said to be missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from gomem.bpf.page_faults import PageFaults
from gomem.bpf.probes.uprobes import close_all
from gomem.bpf.program import TargetIds
from gomem.bpf.rss import ResidentBytes
from gomem.tracer.errors import BackendUnavailable, GomemError, NotPermitted
from gomem.tracer.events.optional_roles import OptionalRole, no_role, unseen_role
from gomem.tracer.events.record import EventBatch, no_events
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.machine.rights import Right, remedy
from gomem.tracer.process.guardian import Hold
from gomem.tracer.report import Limit

RSS_EVERY, FAULTS_EVERY = 0.1, 0.5  # seconds
_OFF = 5.0  # seconds that taking them off may take, on a machine that is busy
_NO_PROCESS = 0  # that a tracepoint is on


class _Role(Protocol):
    def attach(self, held: list[int]) -> None: ...

    def begin(self, dear: list[int]) -> None: ...

    def probes(self) -> list[ProbeStatus]: ...

    def close(self) -> None: ...


_One = TypeVar("_One", bound=_Role)


class Holder(Protocol):
    """Who holds what is dear (tracer/process/guardian.py: class Guardian)."""

    def hold(self, fds: Sequence[int], pid: int, *, dear: bool = False) -> Hold:
        """Take descriptors over. Raises OSError."""


@dataclass(slots=True)
class _Dear:
    """What of a role is taken off while we are stopped; `unseen`: for how many ns until now it was off."""

    role: _Role
    hold: Hold
    unseen: int = 0


class Residency:
    """Those of the roles that were asked for, of one process."""

    def __init__(self, pid: int, ids: TargetIds, roles: Collection[OptionalRole], holder: Holder) -> None:
        """Compile, load and attach. A role that does not work here is missing, and no error."""
        self._missing: list[Limit] = []
        self._holder = holder
        self._dear: dict[OptionalRole, _Dear] = {}
        self._held: list[int] = []
        self._hits: list[ProbeStatus] = []
        self._next_faults = self._next_rss = 0.0
        self._faults: PageFaults | None = None
        self._rss: ResidentBytes | None = None
        if OptionalRole.PAGE_FAULTS in roles:
            self._faults = self._started(OptionalRole.PAGE_FAULTS, lambda: PageFaults(pid, ids))
        if OptionalRole.RSS in roles:
            self._rss = self._started(OptionalRole.RSS, lambda: ResidentBytes(pid, ids))

    def _started(self, name: OptionalRole, make: Callable[[], _One]) -> _One | None:
        role: _One | None = None
        held: list[int] = []
        try:
            role = make()
            role.attach(held)
            self._dear[name] = _Dear(role, self._begin(role))
        except (GomemError, OSError) as error:
            close_all(held)
            if role is not None:
                role.close()
            known = error if isinstance(error, GomemError) else _refused(error)
            self._missing.append(no_role(name, known.what.splitlines()[0], known.fix))
            return None
        self._held += held
        return role

    def _begin(self, role: _Role) -> Hold:
        dear: list[int] = []
        try:
            role.begin(dear)
        except OSError:
            close_all(dear)
            raise
        return self._holder.hold(dear, _NO_PROCESS, dear=True)

    def _begin_again(self) -> None:
        """Put on again what was taken off because we were stopped ourselves."""
        for name, dear in list(self._dear.items()):
            if dear.hold.let_go_at is None:
                continue
            since = dear.hold.let_go_at
            try:
                dear.hold = self._begin(dear.role)
            except (GomemError, OSError) as error:
                del self._dear[name]
                self._missing.append(no_role(name, f"it could not be seen any longer: {error}"))
            else:
                dear.unseen += max(time.monotonic_ns() - since, 0)

    def limits(self) -> list[Limit]:
        """Return which roles are missing, and why, and for how long others were."""
        why = "gomem itself was stopped meanwhile; what costs by being there is then taken off"
        return [
            *self._missing,
            *(unseen_role(name, dear.unseen / 1e9, why) for name, dear in self._dear.items() if dear.unseen),
        ]

    def take(self, execs: int, over: Callable[[], bool], *, everything: bool = False) -> EventBatch:
        """Return what there is to tell by now, or all that was not told yet.

        `execs`: how many programs the process has executed as far as others were told. `over`: is the process gone?
        """
        now = time.monotonic()
        batches = []
        if not everything:
            self._begin_again()
        if self._rss is not None and (everything or now >= self._next_rss):
            self._next_rss = now + RSS_EVERY
            batches.append(self._rss.take(execs, over))
        if self._faults is not None and (everything or now >= self._next_faults):
            self._next_faults = now + FAULTS_EVERY
            batches.append(self._faults.take(execs))
        return np.concatenate(batches) if batches else no_events()

    def stop(self, execs: int, over: Callable[[], bool]) -> EventBatch:
        """Detach, free the kernel's memory, and return what was not told yet. Idempotent."""
        close_all(self._held)
        for dear in self._dear.values():
            dear.hold.release()
        for dear in self._dear.values():
            dear.hold.released.wait(_OFF)
        rest = self.take(execs, over, everything=True)
        self._hits = self.probes()
        for role in self._roles():
            role.close()
        self._faults = self._rss = None
        return rest

    def probes(self) -> list[ProbeStatus]:
        """Return the tracepoints with their hits."""
        return [probe for role in self._roles() for probe in role.probes()] or self._hits

    def _roles(self) -> list[_Role]:
        return [role for role in (self._faults, self._rss) if role is not None]


def _refused(error: OSError) -> GomemError:
    if isinstance(error, PermissionError):
        return NotPermitted(f"tracepoints are not permitted: {error.strerror}", remedy(Right.PERF_TRACEPOINTS))
    return BackendUnavailable(f"a tracepoint cannot be attached: {error.strerror}")
