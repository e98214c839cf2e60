"""Taking the profiles of processes that live, one process at a time, within a share of the CPU.

A process that keeps whoever looks at it waiting is left behind with the thread that waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial

from gomem.bpf.syscalls import return_free_memory
from gomem.exporters.black_box.contents import GOROUTINES, HEAP
from gomem.exporters.black_box.followed import Followed, Kept
from gomem.exporters.black_box.schedule import is_urgent, next_one
from gomem.exporters.pprof.taking import profile_of
from gomem.tracer.errors import BinaryError, GomemError, LayoutError, NotPermitted, TargetError, TooLarge
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.machine.cpu_budget import CpuBudget
from gomem.tracer.process.jobs import Jobs
from gomem.tracer.profile.goroutine import goroutine_profile
from gomem.tracer.profile.heap import heap_profile
from gomem.tracer.report.profile import Profile
from gomem.tracer.snapshot.inspection import Inspector

_BURST = 1.0  # seconds of CPU time at once
_RESERVE = 0.5  # of it, for processes near a limit
_PATIENCE = 5.0  # seconds without any use of the CPU after which a thread is left behind
_MOST_GOROUTINES = 5_000  # of a process whose goroutine profile is taken, 8 us each
_LARGEST = 4 << 20  # bytes of one process's profiles
_MOST_BYTES = 16 << 20  # of all that are kept
_LARGE = 64 << 10  # bytes of a file that took some 100 MB to make
_LASTING = (TargetError, LayoutError, BinaryError, NotPermitted)  # another try would end as this one did


@dataclass(slots=True)
class Outcome:
    """The profiles that were taken of a process, or why there are none; `lasting`: and there will be none soon."""

    of: Followed
    profiles: dict[str, Kept] = field(default_factory=dict)
    why_none: dict[str, str] = field(default_factory=dict)
    lasting: bool = False


class Taking:
    """Takes profiles. For one thread, which asks it to go on again and again."""

    def __init__(self, programs: Programs, share: float, complain: Callable[[int, Exception], None]) -> None:
        """`share`: of one CPU. `complain` gets what no code here was ready for, with the pid of the process."""
        self.budget = CpuBudget(_BURST, share)
        self._programs = programs
        self._complain = complain
        self._jobs: Jobs[Outcome] = Jobs("gomem-black-box", _PATIENCE)

    @property
    def busy(self) -> bool:
        """Whether a profile is being taken now. Safe from any thread."""
        return self._jobs.current is not None

    def go_on(self, followed: Collection[Followed], wait: float) -> None:
        """Wait for what is under way, at most `wait` seconds; keep what is done, and begin the next that is due."""
        if self.busy:
            self._jobs.wait(wait)
        for job in self._jobs.finished():
            keep(job.owner, followed)
        if self._jobs.free_for_all and (one := self._whose_turn(followed)) is not None:
            begun = Outcome(one)
            self._jobs.begin(begun, partial(self._take, begun))

    def close(self) -> None:
        """Let the threads end; what is under way is left."""
        self._jobs.close()

    def _whose_turn(self, followed: Collection[Followed]) -> Followed | None:
        if not self.budget.is_open():
            return None
        stuck, now = {job.owner.of for job in self._jobs.stuck}, time.monotonic()
        one = next_one((one for one in followed if one not in stuck), now)
        return one if one is not None and (is_urgent(one, now) or self.budget.is_open(_RESERVE)) else None

    def _take(self, begun: Outcome) -> None:
        """Take both profiles of a process, in a thread that may have to wait."""
        spent, target = time.thread_time(), begun.of.target
        kinds: dict[str, Callable[[Inspector], Profile]] = {HEAP: partial(heap_profile, cycle="active")}
        if (count := begun.of.goroutines) is not None and count <= _MOST_GOROUTINES:
            kinds[GOROUTINES] = goroutine_profile
        else:
            begun.why_none[GOROUTINES] = f"it has more than {_MOST_GOROUTINES:,} goroutines, or how many is not known"
        try:
            for file, kind in kinds.items():
                self._take_one(begun, file, partial(profile_of, self._programs, target.pid, target.start_ticks, kind))
        finally:
            self.budget.spend(time.thread_time() - spent)
        if max((kept.size for kept in begun.profiles.values()), default=0) > _LARGE:
            return_free_memory()

    def _take_one(self, begun: Outcome, file: str, take: Callable[[], bytes]) -> None:
        began = time.monotonic()
        try:
            begun.profiles[file] = Kept(take(), began)
        except GomemError as error:
            begun.why_none[file] = error.in_one_line()
            begun.lasting |= file == HEAP and isinstance(error, _LASTING) and not isinstance(error, TooLarge)
        except Exception as error:  # one process must not end the black boxes of the others
            self._complain(begun.of.target.pid, error)
            begun.why_none[file] = "gomem failed at it"
            begun.lasting = True


def keep(done: Outcome, followed: Collection[Followed]) -> None:
    """Keep what was taken of a process; what could not be taken leaves what was there."""
    one = done.of
    if sum(kept.size for kept in done.profiles.values()) > _LARGEST:
        done.profiles.clear()
        done.why_none = dict.fromkeys((HEAP, GOROUTINES), f"they have more than {_LARGEST >> 20} MB")
        done.lasting = True
    heap = done.profiles.get(HEAP)
    if heap is not None:
        one.age.took(heap.taken, one.near)
    else:
        one.age.failed(time.monotonic(), lasting=done.lasting)
    one.profiles = {**one.profiles, **done.profiles}
    one.why_none = done.why_none
    bound(followed)


def bound(followed: Collection[Followed]) -> None:
    """Let go of the profiles of those that are farthest from their limits, while all take too much."""
    excess = sum(one.profile_bytes for one in followed) - _MOST_BYTES
    for one in sorted(followed, key=lambda one: one.near):
        if excess <= 0:
            return
        excess -= one.profile_bytes
        one.forget_profiles(f"profiles of all processes took more than {_MOST_BYTES >> 20} MB")
