"""The table of targets, an array map that the programs and we have both mapped.

What the kernel counted for a target is read without a system call, and a target is paused or resumed with one store.
"""

from __future__ import annotations

import contextlib
import mmap
from collections import deque

import numpy as np
from numpy.typing import NDArray

from gomem.bpf.program import Counter
from gomem.tracer.errors import BackendUnavailable


def target_dtype(uprobes: int) -> np.dtype[np.void]:
    """Return bpf/programs/targets.h: struct target, with counters for so many uprobes."""
    return np.dtype(
        [
            ("key", "<u4"),
            ("id", "<u4"),
            ("budget", "<u4"),  # events in a second
            ("paused", "<u4"),
            ("spent", "<u4"),  # of the budget, since `window`
            ("leader_exited", "<u4"),
            ("window", "<u8"),  # CLOCK_MONOTONIC ns
            ("over_budget", "<u8"),
            ("counters", "<u8", (Counter.HITS + uprobes,)),
        ]
    )


class TargetTable:
    """Its rows, which are called slots, and which of them are free."""

    def __init__(self, targets: int, dtype: np.dtype[np.void], map_fd: int) -> None:
        """Map it. Raises OSError."""
        size = -(-dtype.itemsize * targets // mmap.PAGESIZE) * mmap.PAGESIZE
        self._mapped = mmap.mmap(map_fd, size, mmap.MAP_SHARED)
        self._rows: NDArray[np.void] = np.frombuffer(self._mapped, dtype, targets)
        self._free = deque(range(targets))  # first in, first out: a slot rests before it is another's
        self._last_id = 0

    def ensure_room(self) -> None:
        """Raise BackendUnavailable if no slot is free."""
        if not self._free:
            what = f"{len(self._rows)} processes are followed already"
            raise BackendUnavailable(what, "select fewer with a filter")

    def take(self, key: int, budget: int) -> int:
        """Return the slot of another target, with a budget of events a second. Not without room."""
        slot = self._free.popleft()
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        row = np.zeros(1, self._rows.dtype)
        row["key"], row["id"], row["budget"] = key, self._last_id, budget
        self._rows[slot] = row[0]
        return slot

    def give_back(self, slot: int) -> None:
        """Let another target have a slot."""
        self._free.append(slot)

    def row(self, slot: int) -> np.void:
        """Return the row of a target: what is read is what the kernel has just now."""
        row: np.void = self._rows[slot]
        return row

    def key(self, slot: int) -> int:
        """Return by which key the programs know a target."""
        return int(self._rows[slot]["key"])

    def counter(self, index: int) -> int:
        """Return one of the counters, of all targets together."""
        return int(self._rows["counters"][:, index].sum())

    def close(self) -> None:
        """Unmap it. A row that somebody still has keeps the memory."""
        del self._rows
        with contextlib.suppress(BufferError):
            self._mapped.close()
