"""Ends a command whose thread waits in the kernel for a process that does not answer.

Looks are tried first elsewhere (`gomem.tracer.process.guardian`), but a process may block itself between that and the
look. The thread then sleeps on the lock of that process's memory map. No signal with a handler ends that sleep, so
Ctrl-C does not; the end of our whole process does, for all files in /proc that we read take the lock by
mmap_read_lock_killable() (fs/proc/task_mmu.c; tried on 6.18: pagemap, smaps, smaps_rollup, cmdline, mem, map_files).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gomem.tracer.errors import NoAnswer
from gomem.tracer.process.guardian import no_answer

PATIENCE = 5.0  # seconds of one sleep that nothing interrupts: reading a disk that is slow is many sleeps
_EVERY = 0.25
# The files whose reading takes the lock; elsewhere a thread may sleep so long for a disk.
_LOCKING = ("cmdline", "environ", "map_files", "maps", "mem", "pagemap", "smaps", "smaps_rollup")
_FIX = "it has begun to while gomem looked at it; look again when it answers, or end it"


def watch(end: Callable[[NoAnswer], None], patience: float = PATIENCE) -> None:
    """Call `end` from another thread when the calling thread has slept for `patience` seconds and cannot be woken."""
    task = Path(f"/proc/self/task/{threading.get_native_id()}")
    threading.Thread(target=_attend, args=(task, end, patience), name="gomem-watchdog", daemon=True).start()


def _attend(task: Path, end: Callable[[NoAnswer], None], patience: float) -> None:
    sleep, since = None, time.monotonic()
    while True:
        time.sleep(_EVERY)
        now = _uninterruptible(task)
        if now is None or now != sleep:
            sleep, since = now, time.monotonic()
        elif time.monotonic() - since >= patience and (pid := _waits_for(task)) is not None:
            end(no_answer(pid, _FIX))
            return


def _uninterruptible(task: Path) -> int | None:
    """Return the number of the sleep that a thread is in, None if it is in none, or in one that signals end."""
    try:
        lines = (task / "status").read_bytes().splitlines()
    except OSError:
        return None
    fields = dict(line.split(b":", 1) for line in lines)
    if not fields.get(b"State", b"").strip().startswith(b"D"):
        return None
    return int(fields.get(b"voluntary_ctxt_switches", b"0"))


def _waits_for(task: Path) -> int | None:
    """Return the process whose file in /proc a thread reads; None where it waits for something else, as a disk."""
    try:
        _, descriptor, *_ = (task / "syscall").read_text().split()
        path = os.readlink(f"/proc/self/fd/{int(descriptor, 16)}")
    except (OSError, ValueError):
        return None
    *_, pid, name = ("", *path.split("/"))
    return int(pid) if name in _LOCKING and pid.isdigit() else None
