"""The optional roles of BpfSource that keep residency live between looks: page-faults and rss."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

import numpy as np

from bpf.bcc_import import NEEDS_BPF
from bpf.page_faults import PageFaults
from bpf.program import TargetIds
from bpf.rss import ResidentBytes
from bpf.uprobes import close_all
from tracer.errors import BackendUnavailable, GomemError, NotPermitted
from tracer.events import EventBatch, ProbeStatus, no_events
from tracer.optional_roles import DESCRIPTIONS, OptionalRole
from tracer.report import Limit

RSS_EVERY, FAULTS_EVERY = 0.1, 0.5  # seconds


class _Role(Protocol):
    def attach(self, held: list[int]) -> None: ...

    def probes(self) -> list[ProbeStatus]: ...

    def close(self) -> None: ...


_One = TypeVar("_One", bound=_Role)


class Residency:
    """Those of the roles that were asked for, of one process; `missing` says which it cannot have, and why."""

    def __init__(self, pid: int, ids: TargetIds, roles: Collection[OptionalRole]) -> None:
        """Compile, load and attach. A role that does not work here is missing, and no error."""
        self.missing: list[Limit] = []
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
        except (GomemError, OSError) as error:
            close_all(held)
            if role is not None:
                role.close()
            known = error if isinstance(error, GomemError) else _refused(error)
            self.missing.append(Limit(DESCRIPTIONS[name], known.what.splitlines()[0], known.fix))
            return None
        self._held += held
        return role

    def take(self, execs: int, over: Callable[[], bool], *, everything: bool = False) -> EventBatch:
        """Return what there is to tell by now, or all that was not told yet.

        `execs`: how many programs the process has executed as far as others were told. `over`: is the process gone?
        """
        now = time.monotonic()
        batches = []
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
        return NotPermitted(f"tracepoints are not permitted: {error.strerror}", NEEDS_BPF)
    return BackendUnavailable(f"a tracepoint cannot be attached: {error.strerror}")
