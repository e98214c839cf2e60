"""All processes by a walk through /proc: one directory listing, and one stat(2) of each executable.

Processes that run the same file are all Go programs or all not, whoever they are: a program that is known not to be
Go costs its stat(2) and nothing is kept of it.
"""

from __future__ import annotations

import os

from tracer.discovery.recognition import FileKey, file_key


def list_pids() -> set[int]:
    """Return the pids that /proc shows, kernel threads included. Raises OSError where there is no /proc."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def executable_key(pid: int) -> FileKey | None:
    """Return the key of what `pid` executes; None for a kernel thread or a process that is gone.

    Raises PermissionError.
    """
    try:
        return file_key(os.stat(f"/proc/{pid}/exe"))
    except PermissionError:
        raise
    except OSError:
        return None
