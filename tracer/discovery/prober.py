"""Looks at processes in a thread that can be left behind, should the file system of an executable not answer.

The process is looked at again when the thread is back; until then no other one is that is known to run a program of the
same file system.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from gomem.tracer.discovery.libraries import Libraries
from gomem.tracer.discovery.process_info import ProcessInfo, Unavailable, look
from gomem.tracer.discovery.recognition import FileKey, ProgramKind, Recognition, Recognized
from gomem.tracer.discovery.scan import executable_key
from gomem.tracer.process.abandonable import MOST_STUCK, AbandonableWorker

__all__ = ["MOST_STUCK", "PATIENCE", "ProbeResult", "Prober"]

PATIENCE = 5.0  # seconds without a step forward
_DENIED = Recognized(ProgramKind.UNREADABLE, "permission denied")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one look at a process told; `seen` is None where its program is of no interest, or there is none."""

    pid: int
    recognized: Recognized | None
    seen: ProcessInfo | Unavailable | None


def look_at(pid: int, recognition: Recognition, libraries: Libraries, asked: bool) -> ProbeResult:
    """Look at the program that `pid` runs, and at the process if Go is in it or it was asked for."""
    key: FileKey | None = None
    try:
        key = executable_key(pid)
        recognized = recognition.of_process(pid, key) if key else None
        if key is not None and recognized is not None and recognized.kind is ProgramKind.NOT_GO:
            recognized = libraries.of_process(pid, key) or recognized
    except PermissionError:
        recognized = _DENIED
    if not asked and (recognized is None or recognized.kind in (ProgramKind.NOT_GO, ProgramKind.SILENT)):
        return ProbeResult(pid, recognized, None)
    seen = look(pid)
    if isinstance(seen, ProcessInfo) and (recognized is None or (key is not None and not runs(seen, key))):
        seen = Unavailable.CHANGING
    return ProbeResult(pid, recognized, seen)


def runs(seen: ProcessInfo, key: FileKey) -> bool:
    """Tell whether the process that was seen executes the file."""
    exe = seen.identity.exe
    return (exe.device, exe.inode, exe.mtime_ns) == (key.device, key.inode, key.mtime_ns)


class Prober:
    """Gives out looks. `look` and `stop` are for one thread; it must not be the one that looks."""

    def __init__(
        self,
        recognition: Recognition,
        patience: float = PATIENCE,
        device_of: Callable[[int], int | None] = lambda pid: None,
    ) -> None:
        """`device_of` tells of a process on which file system its executable lies, where that is known."""
        self._recognition = recognition
        self._libraries = Libraries()
        self._patience = patience
        self._device_of = device_of
        self._worker: AbandonableWorker | None = None
        self._stuck: dict[int, AbandonableWorker] = {}
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

    def look(self, pids: Iterable[int], asked: Collection[int]) -> list[ProbeResult]:
        """Return looks at these processes, in their order; none at those that are stuck, or would be."""
        left = deque(self._that_answer(pids))
        looks: list[ProbeResult] = []
        while left and len(self._stuck) < MOST_STUCK:
            worker = self._worker = self._worker or AbandonableWorker("gomem-prober")
            done = self._looks(worker, tuple(left), frozenset(asked))
            looks += done
            for _ in done:
                left.popleft()
            if left:
                worker.leave()
                self._worker = None
                self._stuck[left.popleft()] = worker
                self.times_stuck += 1
                left = deque(self._that_answer(left))
        return looks

    def stop(self) -> None:
        """End the thread; those that are stuck end when they are back."""
        if self._worker is not None:
            self._worker.leave()
            self._worker.join(self._patience)
            self._worker = None

    def _that_answer(self, pids: Iterable[int]) -> Iterable[int]:
        silent = {self._device_of(pid) for pid in self._stuck} - {None, 0}
        return [pid for pid in pids if pid not in self._stuck and (not silent or self._device_of(pid) not in silent)]

    def _looks(self, worker: AbandonableWorker, pids: tuple[int, ...], asked: Collection[int]) -> list[ProbeResult]:
        """Return looks at all `pids`, or at those before the one that took longer than our patience."""
        done: list[ProbeResult] = []

        def look_at_all() -> None:
            for pid in pids:
                found = look_at(pid, self._recognition, self._libraries, pid in asked)
                if worker.left:
                    return
                done.append(found)

        worker.begin(look_at_all)
        while True:
            before = len(done)
            if worker.wait(self._patience) or len(done) == before:
                return done[:]
