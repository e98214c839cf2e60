"""What a fleet keeps of one process, and what it does at one: in a thread that may have to wait there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gomem.bpf.shared_source import SharedSource
from gomem.bpf.shared_target import SharedTarget
from gomem.tracer.discovery.discovery import Found
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.events.record import EventBatch
from gomem.tracer.fleet.programs import Programs, Shared
from gomem.tracer.fleet.session import MEMORY, FleetSession
from gomem.tracer.fleet.view import TargetState, TargetView
from gomem.tracer.kernel.cgroup_memory import OpenCgroup, open_memory_cgroup
from gomem.tracer.process.target import Target
from gomem.tracer.report import Limit
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.backend import StartedBackend
from gomem.tracer.watch.session import Memory

# To see 32-bit system calls costs all others of the machine more (bpf/probes/call_tracepoints.py).
_FOREIGN = Limit(
    "no-events-between-looks",
    "what happens between two looks",
    "the events of 32-bit programs are not followed",
    "gomem trace PID sees the system calls of one",
)


@dataclass(slots=True, eq=False)
class Member:
    """A process that discovery found, followed or not.

    While it is `visited`, `following`, `shared` and `at_executable` belong to the thread that does so.
    """

    found: Found
    view: TargetView
    due: float  # time.monotonic() of the next look, or of the next try to follow it
    following: FleetSession | None = None
    shared: Shared | None = None
    failures: int = 0
    pauses: int = 0  # of its events, those counted already
    visited: bool = False
    looking: bool = False  # what it is visited for is a look
    at_executable: bool = False  # what is under way waits for the file system of its executable, if it does
    held: bool = False  # its events are counted and no more, because nobody can take them
    inbox: list[EventBatch] = field(default_factory=list)  # what came while it was visited
    shed: int = 0  # times that it was left alone because of the memory that it took
    held_bytes: int = 0  # our memory that it takes, as it was measured last
    measured_at: int = -1  # after so many looks
    cgroup: str = ""  # path of the cgroup that its memory is charged to
    opened: OpenCgroup | None = None  # that cgroup, until somebody takes it
    membership: str | None = None  # where /proc/PID/cgroup put it when that was opened
    glance_due: float = 0.0  # time.monotonic()
    glancing: bool = False  # what it is visited for is a glance
    opened_closely: bool = False  # somebody looks at it closely

    def forget_cgroup(self) -> None:
        """Let go of the cgroup, if nobody has taken it."""
        if self.opened is not None:
            self.opened.close()
        self.opened, self.membership, self.cgroup = None, None, ""

    @property
    def in_sight(self) -> bool:
        """Whether the last try to look at it succeeded."""
        return self.following is not None and self.view.state in (TargetState.FOLLOWED, TargetState.KERNEL_ONLY)

    @property
    def device(self) -> int:
        """The file system of its executable; 0 if that is not known."""
        return self.found.identity.exe.device


def view_of(found: Found, state: TargetState, why: str) -> TargetView:
    """Return what can be told of a process that is not followed."""
    return TargetView(
        pid=found.pid, name=found.name, state=state, why=why, workload=found.workload, report=None,
        followed_since=time.time(), start_ticks=found.start_ticks,
    )  # fmt: skip


class Visitor:
    """Begins to follow processes, and looks at them."""

    def __init__(
        self,
        source: SharedSource | None,
        programs: Programs,
        reason: str,
        limits: Sequence[Limit],
        limits_now: Callable[[], Sequence[Limit]],
        memory: Memory = MEMORY,
    ) -> None:
        """For `reason` and `limits` see Fleet; `limits_now` returns those that change, `memory`: of each process."""
        self._source = source
        self._programs = programs
        self._reason = reason
        self._limits = list(limits)
        self._limits_now = limits_now
        self._memory = memory

    def visit(self, member: Member) -> None:
        """Look at a process; follow it from now on if nobody does yet.

        Raises TargetError when it is not what it was, and for one that cannot be followed what stands in the way.
        """
        member.at_executable = True
        if member.following is None:
            self._follow(member)
        else:
            member.following.touch_executable()
        member.at_executable = False
        if member.following is not None:
            member.following.look()
            if member.opened_closely or member.view.close_up is not None:
                member.following.look_closely(member.opened_closely)
            self._find_cgroup(member, member.following)

    def _find_cgroup(self, member: Member, following: FleetSession) -> None:
        """Open the memory cgroup that the process is in, when that has become another one."""
        report = following.view.report
        path = report.process.cgroup.path if report is not None and report.process.cgroup is not None else None
        if path != member.membership:
            member.forget_cgroup()
            member.membership = path
            member.opened = open_memory_cgroup(following.inspector.target)
            member.cgroup = member.opened.path if member.opened is not None else path or ""

    def _follow(self, member: Member) -> None:
        found = member.found
        target = Target.open(found.pid, found.start_ticks)
        try:
            shared = member.shared = self._programs.take(target)
            inspector = Inspector(target, shared.program, owns_program=False)
            backend, events = self._backend(found.pid, shared)
            member.at_executable = False
            member.following = FleetSession(
                inspector, found.workload, backend, events,
                loads_plugins=events is not None and shared.loads_plugins, limits_now=self._limits_now,
                memory=self._memory,
            )  # fmt: skip
        except BaseException:
            target.close()
            if member.shared is not None:
                self._programs.give_back(member.shared)
                member.shared = None
            raise

    def _backend(self, pid: int, shared: Shared) -> tuple[StartedBackend, SharedTarget | None]:
        """Return where the events of a process come from, and their source; None, and why, where there are none."""
        if self._source is None:
            return StartedBackend("procfs", self._reason, limits=self._limits), None
        if shared.program.foreign_goarch:
            return StartedBackend("procfs", _FOREIGN.why, limits=[*self._limits, _FOREIGN]), None
        planned = shared.planned
        try:
            skipped = self._source.add(pid, planned.specs, has_int_0x80=shared.has_int_0x80)
        except BackendUnavailable as error:
            unseen = Limit("no-events-between-looks", "what happens between two looks", error.what, error.fix)
            limits = [*self._limits, unseen]
            return StartedBackend("procfs", error.what, limits=limits), None
        events = self._source.target(pid)
        backend = StartedBackend(
            name="bpf",
            reason=self._reason,
            source=events,
            uprobes=planned.specs,
            limits=[*self._limits, *planned.limits, *(one.limit() for one in skipped)],
            sees_states=planned.sees_states(skipped),
        )
        return backend, events
