"""Which of the tasks that `strace -f` follows are threads of the target.

strace follows forked children too and does not say whose a line is. The kernel does (Tgid in
/proc/TID/status) as long as the task lives; of one that is gone, the clone call that made it tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.events.strace.parser import Birth

MAX_HELD = 20_000  # events of tasks of whom nothing is known yet
MAX_KNOWN = 1 << 17


class Membership:
    """Lets pass the events of one process's threads.

    `lost` counts events of tasks that came and went without anybody telling whose they were.
    """

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        self.lost = 0
        self._pid = pid
        self._proc = proc
        self._ours: dict[int, bool] = {pid: True}
        self._held = no_events()

    def learn(self, births: Iterable[Birth]) -> None:
        """Take what the clone calls of known threads say of new tasks."""
        for birth in births:
            if len(self._ours) > MAX_KNOWN:
                self._ours = {self._pid: True}
            parent = self._ours.get(birth.parent)
            if parent is False:
                self._ours[birth.child] = False
            elif parent and birth.child != self._pid:
                self._ours[birth.child] = birth.thread

    def filter(self, batch: EventBatch) -> EventBatch:
        """Return the target's events of `batch` and of those held back before, by time.

        EXIT events of threads other than the leader are dropped: the process lives on.
        """
        events = np.concatenate([self._held, batch]) if len(self._held) else batch
        if not len(events):
            return no_events()
        tids = np.unique(events["tid"])
        verdicts = [self._is_ours(tid) for tid in tids.tolist()]
        ours = np.isin(events["tid"], _those(tids.tolist(), verdicts, True))
        unknown = np.isin(events["tid"], _those(tids.tolist(), verdicts, None))
        held = events[unknown]
        self.lost += int(np.count_nonzero(held["kind"][MAX_HELD:] != EventKind.EXIT))
        self._held = held[:MAX_HELD]
        self._forget_ended(events)
        ours &= (events["kind"] != EventKind.EXIT) | (events["tid"] == self._pid)
        passed = events[ours]
        return passed[np.argsort(passed["time"], kind="stable")]

    def give_up(self) -> None:
        """Count what is still held back as lost: nothing more will be learnt."""
        self.lost += int(np.count_nonzero(self._held["kind"] != EventKind.EXIT))
        self._held = no_events()

    def _is_ours(self, tid: int) -> bool | None:
        known = self._ours.get(tid)
        if known is None:
            leader = thread_group(tid, self._proc)
            if leader is not None:
                known = leader == self._pid
                self._ours[tid] = known
        return known

    def _forget_ended(self, events: EventBatch) -> None:
        ended = events["tid"][(events["kind"] == EventKind.EXIT) & (events["tid"] != self._pid)]
        still_held = set(self._held["tid"].tolist())
        for tid in set(ended.tolist()) - still_held:
            self._ours.pop(tid, None)


def thread_group(tid: int, proc: Path = Path("/proc")) -> int | None:
    """Return the thread group (pid) of a task, None if it is gone."""
    value = status_field(proc / str(tid), "Tgid")
    return int(value) if value is not None and value.isdecimal() else None


def status_field(directory: Path, name: str) -> str | None:
    """Return one field of a task's `status` file, None if the task is gone or has no such field."""
    try:
        lines = (directory / "status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    prefix = name + ":"
    return next((line[len(prefix) :].strip() for line in lines if line.startswith(prefix)), None)


def _those(tids: Sequence[int], verdicts: Sequence[bool | None], wanted: bool | None) -> list[int]:
    return [tid for tid, verdict in zip(tids, verdicts, strict=True) if verdict is wanted]
