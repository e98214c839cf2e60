"""Which Go processes there are: who appeared and who is gone, since it was last asked.

Every change comes from one look at /proc (`sighting.look`), whatever made us look: a scan, an event of the process
connector, or a pid that was given. Events only say where to look and when, so that a lost or late one misleads nobody.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tracer.discovery.belonging import Belongings, BelongingSource
from tracer.discovery.changes import Changes, Found
from tracer.discovery.lookout import PATIENCE, Look, Lookout
from tracer.discovery.process_events import ProcessEvents
from tracer.discovery.recognition import Kind, Recognition, Recognized
from tracer.discovery.scan import list_pids
from tracer.discovery.selection import Selection
from tracer.discovery.sighting import Identity, Sighting, Unseen, age
from tracer.errors import BackendUnavailable, GomemError, TargetError
from tracer.report import Limit
from tracer.target import no_such_process

__all__ = ["Changes", "Discovery", "Found"]

SETTLE = 1.0  # seconds that a process must have lived before it is looked at
SCAN_EVERY = 5.0  # seconds, without the process connector; with it no more often than this
RESCAN_EVERY = 60.0  # with it: for what no event tells (a fork without an exec, another cgroup)
MOST_TARGETS = 4096
MOST_PENDING = 16384
_AGAIN = 0.1
_TRIES = 5
# Events are taken in batches: one at a time would be a wake-up for each of a thousand short-lived processes a second.
_BATCH = 0.1


@dataclass(slots=True)
class _Known:
    """A Go process, or one whose pid was given; `found` is None while it is not wanted."""

    sighting: Sighting
    recognized: Recognized
    found: Found | None


class Discovery:
    """Finds Go processes. Not for several threads, but for `wake`."""

    def __init__(
        self,
        selection: Selection | None = None,
        *,
        belongings: BelongingSource | None = None,
        settle: float = SETTLE,
        scan_every: float = SCAN_EVERY,
        listen: Callable[[], ProcessEvents] | None = ProcessEvents.open,
        most_targets: int = MOST_TARGETS,
        patience: float = PATIENCE,
    ) -> None:
        """Prepare; `settle` and `scan_every` are seconds. `listen` opens the connector; None: scan only.

        `patience` is how many seconds one look may take before we go on without it.
        """
        self.selection = selection or Selection()
        self.recognition = Recognition()
        self.mode_reason = ""  # why it is not the process connector
        self.processes_seen = 0  # processes that a scan met, and programs that events told of
        self.go_processes_seen = 0
        self._errors = 0
        self.overruns = 0  # times that events came faster than they were read
        self.scans = 0
        self.left_out = 0  # wanted processes beyond `most_targets`, as of now
        self._lookout = Lookout(self.recognition, patience, self._device_of)
        self._belongings = belongings or Belongings()
        self._generation = -1
        self.settle = settle  # seconds
        self._scan_every = scan_every
        self._most_targets = most_targets
        self._known: dict[int, _Known] = {}
        self._pending: dict[int, float] = {}
        self._pids: set[int] = set()
        self._denied: set[int] = set()
        self._asked: dict[int, int] = {}  # pid -> start time
        self._listen = listen
        self._events: ProcessEvents | None = None
        self._next_scan = 0.0
        self._last_scan = 0.0
        self._appeared: dict[int, Found] = {}
        self._gone: list[Identity] = []
        self._changed: dict[int, Found] = {}
        self._followed = 0
        self._wake = -1

    @property
    def mode(self) -> str:
        """How processes are found: "fixed" (only pids were given), "process connector" or "scan"."""
        if self.selection.only_pids:
            return "fixed"
        return "scan" if self._events is None else "process connector"

    @property
    def errors(self) -> int:
        """How often a scan or the connector failed, or a look did not come back in time."""
        return self._errors + self._lookout.times_stuck

    @property
    def stuck(self) -> frozenset[int]:
        """The processes that cannot be looked at because the file system of their executable does not answer."""
        return self._lookout.stuck

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What cannot be told now of where processes belong, and why."""
        return self._belongings.limits

    @property
    def unreadable(self) -> int:
        """How many processes we were not permitted to look at, in the last scan and since."""
        return len(self._denied)

    @property
    def waiting(self) -> int:
        """How many processes are to be looked at when they have lived for a while."""
        return len(self._pending)

    def bind(self) -> None:
        """Take what needs privileges, and start no thread yet: what follows can still give them up for all of us."""
        if self._listen is not None and not self.selection.only_pids and self._events is None:
            try:
                self._events = self._listen()
            except BackendUnavailable as why:
                self.mode_reason = f"{why.what}: {why.fix}"

    def start(self) -> None:
        """Begin; binds first if that was not done.

        Raises TargetGone or TargetError for a pid that was given and cannot be followed.
        """
        try:
            self._resolve(sorted(self.selection.pids))
        except GomemError:
            self._lookout.stop()
            raise
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.bind()
        self._next_scan = time.monotonic()

    def _resolve(self, left: list[int]) -> None:
        for _ in range(_TRIES):
            looks = {look.pid: look.seen for look in self._lookout.look(left, left)}
            for pid in left:
                seen = looks.get(pid, Unseen.STUCK)
                if isinstance(seen, Sighting):
                    self._asked[pid] = seen.identity.start_ticks
                elif seen is not Unseen.CHANGING:
                    raise _not_followed(pid, seen)
            left = [pid for pid in left if pid not in self._asked]
        if left:
            raise _not_followed(left[0], Unseen.CHANGING)

    def stop(self) -> None:
        """End; idempotent."""
        self._lookout.stop()
        self._close_events()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def wake(self) -> None:
        """Make a `poll` that waits in another thread return."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def poll(self, timeout: float) -> Changes:
        """Return what happened, as soon as something did, after at most `timeout` seconds; 0 does not wait.

        The first call looks at all processes. Never raises for what a process does.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._advance()
            now = time.monotonic()
            if self._appeared or self._gone or self._changed or now >= deadline or self._waited(deadline - now):
                return self._taken()

    def _waited(self, left: float) -> bool:
        """Wait until there is something to do; tell whether `wake` was called."""
        due = min([self._next_scan, *self._pending.values()])
        waited = select.poll()
        waited.register(self._wake, select.POLLIN)
        if self._events is not None:
            waited.register(self._events.fileno(), select.POLLIN)
        ready = waited.poll(max(0.0, min(left, due - time.monotonic())) * 1000)
        if ready and self._events is not None:
            waited.unregister(self._events.fileno())
            ready = waited.poll(min(left, _BATCH) * 1000)
        if ready:
            os.eventfd_read(self._wake)
        return bool(ready)

    def _advance(self) -> None:
        now = time.monotonic()
        if self._events is not None:
            self._take_events(self._events, now)
        if now >= self._next_scan:
            self._last_scan = now
            self._next_scan = now + (self._scan_every if self._events is None else RESCAN_EVERY)
            self._scan()
        for pid in self._lookout.back():
            self._later(pid, 0.0)
        due = [pid for pid, when in self._pending.items() if when <= now]
        for pid in due:
            del self._pending[pid]
        self._look_at(due)
        if self._belongings.generation != self._generation:
            self._generation = self._belongings.generation
            self._judge_again()

    def _take_events(self, events: ProcessEvents, now: float) -> None:
        """Note where to look: soon at a process that we know, at a new program when it has lived for a while."""
        try:
            batch = events.read()
        except OSError as error:
            self._errors += 1
            self.mode_reason = f"the process connector failed: {error.strerror}"
            self._close_events()
            self._next_scan = now
            return
        for pid, executed in batch.events:
            self.processes_seen += executed
            if pid in self._known or pid in self._asked:
                self._pending[pid] = now
            elif executed and pid not in self._pending:
                self._later(pid, self.settle)
        if batch.overrun:
            self.overruns += 1
        if batch.overrun or batch.more:
            self._scan_soon()

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _scan_soon(self) -> None:
        self._next_scan = min(self._next_scan, max(self._last_scan + self._scan_every, time.monotonic()))

    def _taken(self) -> Changes:
        changes = Changes(
            tuple(self._appeared.values()),
            tuple(self._gone),
            tuple(one for pid, one in self._changed.items() if pid not in self._appeared),
        )
        self._appeared, self._gone, self._changed = {}, [], {}
        return changes

    # Looking

    def _scan(self) -> None:
        if self.selection.only_pids:
            self._look_at(self._asked)
            return
        try:
            pids = list_pids()
        except OSError:
            self._errors += 1
            return
        if self._events is None or not self.scans:
            self.processes_seen += len(pids - self._pids)
            self._pids = pids
        self.scans += 1
        for pid in [pid for pid in self._known if pid not in pids]:
            self._forget(pid)
        self._denied = set()
        self._look_at([pid for pid in pids if pid not in self._pending])
        if self.left_out:
            self._judge_again()

    def _look_at(self, pids: Iterable[int]) -> None:
        for look in self._lookout.look(pids, self._asked):
            self._take(look)

    def _device_of(self, pid: int) -> int | None:
        known = self._known.get(pid)
        return known.sighting.identity.exe.device if known is not None else None

    def _take(self, look: Look) -> None:
        """Compare what was seen with what we know."""
        pid, seen, recognized = look.pid, look.seen, look.recognized
        if recognized is not None and recognized.kind is Kind.UNREADABLE and isinstance(seen, Sighting):
            self._denied.add(pid)
            if pid not in self._asked:
                seen = None
        if seen is Unseen.CHANGING:
            self._later(pid, _AGAIN)
        elif not isinstance(seen, Sighting) or recognized is None:
            self._forget(pid)
        elif (known := self._known.get(pid)) is None:
            self._meet(seen, recognized)
        elif known.sighting.identity != seen.identity:
            self._forget(pid)
            if self._asked_for(seen):
                self._meet(seen, recognized)
            else:
                # It settles like any other, or one that executes itself without end would appear as often.
                self._later(pid, self.settle)
        elif known.sighting != seen:
            known.sighting = seen
            self._judge(known)

    def _meet(self, seen: Sighting, recognized: Recognized) -> None:
        if not self._asked_for(seen):
            left = self.settle - age(seen.identity.start_ticks)
            if left > 0:
                self._later(seen.pid, left)
                return
        if recognized.kind is Kind.GO:
            self.go_processes_seen += 1
        known = _Known(seen, recognized, None)
        self._known[seen.pid] = known
        self._judge(known)

    def _asked_for(self, seen: Sighting) -> bool:
        """Tell whether this is the process whose pid was given, and not another that has the pid now."""
        return self._asked.get(seen.pid) == seen.identity.start_ticks

    def _later(self, pid: int, seconds: float) -> None:
        if len(self._pending) < MOST_PENDING:
            self._pending[pid] = time.monotonic() + seconds
        else:
            self._scan_soon()

    # Judging

    def _judge(self, known: _Known) -> None:
        """Decide whether a known process is wanted, and note what changed."""
        sighting, before = known.sighting, known.found
        belonging = self._belongings.of(sighting)
        if not self._asked_for(sighting) and (
            known.recognized.kind is not Kind.GO or not self.selection.wants(sighting, belonging)
        ):
            self._withdraw(known)
            return
        if before is None and self._followed >= self._most_targets:
            self.left_out += 1
            return
        found = Found(
            identity=sighting.identity,
            name=sighting.name,
            exe=sighting.exe,
            uid=sighting.uid,
            cgroups=sighting.cgroups,
            belonging=belonging,
            kind=known.recognized.kind,
            build_id=known.recognized.build_id,
        )
        if found == before:
            return
        known.found = found
        self._followed += before is None
        if before is None or sighting.pid in self._appeared:
            self._appeared[sighting.pid] = found
        else:
            self._changed[sighting.pid] = found

    def _judge_again(self) -> None:
        self.left_out = 0
        for known in self._known.values():
            self._judge(known)

    def _forget(self, pid: int) -> None:
        known = self._known.pop(pid, None)
        if known is not None:
            self._withdraw(known)

    def _withdraw(self, known: _Known) -> None:
        if known.found is None:
            return
        pid = known.sighting.pid
        self._followed -= 1
        self._changed.pop(pid, None)
        # Whoever came and went between two polls was never there.
        if self._appeared.pop(pid, None) is None:
            self._gone.append(known.found.identity)
        known.found = None
        if self.left_out:
            self._scan_soon()


def _not_followed(pid: int, why: Unseen | None) -> GomemError:
    if why is Unseen.GONE:
        return no_such_process(pid)
    return TargetError(f"process {pid} cannot be followed: {why}", "give the pid of another process")
