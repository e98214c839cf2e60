"""All processes by a walk through /proc: one directory listing, and one stat(2) of each executable.

Processes that run the same file are all Go programs or all not, whoever they are: a program that is known not to be
Go costs its stat(2) and nothing is kept of it.
"""

from __future__ import annotations

import os

from gomem.tracer.discovery.recognition import FileKey, file_key
from gomem.tracer.proc.unasked import status


def list_pids() -> set[int]:
    """Return the pids that /proc shows, kernel threads included. Raises OSError where there is no /proc."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def executable_key(pid: int) -> FileKey | None:
    """Return the key of what `pid` executes; None for a kernel thread or a process that is gone.

    Raises PermissionError.
    """
    try:
        return file_key(status(f"/proc/{pid}/exe"))
    except PermissionError:
        raise
    except OSError:
        return None


class ProcessList:
    """The pids that /proc shows, scan by scan, and how many processes were met."""

    def __init__(self) -> None:
        self.seen = 0  # processes
        self.scans = 0
        self.errors = 0  # scans that failed
        self._pids: set[int] = set()

    def scan(self, *, events_count: bool) -> set[int] | None:
        """Return all pids; None if that fails. With `events_count` others count the new ones after the first scan."""
        try:
            pids = list_pids()
        except OSError:
            self.errors += 1
            return None
        if not events_count or not self.scans:
            self.seen += len(pids - self._pids)
            self._pids = pids
        self.scans += 1
        return pids
