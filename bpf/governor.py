"""Uprobes that are too dear to stay: they are taken off the target when they have spent their budget.

What they cost is their hits, which the kernel counts, times the price of one (bpf/cost.py). A Governor decides, pure;
GovernedUprobes acts on it by bpf/switchable_uprobes.py, and tells by events (SPAN_MARKS, USED_MARKS of
tracer/events/record.py) from when until when it watched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from gomem.bpf import cost
from gomem.bpf.probes import uprobes
from gomem.bpf.probes.uprobe_program import UprobeProgram
from gomem.bpf.probes.uprobes import Keeper
from gomem.bpf.switchable_uprobes import Probed, SwitchableUprobes
from gomem.tracer.errors import BackendUnavailable, GomemError, WouldWait
from gomem.tracer.events.optional_roles import OptionalRole, no_role
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EVENT, SPAN_MARKS, USED_MARKS, EventBatch, EventKind, no_events
from gomem.tracer.events.role_limits import some_unseen
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.report import Limit

DEFAULT_BUDGET = 0.01  # share of the target's time
SHARE_FOR_USED = 0.125  # of the budget, for the probe of role used; the other rare roles need no limit
_CPUCLOCK_SCHED = 2  # include/linux/posix-timers_types.h


@dataclass(frozen=True, slots=True)
class ProbePolicy:
    """How a set of uprobes is watched: their program and its cookies, and the marks that say from when until when.

    `look_every`: seconds after which what they have cost should be looked at again. `saved_for`: those for which what
    was not spent of the budget adds up.
    """

    program: Callable[[Probed], UprobeProgram]
    cookie: Callable[[UprobeSpec, int], int]
    marks: tuple[EventKind, EventKind]
    look_every: float
    saved_for: float


FOR_SPANS = ProbePolicy(lambda programs: programs.span_uprobe(), uprobes.short_cookie, SPAN_MARKS, 0.02, 2.0)
# Rare in most programs: looked at whenever there is something else to do, and short bursts are seen whole.
FOR_USED = ProbePolicy(lambda programs: programs.uprobe(), uprobes.cookie, USED_MARKS, inf, 8.0)


class Governor:
    """Keeps the average cost of probes within a share of the target's time; seconds in, a decision out.

    An account gets `share` of each second, at the most for `saved_for` seconds, and pays for every hit. When it is
    overdrawn, the probes have to go, until it is full again: so they are on for a while and off for a while, and a
    hit too many (the account is looked at now and then only) is paid for by a longer pause.
    """

    def __init__(
        self, share: float, hit_seconds: float, switch_seconds: float = cost.SWITCH, saved_for: float = 2.0
    ) -> None:
        """`share` of the target's time; `switch_seconds`: what putting the probes on or off costs the target."""
        if not share > 0:
            raise ValueError(f"a budget of {share} leaves nothing to watch with")
        self.share = share
        self._hit_seconds = hit_seconds
        self._switch_seconds = switch_seconds
        self._most = share * saved_for
        self._balance = self._most
        self._time: float | None = None
        self._hits = 0
        self.on = True

    def decide(self, now: float, hits: int) -> bool:
        """Return whether the probes shall be on from `now` on; `hits` is how many there were in all.

        `now`: the target's time, seconds.
        """
        if self._time is not None:
            self._balance += self.share * max(now - self._time, 0.0)
        self._balance -= (hits - self._hits) * self._hit_seconds
        self._time, self._hits = now, hits
        self._balance = min(self._balance, self._most)
        wanted = self._balance >= (0.0 if self.on else self._most)
        if wanted != self.on:
            self.on = wanted
            self._balance -= self._switch_seconds
        return wanted


def process_cpu_seconds(pid: int) -> float | None:
    """Return the CPU time of all threads of a process; None if it is gone. See clock_getcpuclockid(3)."""
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return None


class TargetTime:
    """The time of a target since `begin`: as in bpf/cost.py, the greater of its CPU time and the clock, seconds."""

    def __init__(self, clock_ns: Callable[[], int], cpu_seconds: Callable[[int], float | None]) -> None:
        """`cpu_seconds` tells a process's CPU time by pid, None for one that is gone."""
        self._clock_ns = clock_ns
        self._cpu_seconds = cpu_seconds
        self._pid = 0
        self._began = (0.0, 0.0)  # by both clocks

    def begin(self, pid: int) -> None:
        """Count from now on, for this process."""
        self._pid = pid
        self._began = self._clock_ns() / 1e9, self._cpu_seconds(pid) or 0.0

    def passed(self) -> float | None:
        """Return the seconds since `begin`; None if the target is gone."""
        cpu = self._cpu_seconds(self._pid)
        return None if cpu is None else max(self._clock_ns() / 1e9 - self._began[0], cpu - self._began[1])


class GovernedUprobes:
    """A set of uprobes on one program, kept within a budget. Not for two threads at once.

    `failure` says why they could not be put on, or again if they `were_on`, and is "" otherwise.
    """

    def __init__(
        self,
        specs: Sequence[UprobeSpec],
        budget: float = DEFAULT_BUDGET,
        policy: ProbePolicy = FOR_SPANS,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        cpu_seconds: Callable[[int], float | None] = process_cpu_seconds,
    ) -> None:
        """`budget`: share of the target's time, which `clock_ns` and `cpu_seconds` tell (see TargetTime)."""
        self.specs = tuple(specs)
        self.policy = policy
        self.failure = ""
        self.were_on = False
        price = max(cost.hit(spec) for spec in self.specs)
        self._governor = Governor(budget, price, saved_for=policy.saved_for)
        self._time = TargetTime(clock_ns, cpu_seconds)
        self._clock_ns = clock_ns
        self._uprobes: SwitchableUprobes | None = None  # from the start to the stop: they know the target
        self._settled = threading.Event()
        self._settled.set()
        self._marks: list[EventBatch] = []
        self._last_hits: list[int] | None = None  # set by the stop

    @property
    def refused(self) -> list[SkippedUprobe]:
        """All of them if there is a failure: they are on together or not at all."""
        return [SkippedUprobe(spec, self.failure) for spec in self.specs] if self.failure else []

    def limits(self) -> list[Limit]:
        """Return what is not seen because of a failure."""
        if not self.failure:
            return []
        if self.policy is FOR_SPANS:
            return [no_role(OptionalRole.SPANS, f"the probes could not be put on: {self.failure}")]
        if not self.were_on:
            return [skipped.limit() for skipped in self.refused]
        why = f"its probes could not be put on again: {self.failure}"
        return [some_unseen(kind, why) for kind in sorted({spec.kind for spec in self.specs})]

    @property
    def attached(self) -> bool:
        """Whether the probes are on the target."""
        return self._uprobes is not None and self._uprobes.attached

    def start(self, programs: Probed, pid: int, first: int, keeper: Keeper) -> None:
        """Load the program and put the probes on; `first` is the counter of the first one.

        `keeper` holds the descriptors that keep the probes on.

        The files that the specs name must stay open until `stop`: the probes may come back at any time.
        """
        program = None
        try:
            program = self.policy.program(programs)
        except BackendUnavailable as error:
            self.failure = error.what
        cookies = {spec: self.policy.cookie(spec, first + at) for at, spec in enumerate(self.specs)}
        self._uprobes = SwitchableUprobes(programs, program, pid, keeper, cookies)
        if not self.failure:
            self._put_on(self._uprobes)
            self._time.begin(pid)
            self._governor.decide(0.0, 0)

    def tick(self) -> EventBatch:
        """Put the probes on or off as the budget wants it; return the marks of that.

        Those that were taken off because we were stopped ourselves come back.
        """
        if self._uprobes is not None:
            self._see_lost(self._uprobes)
            if not self.failure:
                self._decide(self._uprobes)
        return self._take_marks()

    def stop(self) -> EventBatch:
        """Take the probes off for good; return the marks that are left. Idempotent."""
        if self._uprobes is not None:
            self._last_hits = self._uprobes.hits()
            if self.attached:
                self._take_off(self._uprobes, by_budget=False)
            self._settled, self._uprobes = self._uprobes.settled, None
        return self._take_marks()

    @property
    def settled(self) -> threading.Event:
        """Set when the kernel has taken the probes off, or will when a debugger leaves; ask for it after `stop`."""
        return self._uprobes.settled if self._uprobes is not None else self._settled

    def probes(self) -> list[ProbeStatus]:
        """Return the probes with their hits so far."""
        hits = self._uprobes.hits() if self._uprobes is not None else self._last_hits
        if hits is None:
            return []
        return [ProbeStatus(spec.role, spec.symbol, count) for spec, count in zip(self.specs, hits, strict=True)]

    def _decide(self, probes: SwitchableUprobes) -> None:
        now = self._time.passed()
        if now is None:
            return
        wanted = self._governor.decide(now, sum(probes.hits()))
        if probes.attached and not wanted:
            self._take_off(probes, by_budget=True)
        elif wanted and not probes.attached and probes.off:
            self._put_on(probes)

    def _put_on(self, probes: SwitchableUprobes) -> None:
        try:
            probes.put_on()
        except WouldWait:
            return  # until the next turn
        except (GomemError, OSError) as error:
            self.failure = str(error)
            return
        self.were_on = True
        # Only when all are in place do those for span events tell anything, and no longer when the first is taken off.
        self._mark(self.policy.marks[0], round(self._governor.share * 1e6))
        probes.tell(on=True)

    def _take_off(self, probes: SwitchableUprobes, *, by_budget: bool) -> None:
        probes.tell(on=False)
        self._mark(self.policy.marks[1], int(by_budget))
        probes.take_off()

    def _see_lost(self, probes: SwitchableUprobes) -> None:
        when = probes.lost_at()
        if when is not None:
            probes.tell(on=False)
            self._mark(self.policy.marks[1], 0, when)

    def _mark(self, kind: EventKind, argument: int, when: int | None = None) -> None:
        mark = np.zeros(1, EVENT)
        mark["time"] = self._clock_ns() if when is None else when
        mark["kind"], mark["args"][0, 0] = kind, argument
        self._marks.append(mark)

    def _take_marks(self) -> EventBatch:
        marks, self._marks = self._marks, []
        return np.concatenate(marks) if marks else no_events()


def govern_used(specs: Sequence[UprobeSpec], share: float) -> tuple[list[UprobeSpec], GovernedUprobes | None]:
    """Divide uprobes into those that need no limit and those of role used, None without any, within their `share`.

    Of the rare roles only this one can be called often without a system call, next to which a hit is cheap.
    """
    of_used = [spec for spec in specs if spec.kind is EventKind.USED]
    others = [spec for spec in specs if spec.kind is not EventKind.USED]
    return others, GovernedUprobes(of_used, share, FOR_USED) if of_used else None
