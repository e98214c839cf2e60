"""Uprobes that are too dear to stay: they are taken off the target when they have used up their budget.

What they cost is their hits, which the kernel counts, times the price of one (bpf/cost.py). A Governor decides, pure;
GovernedUprobes acts on it, and tells by events (tracer/events.py: SPAN_MARKS, USED_MARKS) from when until when it
watched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, Protocol

import numpy as np

from bpf import cost, uprobes
from bpf.operands import pack_operands
from bpf.program import Counter
from bpf.uprobes import Backend, SkippedUprobe, UprobeSpec
from tracer.errors import BackendUnavailable, GomemError
from tracer.events import EVENT, SPAN_MARKS, USED_MARKS, EventBatch, Kind, ProbeStatus, no_events

DEFAULT_BUDGET = 0.01  # share of the target's time
OF_USED = 0.125  # of the budget, for the probe of role used; the other rare roles need no limit
_CPUCLOCK_SCHED = 2  # include/linux/posix-timers_types.h


class Probed(Protocol):
    """The loaded programs that run at governed uprobes of one target (bpf/program.py: class Program)."""

    def uprobe(self, backend: Literal["multi", "perf"]) -> int:
        """Return the fd of the program for the rare roles. Raises BackendUnavailable."""

    def span_uprobe(self, backend: Literal["multi", "perf"]) -> int:
        """Return the fd of the program for span events. Raises BackendUnavailable."""

    def set_operands(self, index: int, packed: bytes) -> None:
        """Tell where more arguments of a uprobe are, and whether its hits are told."""

    def counter(self, index: int) -> int:
        """Return one of the target's counters."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a set of uprobes is watched: their program and its cookies, and the marks that say from when until when.

    `look_every`: seconds after which what they have cost should be looked at again. `saved_for`: those for which an
    unused budget adds up.
    """

    program: Callable[[Probed, Literal["multi", "perf"]], int]
    cookie: Callable[[UprobeSpec, int], int]
    marks: tuple[Kind, Kind]
    look_every: float
    saved_for: float


SPANS = Manner(lambda program, backend: program.span_uprobe(backend), uprobes.short_cookie, SPAN_MARKS, 0.02, 2.0)
# Rare in most programs: looked at whenever there is something else to do, and short bursts are seen whole.
USED = Manner(lambda program, backend: program.uprobe(backend), uprobes.cookie, USED_MARKS, inf, 8.0)


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


class GovernedUprobes:
    """A set of uprobes on one program, kept within a budget. Not for two threads at once.

    `failure` says why they could not be put on, or again if they `were_on`, and is "" otherwise.
    """

    def __init__(
        self,
        specs: Sequence[UprobeSpec],
        budget: float = DEFAULT_BUDGET,
        manner: Manner = SPANS,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        cpu_seconds: Callable[[int], float | None] = process_cpu_seconds,
        close: Callable[[list[int]], None] = uprobes.close_all,
    ) -> None:
        """`budget`: share of the target's time: as in bpf/cost.py, the greater of its CPU time and the clock.

        `cpu_seconds` tells its CPU time by pid, None for one that is gone. `close` closes the descriptors that keep
        the probes on, for which the kernel makes us wait.
        """
        self.specs = tuple(specs)
        self.manner = manner
        self.failure = ""
        self.were_on = False
        price = max(cost.hit(spec) for spec in self.specs)
        self._governor = Governor(budget, price, saved_for=manner.saved_for)
        self._clock_ns = clock_ns
        self._cpu_seconds = cpu_seconds
        self._close = close
        self._began = (0.0, 0.0)  # by both clocks
        self._program: Probed | None = None
        self._program_fd = -1
        self._pid = 0
        self._backend: Backend = "auto"
        self._first = 0
        self._held: list[int] = []
        self._marks: list[EventBatch] = []
        self._hits: list[int] = []

    @property
    def refused(self) -> list[SkippedUprobe]:
        """All of them if there is a failure: they are on together or not at all."""
        return [SkippedUprobe(spec, self.failure) for spec in self.specs] if self.failure else []

    @property
    def attached(self) -> bool:
        """Whether the probes are on the target."""
        return bool(self._held)

    def start(self, program: Probed, pid: int, backend: Backend, first: int) -> None:
        """Load the program and put the probes on; `first` is the counter of the first one.

        The files that the specs name must stay open until `stop`: the probes may come back at any time.
        """
        self._program, self._pid, self._backend, self._first = program, pid, backend, first
        try:
            self._program_fd = self.manner.program(program, "perf" if backend == "perf" else "multi")
        except BackendUnavailable as error:
            self.failure = error.what
            return
        self._attach()
        self._began = self._clock_ns() / 1e9, self._cpu_seconds(pid) or 0.0
        self._governor.decide(0.0, 0)

    def tick(self) -> EventBatch:
        """Put the probes on or off as the budget wants it; return the marks of that."""
        used = self._cpu_seconds(self._pid) if self._program is not None and not self.failure else None
        if self._program is not None and used is not None:
            now = max(self._clock_ns() / 1e9 - self._began[0], used - self._began[1])
            wanted = self._governor.decide(now, sum(self._counted(self._program)))
            if self.attached and not wanted:
                self._detach(by_budget=True)
            elif wanted and not self.attached:
                self._attach()
        return self._take_marks()

    def stop(self) -> EventBatch:
        """Take the probes off for good; return the marks that are left. Idempotent."""
        if self._program is not None:
            self._hits = self._counted(self._program)
            if self.attached:
                self._detach(by_budget=False)
            self._program = None
        return self._take_marks()

    def probes(self) -> list[ProbeStatus]:
        """Return the probes with their hits so far."""
        hits = self._hits if self._program is None else self._counted(self._program)
        return [
            ProbeStatus(spec.role, spec.symbol, count) for spec, count in zip(self.specs, hits, strict=bool(hits))
        ]

    def _attach(self) -> None:
        assert self._program is not None
        cookies = {spec: self.manner.cookie(spec, self._first + at) for at, spec in enumerate(self.specs)}
        try:
            held, skipped = uprobes.attach(self._program_fd, self.specs, self._pid, self._backend, cookies)
        except (GomemError, OSError) as error:
            self.failure = str(error)
            return
        if skipped:
            uprobes.close_all(held)
            self.failure = f"{skipped[0].spec.symbol}: {skipped[0].reason}"
            return
        self._held, self.were_on = held, True
        # Only when all are in place do those for span events tell anything, and no longer when the first is taken off.
        self._mark(self.manner.marks[0], round(self._governor.share * 1e6))
        self._switch(on=True)

    def _detach(self, *, by_budget: bool) -> None:
        self._switch(on=False)
        self._mark(self.manner.marks[1], int(by_budget))
        held, self._held = self._held, []
        self._close(held)

    def _switch(self, *, on: bool) -> None:
        assert self._program is not None
        for at, spec in enumerate(self.specs):
            if spec.operands:
                self._program.set_operands(self._first + at, pack_operands(spec.operands, on=on))

    def _counted(self, program: Probed) -> list[int]:
        return [program.counter(Counter.HITS + self._first + at) for at in range(len(self.specs))]

    def _mark(self, kind: Kind, argument: int) -> None:
        mark = np.zeros(1, EVENT)
        mark["time"], mark["kind"], mark["args"][0, 0] = self._clock_ns(), kind, argument
        self._marks.append(mark)

    def _take_marks(self) -> EventBatch:
        marks, self._marks = self._marks, []
        return np.concatenate(marks) if marks else no_events()


def used_apart(
    specs: Sequence[UprobeSpec], share: float, close: Callable[[list[int]], None] = uprobes.close_all
) -> tuple[list[UprobeSpec], GovernedUprobes | None]:
    """Divide uprobes into those that need no limit and those of role used, None without any, within their `share`.

    Of the rare roles only this one can be called often without a system call, next to which a hit is cheap.
    """
    of_used = [spec for spec in specs if spec.kind is Kind.USED]
    others = [spec for spec in specs if spec.kind is not Kind.USED]
    return others, GovernedUprobes(of_used, share, USED, close=close) if of_used else None
