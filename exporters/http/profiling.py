"""Profiles and memory maps: taken one at a time, beside the looks, in a thread that can be left behind.

Nothing here is done by the threads that answer: who asks gets a Future, and waits for it on the event loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import MappingProxyType

from gomem.bpf.syscalls import return_free_memory
from gomem.exporters.http.cpu_time import CpuTime
from gomem.exporters.http.profile_kinds import PROFILE, PROFILES
from gomem.exporters.http.response import Response, plain
from gomem.exporters.pprof.taking import read_of
from gomem.tracer.errors import (
    BinaryError,
    GomemError,
    LayoutError,
    NotPermitted,
    TargetError,
    TargetExecuted,
    TargetGone,
    TooLarge,
)
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.fleet.view import TargetView
from gomem.tracer.machine.cpu_budget import CpuBudget
from gomem.tracer.process.jobs import Jobs
from gomem.tracer.snapshot.inspection import Inspector

_KEPT_FOR = 5.0  # seconds that a profile is the answer to all who ask for it
_MOST_KEPT_BYTES = 32 << 20
_LARGEST = 16 << 20  # bytes of one file, compressed; one of 30,000 stacks that are 64 deep has 87 KB
_MOST_WAITING = 16  # different profiles
USUAL_SHARE = 0.05  # of one CPU, in the long run
_BURST = 2.0  # seconds of CPU time at once
_PATIENCE = 5.0  # seconds without any use of the CPU after which a thread is left behind
_LONGEST = 15.0  # seconds that those who ask wait for one that is being taken
_WAIT = 0.25
_LARGE = 64 << 10  # bytes of a file that took some 100 MB to make
_LASTING = (TargetError, LayoutError, BinaryError, NotPermitted)  # another try would end as this one did


@dataclass(frozen=True, slots=True)
class _Key:
    """A kind of profile of one process."""

    pid: int
    start_ticks: int
    kind: str


class Profiling:
    """Takes what it is asked for, and keeps each for a while. `ask` is for any thread."""

    def __init__(
        self,
        programs: Programs,
        complain: Callable[[int, Exception], None],
        share: float = USUAL_SHARE,
        more: Mapping[str, Callable[[Inspector], Response]] = MappingProxyType({}),
    ) -> None:
        """`programs` has the executables of the processes that are followed.

        `complain` gets what no code here was ready for, with the pid of the process. `share`: of one CPU, what this
        may use of it in the long run. `more`: what is taken beside the kinds of profiles, by name.
        """
        self._programs = programs
        self._complain = complain
        self._kinds = {**PROFILES, **more}
        self._changed = threading.Condition()
        self._wanted: dict[_Key, Future[Response]] = {}  # in the order of their turns; the first is being taken
        self._kept: dict[_Key, tuple[float, Response]] = {}  # time.monotonic(), the oldest first
        self._budget = CpuBudget(_BURST, share)
        self._cpu = CpuTime()
        self._jobs: Jobs[_Key] = Jobs("gomem-profiles", _PATIENCE)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gomem-profiling", daemon=True)

    def start(self) -> None:
        """Begin to take what is asked for."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more; what is under way is waited for, unless it is stuck."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(2 * _PATIENCE)

    def cpu_seconds(self) -> float:
        """Return the CPU time that profiles have taken. Safe from any thread."""
        return self._cpu.seconds()

    @property
    def busy(self) -> bool:
        """Whether one is being taken now. Safe from any thread."""
        return self._jobs.current is not None

    def ask(self, target: TargetView, kind: str) -> Future[Response]:
        """Return the answer of a few seconds ago, or one to come; too many, and beyond the budget, 503 at once."""
        key = _Key(target.pid, target.start_ticks, kind)
        with self._changed:
            kept = self._kept.get(key)
            if kept is not None and time.monotonic() - kept[0] < _KEPT_FOR:
                return _done(kept[1])
            if (coming := self._wanted.get(key)) is not None:
                return coming
            if len(self._wanted) >= _MOST_WAITING:
                return _done(later("too many are being waited for"))
            if not self._budget.is_open():
                return _done(later("profiles and maps have had their share of the CPU for now", 10))
            coming = self._wanted[key] = Future()
            coming.set_running_or_notify_cancel()  # one of those who wait must not take it from the others
            self._changed.notify_all()
            return coming

    # In the thread of its own

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._stopping, _KEPT_FOR)
                self._forget_old()
                if self._stopping:
                    break
                key, coming = next(iter(self._wanted.items()), (None, None))
            if key is not None and coming is not None:
                self._take(key, coming)
        self._jobs.close()

    def _take(self, key: _Key, coming: Future[Response]) -> None:
        self._jobs.finished()
        if any(job.owner.pid == key.pid for job in self._jobs.stuck) or not self._jobs.free_for_all:
            self._answer(key, coming, later("gomem still waits for a file system from the time before", 60))
            return
        taken: list[Response] = []
        job = self._jobs.begin(key, lambda: taken.append(self._cpu.of(self._taken, key)))
        while not job.done and not job.was_stuck and not self._stopping:
            self._jobs.wait(_WAIT)
            if time.monotonic() - job.began > _LONGEST and not coming.done():
                coming.set_result(later("it takes too long", 60))
        self._jobs.finished()
        self._answer(key, coming, taken[0] if taken else later("its files do not answer (NFS, FUSE)", 60))

    def _answer(self, key: _Key, coming: Future[Response], response: Response) -> None:
        with self._changed:
            del self._wanted[key]
            self._kept.pop(key, None)
            self._kept[key] = time.monotonic(), response
            self._forget_old()
        if not coming.done():
            coming.set_result(response)

    def _forget_old(self) -> None:
        """Let go of what is too old, and of the oldest beyond what may be kept."""
        too_old = time.monotonic() - _KEPT_FOR
        size = sum(len(response.body) for _, response in self._kept.values())
        for key, (taken, response) in list(self._kept.items()):
            if taken > too_old and size <= _MOST_KEPT_BYTES:
                break
            size -= len(response.body)
            del self._kept[key]

    # In one that may have to wait

    def _taken(self, key: _Key) -> Response:
        began = time.thread_time()
        try:
            answer = read_of(self._programs, key.pid, key.start_ticks, self._kinds[key.kind])
        except GomemError as error:
            return _refusal(error)
        except Exception as error:  # one process must not end the profiles of the others
            self._complain(key.pid, error)
            return plain(500, "this went wrong on our side", PROFILE)
        finally:
            self._budget.spend(time.thread_time() - began)
        if len(answer.body) > _LARGE:
            return_free_memory()
        if len(answer.body) > _LARGEST:
            return later(f"it has {len(answer.body) >> 20} MB, more than {_LARGEST >> 20}", 60)
        return answer


def refused(status: int, why: str, **headers: str) -> Response:
    """Return an answer whose words `go tool pprof` shows, as it does those of net/http/pprof (serveError)."""
    return plain(status, why, PROFILE, X_Go_Pprof="1", **headers)


def later(why: str, seconds: int = 5) -> Response:
    """Return the answer to who may ask again after so many seconds."""
    return refused(503, f"not now: {why}", Retry_After=str(seconds))


def _refusal(error: GomemError) -> Response:
    why = " ".join(error.in_one_line().split())
    if isinstance(error, TargetGone | TargetExecuted):
        return refused(410, why)
    if isinstance(error, _LASTING) and not isinstance(error, TooLarge):
        return refused(404, why)
    return later(why)


def _done(response: Response) -> Future[Response]:
    done: Future[Response] = Future()
    done.set_result(response)
    return done
