"""The Go processes that a watched process starts: found soon after their exec, each watched by a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gomem.tracer.discovery.process_info import Identity, ProcessInfo, look
from gomem.tracer.discovery.recognition import ProgramKind, Recognition
from gomem.tracer.discovery.scan import executable_key, list_pids
from gomem.tracer.errors import GomemError
from gomem.tracer.proc.small_files import parse_stat
from gomem.tracer.report import Limit, Report

MOST_CHILDREN = 16  # whose reports are made; each costs probes and a thread
_EVERY = 0.05  # seconds between two looks for new ones
_MOST_KNOWN = 4096  # descendants that are remembered
_LONGEST_END = 30.0  # seconds that a thread may take to make its report when it is to end

WatchChild = Callable[[int, Callable[[], bool]], Report]  # (pid, "is it to end?") to the report


@dataclass(slots=True)
class _Watched:
    thread: threading.Thread
    report: Report | None = None


class Children:
    """Follows the descendants of a process, from `start` to `finish`."""

    def __init__(self, pid: int, watch: WatchChild, complain: Callable[[str], None]) -> None:
        """`watch` is called in a thread for each Go process among them."""
        self._pid = pid
        self._watch = watch
        self._complain = complain
        self._recognition = Recognition()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gomem-children", daemon=True)
        self._seen: dict[int, Identity] = {}  # descendants and the process itself, as they were seen last
        self._watched: dict[int, _Watched] = {}
        self._too_many = 0

    def start(self) -> None:
        """Begin to look for them."""
        self._thread.start()

    def finish(self) -> tuple[list[Report], list[Limit]]:
        """End all watching; return the reports, in the order in which the processes were found, and what is missing."""
        self._over.set()
        deadline = time.monotonic() + _LONGEST_END
        self._thread.join(_LONGEST_END)
        for one in self._watched.values():
            one.thread.join(max(deadline - time.monotonic(), 0.0))
        reports = [one.report for one in self._watched.values() if one.report is not None]
        limits = [
            Limit(
                "short-lived-children",
                "children that ended within a moment",
                f"/proc is looked through for new ones every {1000 * _EVERY:.0f} ms",
                "",
            )
        ]
        if self._too_many:
            what = f"{self._too_many} more children"
            limits.append(Limit("too-many-children", what, f"at most {MOST_CHILDREN} are watched", ""))
        return reports, limits

    def _run(self) -> None:
        while not self._over.wait(_EVERY):
            for pid in self._descendants():
                self._consider(pid)

    def _descendants(self) -> list[int]:
        """Return the processes below ours that are there now, and those found before whose parents are gone."""
        parents: dict[int, int] = {}
        for pid in list_pids():
            if (parent := _parent(pid)) is not None:
                parents[pid] = parent
        ours = {self._pid, *(pid for pid in self._seen if pid in parents)}
        more = True
        while more:
            found = {pid for pid, parent in parents.items() if parent in ours} - ours
            ours |= found
            more = bool(found)
        return sorted(ours - {self._pid})

    def _consider(self, pid: int) -> None:
        """Watch a process if it runs a Go program that it has executed itself, and is not watched yet."""
        if pid in self._watched:
            return
        seen = look(pid)
        if not isinstance(seen, ProcessInfo) or self._seen.get(pid) == seen.identity or len(self._seen) >= _MOST_KNOWN:
            return
        self._seen[pid] = seen.identity
        if self._is_a_fork(seen) or not self._is_go(pid):
            return
        if len(self._watched) >= MOST_CHILDREN:
            self._too_many += 1
            return
        watched = self._watched[pid] = _Watched(threading.Thread(target=self._watch_one, args=(pid,), daemon=True))
        watched.thread.start()

    def _is_a_fork(self, seen: ProcessInfo) -> bool:
        """Tell whether it still runs what its parent runs: a child has the same stack until it executes something."""
        parent = _parent(seen.pid)
        try:
            stat = parse_stat(Path(f"/proc/{parent}/stat").read_bytes())
        except (OSError, ValueError):
            return False
        return stat.start_stack == seen.identity.exe.start_stack != 0

    def _is_go(self, pid: int) -> bool:
        try:
            key = executable_key(pid)
        except PermissionError:
            return False
        return key is not None and self._recognition.of_process(pid, key).kind is ProgramKind.GO

    def _watch_one(self, pid: int) -> None:
        try:
            self._watched[pid].report = self._watch(pid, self._over.is_set)
        except GomemError as error:
            self._complain(f"child {pid}: {error.in_one_line()}")


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
