"""Watching for how many processes end: one kernel log and one process connector for all of them."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from gomem.tracer.ending.afterlife import Afterlife, WaitStatus, told_by_pidfds
from gomem.tracer.ending.oom import Victims, open_log, read_log
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.kernel.process_events import ProcessEvents
from gomem.tracer.report import OomKill


class Endings:
    """Begins to watch processes, and tells how they ended. For one thread; close it.

    `open` comes first and may need privileges, which may be given up then: CAP_SYSLOG for the log where
    kernel.dmesg_restrict is set, CAP_NET_ADMIN for the connector before Linux 6.6.
    """

    def __init__(self) -> None:
        self._victims = Victims()
        self._log = -1
        self._gap = float("-inf")  # time.monotonic() at which records of the log were found to be overwritten
        self._events: ProcessEvents | None = None

    def open(self) -> None:
        """Open the log from now on, and a connector where the kernel tells by pidfds not enough; as far as we may."""
        self._log = open_log()
        if not told_by_pidfds():
            with suppress(BackendUnavailable):
                self._events = ProcessEvents.open()

    def close(self) -> None:
        """Let go of both; idempotent. What was begun is closed by who did so."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        if self._events is not None:
            self._events.close()
            self._events = None

    def names_victims(self, since: float) -> bool:
        """Tell whether the log names whomever the OOM killer has ended `since` then, time.monotonic()."""
        return self._log >= 0 and self._gap < since

    def begin(self, pid: int, start_ticks: int) -> Afterlife | None:
        """Hold on to the process that started then; its `pidfd` is readable when it has ended. None if it is gone."""
        self.listen()
        self._victims.forget(pid)  # who had it before
        if self._events is not None:
            self._events.statuses_of.add(pid)
        life = Afterlife(pid, listens=False)
        if life.pidfd >= 0 and life.is_of(start_ticks):
            return life
        self.end(life)
        return None

    def end(self, life: Afterlife) -> None:
        """Let go of a process."""
        self._victims.forget(life.pid)
        if self._events is not None:
            self._events.statuses_of.discard(life.pid)
            self._events.statuses.pop(life.pid, None)
        life.close()

    def listen(self) -> None:
        """Take what there is to be told: often enough that nothing is lost."""
        if self._log >= 0:
            lines, whole = read_log(self._log)
            self._victims.read(lines)
            self._gap = self._gap if whole else time.monotonic()
        if self._events is not None:
            self._events.read()

    def status(self, life: Afterlife) -> WaitStatus | None:
        """Return how a process ended that has; None if nobody tells."""
        status = life.status()
        if status is None and self._events is not None:
            self._events.read()
            told = self._events.statuses.get(life.pid)
            status = None if told is None else WaitStatus.parse(told)
        return status

    def victim(self, pid: int) -> OomKill | None:
        """Return what the log says of a process by now as a victim of the OOM killer; None for nothing."""
        self.listen()
        return self._victims.of(pid)
