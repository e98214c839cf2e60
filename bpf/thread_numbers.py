"""The numbers of threads in another PID namespace, which its own processes use and the kernel tells of them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from gomem.tracer.events.record import EventBatch


class ThreadNumbers:
    """Gives threads of a process the tracer's numbers, where the kernel told those of the process's own namespace."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._known: dict[int, int] = {}

    def translate(self, batch: EventBatch) -> None:
        """Change `tid` of the events in place; to 0 for a thread that is gone before it was ever seen here."""
        seen, positions = np.unique(batch["tid"], return_inverse=True)
        if any(int(tid) not in self._known for tid in seen):
            self._known |= thread_numbers(self._pid)
        batch["tid"] = np.array([self._known.get(int(tid), 0) for tid in seen], dtype="<u4")[positions]


def thread_numbers(pid: int) -> dict[int, int]:
    """Map thread ids of a process's innermost PID namespace to ours; nothing if it is gone."""
    numbers: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for directory in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for line in (directory / "status").read_text().splitlines():
                    if line.startswith("NSpid:"):
                        numbers[int(line.split()[-1])] = int(directory.name)
    return numbers
