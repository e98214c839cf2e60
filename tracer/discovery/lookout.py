"""Looks at processes in a thread that can be left behind.

The kernel may keep whoever looks at an executable waiting for ever: its file system can be one that a program serves
(FUSE) and no longer answers, or a server that is gone (NFS). Then that thread waits, and another one goes on with the
other processes; the process is looked at again when the thread is back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tracer.discovery.recognition import FileKey, Kind, Recognition, Recognized
from tracer.discovery.scan import executable_key
from tracer.discovery.sighting import Sighting, Unseen, look

PATIENCE = 5.0  # seconds without a step forward
MOST_STUCK = 16  # threads that wait; with so many, nobody is looked at until one is back
_DENIED = Recognized(Kind.UNREADABLE, "permission denied")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a process told; `seen` is None where its program is of no interest, or there is none."""

    pid: int
    recognized: Recognized | None
    seen: Sighting | Unseen | None


def look_at(pid: int, recognition: Recognition, asked: bool) -> Look:
    """Look at the program that `pid` runs, and at the process if that is a Go program or it was asked for."""
    key: FileKey | None = None
    try:
        key = executable_key(pid)
        recognized = recognition.of_process(pid, key) if key else None
    except PermissionError:
        recognized = _DENIED
    if not asked and (recognized is None or recognized.kind is Kind.NOT_GO):
        return Look(pid, recognized, None)
    seen = look(pid)
    if isinstance(seen, Sighting) and (recognized is None or (key is not None and not runs(seen, key))):
        seen = Unseen.CHANGING
    return Look(pid, recognized, seen)


def runs(seen: Sighting, key: FileKey) -> bool:
    """Tell whether the process that was seen executes the file."""
    exe = seen.identity.exe
    return (exe.device, exe.inode, exe.mtime_ns) == (key.device, key.inode, key.mtime_ns)


class Lookout:
    """Gives out looks. `look` and `stop` are for one thread; it must not be the one that looks."""

    def __init__(self, recognition: Recognition, patience: float = PATIENCE) -> None:
        self._recognition = recognition
        self._patience = patience
        self._worker: _Worker | None = None
        self._stuck: dict[int, _Worker] = {}
        self.times_stuck = 0

    @property
    def stuck(self) -> frozenset[int]:
        """The processes whose looks have not come back."""
        return frozenset(self._stuck)

    def back(self) -> list[int]:
        """Return the processes whose looks have come back since it was asked last: what they told is out of date."""
        back = [pid for pid, worker in self._stuck.items() if not worker.is_alive()]
        for pid in back:
            del self._stuck[pid]
        return back

    def look(self, pids: Iterable[int], asked: Collection[int]) -> list[Look]:
        """Return looks at these processes, in their order; none at those that are stuck."""
        left = deque(pid for pid in pids if pid not in self._stuck)
        looks: list[Look] = []
        while left and len(self._stuck) < MOST_STUCK:
            worker = self._worker
            if worker is None:
                worker = self._worker = _Worker(self._recognition)
                worker.start()
            done = worker.look(left, asked, self._patience)
            looks += done
            for _ in done:
                left.popleft()
            if left:
                worker.leave()
                self._worker = None
                self._stuck[left.popleft()] = worker
                self.times_stuck += 1
        return looks

    def stop(self) -> None:
        """End the thread; those that are stuck end when they are back."""
        if self._worker is not None:
            self._worker.leave()
            self._worker.join(self._patience)
            self._worker = None


class _Worker(threading.Thread):
    """One thread that looks at one lot of processes after the other."""

    def __init__(self, recognition: Recognition) -> None:
        super().__init__(name="gomem-lookout", daemon=True)
        self._recognition = recognition
        self._changed = threading.Condition()
        self._work: tuple[tuple[int, ...], Collection[int]] | None = None
        self._done: list[Look] = []
        self._left = False

    def look(self, pids: Iterable[int], asked: Collection[int], patience: float) -> list[Look]:
        """Return looks at all `pids`, or at those before the one that took longer than `patience` seconds."""
        wanted = tuple(pids)
        with self._changed:
            done: list[Look] = []
            self._done = done
            self._work = wanted, frozenset(asked)
            self._changed.notify_all()
            while len(done) < len(wanted):
                before, deadline = len(done), time.monotonic() + patience
                while len(done) < len(wanted) and time.monotonic() < deadline:
                    self._changed.wait(deadline - time.monotonic())
                if len(done) == before:
                    break
            return done[:]

    def leave(self) -> None:
        """Say that nobody waits for it any more."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def run(self) -> None:
        """Look, until nobody waits for it."""
        while True:
            with self._changed:
                while self._work is None and not self._left:
                    self._changed.wait()
                if self._left or self._work is None:
                    return
                (pids, asked), done, self._work = self._work, self._done, None
            for pid in pids:
                found = look_at(pid, self._recognition, pid in asked)
                if self._left:
                    return
                done.append(found)
            with self._changed:
                self._changed.notify_all()
