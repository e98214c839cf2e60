"""The black box of `gomem serve`: keeps what is known of each process, and saves it when the kernel kills it.

One thread reads the views that the fleet publishes, holds a pidfd of each process, and writes. It takes the profiles,
too, as far as a share of --cpu-budget goes; what it uses counts as following does.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gomem.exporters.black_box.box import Noticed
from gomem.exporters.black_box.deaths import Deaths
from gomem.exporters.black_box.followed import Followed
from gomem.exporters.black_box.kills import memory_by_place
from gomem.exporters.black_box.saving import Saving
from gomem.exporters.black_box.storage import Storage
from gomem.exporters.black_box.taking import Taking
from gomem.tracer.ending.endings import Endings
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.fleet.view import FleetView, TargetView

_SHARE = 0.25  # of --cpu-budget
_TURN = 1.0  # seconds that the thread waits at the most
_WAIT = 0.1  # seconds that it waits for a profile that is being taken
_UNSEEN = 60.0  # seconds without a view that has it after which a process that lives is let go
_STOP_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class BoxCounts:
    """What became of the black boxes so far."""

    saved: int
    failed: int


class BlackBox:
    """Keeps and saves. `open` may need privileges, `start` comes after they were given up."""

    def __init__(
        self,
        storage: Storage,
        view: Callable[[], FleetView | None],
        programs: Programs,
        cpu_budget: float,
        *,
        crashes: bool = False,
        tell: Callable[[str], None],
        complain: Callable[[int, Exception], None],
    ) -> None:
        """`view` returns the newest view, None before the first; `cpu_budget`: of one CPU, that of all.

        `programs` has the executables of the processes that are followed. `crashes`: keep also what ended otherwise
        than well (see Deaths). `tell` gets what whoever runs us should know; `complain` what no code here was ready
        for, with the pid of the process.
        """
        self._endings = Endings()
        self._deaths = Deaths(self._endings, crashes=crashes)
        self._taking = Taking(programs, cpu_budget * _SHARE, complain)
        self._saving = Saving(storage, self._taking.budget, tell, complain)
        self._storage = storage
        self._tell = tell
        self._complain = complain
        self._followed: dict[int, Followed] = {}  # by pid
        self._by_pidfd: dict[int, Followed] = {}
        self._view = view
        self._published = float("-inf")  # of the view that was taken last
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gomem-black-box", daemon=True)

    def open(self) -> None:
        """Open the directory and the sources that tell how processes end. Raises GomemError for the former."""
        self._storage.open()
        self._endings.open()

    def start(self) -> None:
        """Begin to keep."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is to be written of processes that have ended, and end; a disk that hangs is not waited for."""
        self._stopping = True
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(_STOP_WITHIN)
        if not self._thread.is_alive():
            self._poll.close()
            os.close(self._wake)

    def wake(self) -> None:
        """Have the newest view taken. Safe from any thread until it is stopped."""
        os.eventfd_write(self._wake, 1)

    @property
    def in_words(self) -> str:
        """Where they are kept, and what tells that it was the OOM killer; once it is open."""
        by = "the kernel's log" if self._endings.names_victims(0.0) else "the counts of memory cgroups"
        return f"black boxes: in {self._storage.path}; OOM kills are told by {by}"

    @property
    def busy(self) -> bool:
        """Whether a profile is being taken now. Safe from any thread."""
        return self._taking.busy

    def counts(self) -> BoxCounts:
        """Return what became of the black boxes so far. Safe from any thread."""
        return BoxCounts(self._saving.saved, self._saving.failed)

    # In the thread of its own

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            self._notice(0.0)
            self._save(final=True)
        except Exception as error:
            self._tell("no black boxes are kept from now on: gomem failed at them")
            self._complain(0, error)
        finally:
            self._close()

    def _turn(self) -> None:
        self._notice(0.0 if self._taking.busy else self._deaths.time_to_wait(_TURN))
        view = self._view()
        if view is not None and view.published != self._published:
            self._published = view.published
            self._learn(view)
        self._save(final=False)
        self._taking.go_on(self._followed.values(), _WAIT)

    def _notice(self, seconds: float) -> None:
        """Wait for ends or a view, and take note of those who have ended."""
        for fd, _ in self._poll.poll(seconds):
            if fd == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif (one := self._by_pidfd.get(fd)) is not None:
                self._forget(one)
                self._deaths.add(one, Noticed())
        self._endings.listen()

    def _learn(self, view: FleetView) -> None:
        self._deaths.see(view)
        memory_of = memory_by_place(view.cgroups)
        for target in view.targets:
            one = self._followed.get(target.pid)
            if one is not None and one.target.start_ticks != target.start_ticks:
                continue  # the pid is another's now: the end of the one before is about to be noticed
            if one is None and (one := self._begun(target, view)) is None:
                continue
            one.seen = view.published
            if target.report is not None and (target is not one.target or not one.looks.count):
                one.learn(target, memory_of(target))
        for one in [one for one in self._followed.values() if one.seen < view.published - _UNSEEN]:
            self._forget(one)
            self._endings.end(one.life)

    def _begun(self, target: TargetView, view: FleetView) -> Followed | None:
        """Begin with a process that a look has succeeded at."""
        if target.report is None or (life := self._endings.begin(target.pid, target.start_ticks)) is None:
            return None
        one = self._followed[target.pid] = self._by_pidfd[life.pidfd] = Followed(
            life, target, target.report, view.published
        )
        self._poll.register(life.pidfd, select.EPOLLIN)
        return one

    def _forget(self, one: Followed) -> None:
        """Keep no longer what is known of a process; whoever has it lets go of its life."""
        self._poll.unregister(one.life.pidfd)
        del self._by_pidfd[one.life.pidfd]
        if self._followed.get(one.target.pid) is one:
            del self._followed[one.target.pid]

    def _save(self, *, final: bool) -> None:
        for verdict in self._deaths.decided(final=final):
            if verdict.kept_for is not None:
                self._saving.save(verdict)
            self._endings.end(verdict.of.life)

    def _close(self) -> None:
        for one in list(self._followed.values()):
            self._forget(one)
            self._endings.end(one.life)
        self._taking.close()
        self._endings.close()
        self._storage.close()


class BoxCollector(Collector):
    """What became of the black boxes, as metrics; register it beside the others."""

    def __init__(self, counts: Callable[[], BoxCounts]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yield the families of one moment."""
        now = self._counts()
        yield CounterMetricFamily("gomem_black_boxes_saved", "Black boxes written of processes that died.", now.saved)
        yield CounterMetricFamily(
            "gomem_black_boxes_failed",
            "Black boxes that could not be written: the disk is full, one is larger than all may be, or too many "
            "processes died at once; gomem's log says which.",
            now.failed,
        )
