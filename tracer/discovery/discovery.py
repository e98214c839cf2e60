"""Which Go processes there are: who appeared and who is gone, since it was last asked.

Every change comes from one look at /proc (`process_info.look`), whatever made us look: a scan, an event of the process
connector, or a pid that was given. Events only say where to look and when, so that a lost or late one misleads nobody.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable

from gomem.tracer.discovery.changes import Changes, Found
from gomem.tracer.discovery.connector import Connector
from gomem.tracer.discovery.prober import PATIENCE, Prober, ProbeResult
from gomem.tracer.discovery.process_info import ProcessInfo, Unavailable, age
from gomem.tracer.discovery.recognition import ProgramKind, Recognition, Recognized
from gomem.tracer.discovery.register import Register
from gomem.tracer.discovery.scan import ProcessList
from gomem.tracer.discovery.selection import Selection
from gomem.tracer.discovery.timetable import Timetable
from gomem.tracer.discovery.workloads import Workloads, WorkloadSource
from gomem.tracer.errors import GomemError, TargetError
from gomem.tracer.kernel.process_events import ProcessEvents
from gomem.tracer.machine.rights import remedy_for
from gomem.tracer.process.target import no_such_process
from gomem.tracer.report import Limit

__all__ = ["Changes", "Discovery", "Found"]

SETTLE = 1.0  # seconds that a process must have lived before it is looked at
SCAN_EVERY = 5.0  # seconds, without the process connector; with it no more often than this
RESCAN_EVERY = 60.0  # with it: for what no event tells (a fork without an exec, another cgroup)
MOST_TARGETS = 4096
_AGAIN = 0.1
_TRIES = 5
# Events are taken in batches: one at a time would be a wake-up for each of a thousand short-lived processes a second.
_BATCH = 0.1


class Discovery:
    """Finds Go processes. Not for several threads, but for `wake`.

    The timetable, the connector and the list of all processes say when to look. The prober looks. The register knows
    what was seen, and judges who is wanted.
    """

    def __init__(
        self,
        selection: Selection | None = None,
        *,
        workloads: WorkloadSource | None = None,
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
        self.settle = settle  # seconds
        self.go_processes_seen = 0
        self._workloads = workloads or Workloads()
        self._prober = Prober(self.recognition, patience, self._device_of)
        self._timetable = Timetable(scan_every)
        self._register = Register(self.selection, self._workloads, most_targets, self._timetable.scan_soon)
        self._connector = Connector(None if self.selection.only_pids else listen)
        self._processes = ProcessList()
        self._denied: set[int] = set()

    @property
    def mode(self) -> str:
        """How processes are found: "fixed" (only pids were given), "process connector" or "scan"."""
        if self.selection.only_pids:
            return "fixed"
        return "process connector" if self._connector.works else "scan"

    @property
    def mode_reason(self) -> str:
        """Why it is not the process connector; "" if it is, or is not wanted."""
        return self._connector.why_not

    @property
    def processes_seen(self) -> int:
        """Processes that a scan met, and programs that events told of."""
        return self._processes.seen

    @property
    def scans(self) -> int:
        """How often /proc was listed."""
        return self._processes.scans

    @property
    def overruns(self) -> int:
        """Times that events came faster than they were read."""
        return self._connector.overruns

    @property
    def left_out(self) -> int:
        """Wanted processes beyond `most_targets`, as of now."""
        return self._register.left_out

    @property
    def errors(self) -> int:
        """How often a scan or the connector failed, or a look did not come back in time."""
        silent = self._prober.times_stuck + self.recognition.times_silent
        return self._processes.errors + self._connector.errors + silent

    @property
    def stuck(self) -> frozenset[int]:
        """The processes that cannot be looked at because the file system of their executable does not answer."""
        return self._prober.stuck

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What cannot be told now of where processes belong, and why."""
        return self._workloads.limits

    @property
    def unreadable(self) -> int:
        """How many processes we were not permitted to look at, in the last scan and since."""
        return len(self._denied)

    @property
    def why_unreadable(self) -> str:
        """What is missing to look at them, as found with one of them; "" without any."""
        return remedy_for(min(self._denied), "exe") if self._denied else ""

    @property
    def waiting(self) -> int:
        """How many processes are to be looked at when they have lived for a while."""
        return len(self._timetable)

    def bind(self) -> None:
        """Take what needs privileges, and start no thread yet: what follows can still give them up for all of us."""
        self._connector.open()

    def start(self) -> None:
        """Begin; binds first if that was not done.

        Raises TargetGone or TargetError for a pid that was given and cannot be followed.
        """
        try:
            self._resolve(sorted(self.selection.pids))
        except GomemError:
            self._prober.stop()
            raise
        self.bind()
        self._timetable.scan_at_once(time.monotonic())

    def _resolve(self, left: list[int]) -> None:
        asked = self._register.asked
        for _ in range(_TRIES):
            looks = {look.pid: look.seen for look in self._prober.look(left, left)}
            for pid in left:
                seen = looks.get(pid, Unavailable.STUCK)
                if isinstance(seen, ProcessInfo):
                    asked[pid] = seen.identity.start_ticks
                elif seen is not Unavailable.CHANGING:
                    raise _not_followed(pid, seen)
            left = [pid for pid in left if pid not in asked]
        if left:
            raise _not_followed(left[0], Unavailable.CHANGING)

    def stop(self) -> None:
        """End; idempotent."""
        self._prober.stop()
        self._connector.close()

    def poll(self, timeout: float) -> Changes:
        """Return what happened, as soon as something did, after at most `timeout` seconds; 0 does not wait.

        The first call looks at all processes. Never raises for what a process does.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._advance()
            now = time.monotonic()
            if self._register.untold or now >= deadline:
                return self._register.untold.taken()
            self._wait(deadline - now)

    def _wait(self, left: float) -> None:
        """Wait until there is something to do."""
        waited = select.poll()
        if self._connector.works:
            waited.register(self._connector.fileno(), select.POLLIN)
        if waited.poll(max(0.0, min(left, self._timetable.next - time.monotonic())) * 1000):
            time.sleep(min(left, _BATCH))

    def _advance(self) -> None:
        now = time.monotonic()
        if self._connector.works:
            self._take_events(now)
        if self._timetable.scan_is_due(now, RESCAN_EVERY if self._connector.works else self._timetable.scan_every):
            self._scan()
        for pid in self._prober.back():
            self._timetable.later(pid, 0.0)
        self._look_at(self._timetable.due(now))
        self._register.mind_workloads()

    def _take_events(self, now: float) -> None:
        """Note where to look: soon at a process that we know, at a new program when it has lived for a while."""
        batch = self._connector.read()
        if batch is None:
            self._timetable.scan_at_once(now)
            return
        for pid, executed in batch.events:
            self._processes.seen += executed
            if pid in self._register or pid in self._register.asked:
                self._timetable.at_once(pid, now)
            elif executed and pid not in self._timetable:
                self._timetable.later(pid, self.settle)
        if batch.overrun or batch.more:
            self._timetable.scan_soon()

    def _scan(self) -> None:
        if self.selection.only_pids:
            self._look_at(self._register.asked)
            return
        pids = self._processes.scan(events_count=self._connector.works)
        if pids is None:
            return
        self._register.keep_only(pids)
        self._denied = set()
        self._look_at([pid for pid in pids if pid not in self._timetable])
        if self._register.left_out:
            self._register.judge_again()

    def _look_at(self, pids: Iterable[int]) -> None:
        for look in self._prober.look(pids, self._register.asked):
            self._take(look)

    def _device_of(self, pid: int) -> int | None:
        known = self._register.of(pid)
        return known.info.identity.exe.device if known is not None else None

    def _take(self, look: ProbeResult) -> None:
        """Compare what was seen with what we know."""
        register = self._register
        pid, seen, recognized = look.pid, look.seen, look.recognized
        if recognized is not None and recognized.kind is ProgramKind.UNREADABLE and isinstance(seen, ProcessInfo):
            self._denied.add(pid)
            if pid not in register.asked:
                seen = None
        if seen is Unavailable.CHANGING:
            self._timetable.later(pid, _AGAIN)
        elif not isinstance(seen, ProcessInfo) or recognized is None:
            register.forget(pid)
        elif (known := register.of(pid)) is None:
            self._meet(seen, recognized)
        elif known.info.identity != seen.identity:
            register.forget(pid)
            if register.was_asked_for(seen):
                self._meet(seen, recognized)
            else:
                # It settles like any other, or one that executes itself without end would appear as often.
                self._timetable.later(pid, self.settle)
        elif known.info != seen:
            register.update(known, seen)

    def _meet(self, seen: ProcessInfo, recognized: Recognized) -> None:
        if not self._register.was_asked_for(seen):
            left = self.settle - age(seen.identity.start_ticks)
            if left > 0:
                self._timetable.later(seen.pid, left)
                return
        if recognized.kind is ProgramKind.GO:
            self.go_processes_seen += 1
        self._register.add(seen, recognized)


def _not_followed(pid: int, why: Unavailable | None) -> GomemError:
    if why is Unavailable.GONE:
        return no_such_process(pid)
    return TargetError(f"process {pid} cannot be followed: {why}", "give the pid of another process")
