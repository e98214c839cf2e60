"""Probes that are too dear to stay, in bursts: a few milliseconds now and then, or all the time where that is cheap.

A BurstSchedule decides, pure; a Burster acts on it, in a thread of its own: what the rest of gomem does meanwhile may
take longer than a burst may last. What the probes count in between is taken slice by slice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from gomem.bpf import cost
from gomem.bpf.governor import process_cpu_seconds
from gomem.bpf.switchable_uprobes import HeldUprobes
from gomem.tracer.errors import GomemError, WouldWait

ALWAYS = 1.0  # a share of the target's time from which on the probes stay
_SAVED_FOR = 0.5  # seconds: what a burst may cost is the budget of so many
_JITTER = 0.25  # of a pause, on top of it
_FIRST = 0.5  # seconds until the first burst at the latest
_LOOK_ON, _LOOK_OFF = 0.001, 0.02  # seconds between looks at what they have cost
_SLICE = 5.0  # seconds after which what is counted is taken, also when the probes stay
_RETRY = 1.0  # seconds until the next try where a process makes the kernel wait
_AFTER = 0.2  # seconds that taking them off may take in between, until a slice is taken all the same
_OFF = 5.0  # seconds that taking them off may take in the end, on a machine that is busy
_LAST_TICK = 25.0  # seconds that may pass until the thread ends, where a process makes the guardian wait


class BurstSchedule:
    """Decides when probes are on, so that they cost no more than a share of the target's time; seconds in, a bool out.

    An account gets the share of each second, up to the cost of one burst, and pays for every hit. A burst begins when
    the account is full, and ends when it is empty: so what is hit all the time is watched in short bursts, and what is
    hit rarely all the time. Each pause is longer by a random part, so that bursts do not keep time with the target.
    """

    def __init__(
        self,
        share: float,
        random: Random,
        switch_seconds: float = cost.SWITCH,
        *,
        saved_for: float = _SAVED_FOR,
        on: bool = False,
    ) -> None:
        """`share` of the target's time; `switch_seconds`: what putting the probes on or off costs the target.

        `saved_for`: a burst may cost the share of so many seconds. `on`: a first one begins at once.
        """
        if not share > 0:
            raise ValueError(f"a budget of {share} leaves nothing to watch with")
        self.share = share
        self.on = on or share >= ALWAYS
        self._switch_seconds = switch_seconds
        self._random = random
        self._saved_for = saved_for
        self._balance = self._most = share * saved_for
        self._last: tuple[float, float] | None = None
        self._spent = 0.0
        self._began: float | None = None  # this pause
        self._due: float | None = None  # when the next burst begins, if the account was full before

    def decide(self, clock: float, used: float, spent: float) -> bool:
        """Return whether the probes shall be on from now on.

        `clock`: seconds since the beginning; `used`: CPU seconds of the target since then; `spent`: what all hits have
        cost, seconds. The target's time is the greater of the two, as in bpf/cost.py.
        """
        if self.share >= ALWAYS:
            return True
        self._earn(clock, used)
        self._balance -= spent - self._spent
        self._spent = spent
        if self.on:
            if self._balance < 0:
                self._switch(clock)
        elif self._is_due(clock):
            self._switch(clock)
        return self.on

    def _earn(self, clock: float, used: float) -> None:
        before, self._last = self._last, (clock, used)
        if before is None:
            return
        passed = clock - before[0]
        worked = max(passed, used - before[1], 0.0)
        if not self.on and passed > 0:  # while they are on, threads that wait for the kernel may look idle
            self._most = self.share * self._saved_for * worked / passed
        self._balance = min(self._balance + self.share * worked, self._most)

    def _is_due(self, clock: float) -> bool:
        if self._due is None:
            if self._balance < self._most:
                return False
            pause = _FIRST / _JITTER if self._began is None else clock - self._began
            self._due = clock + self._random.uniform(0, _JITTER * pause)
        return clock >= self._due

    def _switch(self, clock: float) -> None:
        self.on = not self.on
        self._balance -= self._switch_seconds
        self._began, self._due = clock, None


class Counting(Protocol):
    """What counts at the probes (bpf/allocations.py: class AllocationProbes)."""

    def count(self, *, on: bool) -> None:
        """Begin or end counting."""

    def spent(self) -> float:
        """Return what all hits of the probes have cost the target, counting or not, seconds."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One stretch of `seconds` for which the probes counted; `last`: no more come."""

    seconds: float
    last: bool


@dataclass(slots=True)
class BurstFigures:
    """What a Burster has done so far.

    `seconds`: for how long the probes have counted. `stopped`: how often they were taken off because we were stopped
    ourselves, and `unseen` for how many seconds until we knew. `failure`: why they could not be put on, or again, and
    `error` what was raised then; `waits`: why that had to wait last.
    """

    bursts: int = 0
    seconds: float = 0.0
    stopped: int = 0
    unseen: float = 0.0
    failure: str = ""
    waits: str = ""
    error: GomemError | OSError | None = None


class Burster:
    """Puts probes on and takes them off as a schedule says. `figures` is complete after `stop`."""

    def __init__(
        self,
        uprobes: HeldUprobes,
        counting: Counting,
        schedule: BurstSchedule,
        pid: int,
        begins: Callable[[], None],
        take: Callable[[Slice], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_seconds: Callable[[int], float | None] = process_cpu_seconds,
    ) -> None:
        """`begins` is called before probes are put on, `take` when a slice has ended.

        That is after a burst when they are off, and at the end before they go. Both are called in the thread of the
        Burster or of whoever stops it.
        """
        self.figures = BurstFigures()
        self._uprobes = uprobes
        self._counting = counting
        self._schedule = schedule
        self._pid = pid
        self._begins = begins
        self._take = take
        self._clock = clock
        self._cpu_seconds = cpu_seconds
        self._since: float | None = None  # this slice; None: nothing counts
        self._retry_at = 0.0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def put_on(self) -> None:
        """Put the probes on now; `figures.failure` says why that failed."""
        self._begins()
        try:
            self._uprobes.put_on()
        except WouldWait as error:
            self.figures.waits = error.what
            self._retry_at = self._clock() + _RETRY
            return
        except (GomemError, OSError) as error:
            self.figures.failure, self.figures.error = str(error), error
            return
        self.figures.bursts += 1
        self._since = self._clock()
        self._counting.count(on=True)

    def begin(self) -> None:
        """Go on by itself from now on."""
        self._thread = threading.Thread(target=self._run, name="gomem-bursts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the last slice and the probes off, for good. Idempotent."""
        over = self._end.is_set()
        self._end.set()
        if over:
            return
        if self._thread is not None:
            self._thread.join(_LAST_TICK)
        self._take_off(last=True)

    def _run(self) -> None:
        began, used = self._clock(), self._cpu_seconds(self._pid) or 0.0
        while not self.figures.failure:
            try:
                self._tick(began, used)
            except (GomemError, OSError) as error:
                self.figures.failure = str(error)
            if self._end.wait(_LOOK_ON if self._since is not None else _LOOK_OFF):
                return

    def _tick(self, began: float, used_before: float) -> None:
        used = self._cpu_seconds(self._pid)
        if used is None:
            return  # it has ended; what was counted is still there
        now = self._clock()
        self._note_let_go(now)
        wanted = self._schedule.decide(now - began, used - used_before, self._counting.spent())
        if wanted and self._since is None:
            if self._uprobes.off and now >= self._retry_at:
                self.put_on()
        elif not wanted and self._since is not None:
            self._take_off(last=False)
        elif self._since is not None and now - self._since >= _SLICE:
            self._end_slice(now, last=False)
            self._since = now

    def _note_let_go(self, now: float) -> None:
        """See that they were taken off because we were stopped; they come back."""
        lost_at = self._uprobes.lost_at()
        if lost_at is None:
            return
        self._counting.count(on=False)
        self.figures.stopped += 1
        self.figures.unseen += max(now - lost_at / 1e9, 0.0)
        self._end_slice(lost_at / 1e9, last=False)
        self._since = None

    def _take_off(self, *, last: bool) -> None:
        now = self._clock()
        if self._since is not None:
            self._counting.count(on=False)
        if last:  # what comes while they are taken off is no part of what was watched
            self._end_slice(now, last=True)
        self._uprobes.take_off()
        self._uprobes.settled.wait(_OFF if last else _AFTER)
        if not last:
            self._end_slice(now, last=False)
        self._since = None

    def _end_slice(self, now: float, *, last: bool) -> None:
        seconds = max(now - self._since, 0.0) if self._since is not None else 0.0
        self.figures.seconds += seconds
        self._take(Slice(seconds, last))
