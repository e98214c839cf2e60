"""The processes that are known, which of them are wanted, and what of that nobody has been told yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gomem.tracer.discovery.changes import Changes, Found
from gomem.tracer.discovery.process_info import Identity, ProcessInfo
from gomem.tracer.discovery.recognition import ProgramKind, Recognized
from gomem.tracer.discovery.selection import Selection
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.discovery.workloads import WorkloadSource


class Untold:
    """What happened to wanted processes and was not told yet."""

    def __init__(self) -> None:
        self._appeared: dict[int, Found] = {}
        self._gone: list[Identity] = []
        self._changed: dict[int, Found] = {}

    def __bool__(self) -> bool:
        """Tell whether there is anything."""
        return bool(self._appeared or self._gone or self._changed)

    def found(self, found: Found, is_new: bool) -> None:
        """Note a process that is wanted now, or that more is known about."""
        if is_new or found.pid in self._appeared:
            self._appeared[found.pid] = found
        else:
            self._changed[found.pid] = found

    def lost(self, found: Found) -> None:
        """Note that one is gone or not wanted any more. Whoever came and went between two polls was never there."""
        self._changed.pop(found.pid, None)
        if self._appeared.pop(found.pid, None) is None:
            self._gone.append(found.identity)

    def taken(self) -> Changes:
        """Return it all; it is told now."""
        changes = Changes(
            tuple(self._appeared.values()),
            tuple(self._gone),
            tuple(one for pid, one in self._changed.items() if pid not in self._appeared),
        )
        self._appeared, self._gone, self._changed = {}, [], {}
        return changes


@dataclass(slots=True)
class Known:
    """A Go process, or one whose pid was given; `found` is None while it is not wanted."""

    info: ProcessInfo
    recognized: Recognized
    found: Found | None


class Register:
    """Knows processes, and judges which of them are wanted."""

    def __init__(
        self,
        selection: Selection,
        workloads: WorkloadSource,
        most_targets: int,
        on_room: Callable[[], None],
    ) -> None:
        """`on_room` is called when there is room again for one that was left out, of at most `most_targets`."""
        self.asked: dict[int, int] = {}  # the processes whose pids were given: pid -> start time in clock ticks
        self.left_out = 0  # wanted processes beyond `most_targets`, as of now
        self.untold = Untold()
        self._selection = selection
        self._workloads = workloads
        self._most_targets = most_targets
        self._on_room = on_room
        self._generation = -1  # of the workloads, when all were judged
        self._known: dict[int, Known] = {}
        self._wanted = 0

    def __contains__(self, pid: int) -> bool:
        """Tell whether a process is known."""
        return pid in self._known

    def of(self, pid: int) -> Known | None:
        """Return what is known of a process."""
        return self._known.get(pid)

    def was_asked_for(self, seen: ProcessInfo) -> bool:
        """Tell whether this is the process whose pid was given, and not another that has the pid now."""
        return self.asked.get(seen.pid) == seen.identity.start_ticks

    def add(self, seen: ProcessInfo, recognized: Recognized) -> None:
        """Know a process from now on."""
        known = self._known[seen.pid] = Known(seen, recognized, None)
        self._judge(known)

    def update(self, known: Known, seen: ProcessInfo) -> None:
        """Take what is seen of it now."""
        known.info = seen
        self._judge(known)

    def forget(self, pid: int) -> None:
        """Forget a process; one that is not known, too."""
        known = self._known.pop(pid, None)
        if known is not None:
            self._withdraw(known)

    def keep_only(self, pids: set[int]) -> None:
        """Forget all others."""
        for pid in [pid for pid in self._known if pid not in pids]:
            self.forget(pid)

    def judge_again(self) -> None:
        """Decide anew which of all are wanted."""
        self.left_out = 0
        for known in self._known.values():
            self._judge(known)

    def mind_workloads(self) -> None:
        """Decide anew if more is known by now of where processes belong."""
        if self._workloads.generation != self._generation:
            self._generation = self._workloads.generation
            self.judge_again()

    def _judge(self, known: Known) -> None:
        """Decide whether a known process is wanted, and note what changed."""
        before = known.found
        workload = self._workloads.of(known.info)
        if not self._is_wanted(known, workload):
            self._withdraw(known)
            return
        if before is None and self._wanted >= self._most_targets:
            self.left_out += 1
            return
        found = _found(known, workload)
        if found == before:
            return
        known.found = found
        self._wanted += before is None
        self.untold.found(found, is_new=before is None)

    def _is_wanted(self, known: Known, workload: Workload) -> bool:
        if self.was_asked_for(known.info):
            return True
        return known.recognized.kind is ProgramKind.GO and self._selection.wants(known.info, workload)

    def _withdraw(self, known: Known) -> None:
        if known.found is None:
            return
        self._wanted -= 1
        self.untold.lost(known.found)
        known.found = None
        if self.left_out:
            self._on_room()


def _found(known: Known, workload: Workload) -> Found:
    info = known.info
    return Found(
        identity=info.identity,
        name=info.name,
        exe=info.exe,
        uid=info.uid,
        cgroups=info.cgroups,
        workload=workload,
        kind=known.recognized.kind,
        build_id=known.recognized.build_id,
    )
