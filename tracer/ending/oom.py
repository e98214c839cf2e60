"""Whether the OOM killer ended a process, and for which cgroup: from the kernel's log, else from the cgroup's counter.

The log names the victim: that is proof. The counter of the process's memory cgroup only says that somebody in it was
killed. Sources: mm/oom_kill.c (dump_oom_victim, __oom_kill_process), Documentation/ABI/testing/dev-kmsg,
Documentation/admin-guide/cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (memory.oom_control).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from contextlib import suppress

from gomem.tracer.errors import GomemError
from gomem.tracer.kernel.cgroup import Place, find_memory_cgroup, read_figures
from gomem.tracer.machine.rights import INITIAL_NAMESPACES
from gomem.tracer.proc.small_files import printable
from gomem.tracer.process.target import Target
from gomem.tracer.report import OomKill

_LOG = "/dev/kmsg"
_RECORD_BYTES = 8192  # CONSOLE_EXT_LOG_MAX; a read gives one record
_MOST_RECORDS = 20_000
_USAGE = re.compile(r"^memory: usage (\d{1,20})kB, limit (\d{1,20})kB")
_CHOICE = re.compile(
    r"^oom-kill:constraint=(\w+),.*?(?:,oom_memcg=(.*?),task_memcg=|,global_oom,).*task=.*,pid=(\d{1,10}),uid=\d+$"
)
_KILL = re.compile(r"^(Memory cgroup out|Out) of memory(?: \(.*?\))?: Kill(?:ed|ing) process (\d{1,10}) \(")


def victim(lines: Iterable[str], pid: int) -> OomKill | None:
    """Return what lines of the kernel's log say of the victim `pid` (as the kernel numbers it), None for nothing."""
    usage: tuple[int, int] | None = None
    chosen: tuple[str | None, int | None] = (None, None)
    found: OomKill | None = None
    for line in lines:
        if told := _USAGE.match(line):
            usage = int(told[1]) << 10, int(told[2]) << 10
        elif told := _CHOICE.match(line):
            if int(told[3]) == pid:
                chosen = told[2], usage[1] if usage and told[1] == "CONSTRAINT_MEMCG" else None
            usage = None
        elif (told := _KILL.match(line)) and int(told[2]) == pid:
            of_machine = told[1] == "Out"
            found = OomKill("machine", None, None, True) if of_machine else OomKill("cgroup", *chosen, True)
    return found


class OomWatch:
    """Watches for the end of one process by the OOM killer. Begin it while the process lives; close it."""

    def __init__(self, target: Target) -> None:
        """Begin; what may not be read is left out."""
        self._pid = target.pid
        self._log = _open_log()
        self._place: Place | None = None
        self._before: int | None = None
        self.see(target)

    def see(self, target: Target) -> None:
        """Note in which memory cgroup the process is, and what that has counted: it may have been moved."""
        with suppress(GomemError, OSError):
            found = find_memory_cgroup(target)
            if found is not None and found[1] != self._place:
                self._place, self._before = found[1], found[0].cgroup.oom_kill

    def close(self) -> None:
        """Let go of the log; idempotent."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def result(self) -> OomKill | None:
        """Return what is known of its end by the OOM killer; None if nothing speaks for it.

        Only for a process that was ended by SIGKILL: the counter does not tell one process from another. Where the log
        could be read and does not name it, it was somebody else who killed it.
        """
        if self._log < 0:
            return self._counted()
        lines, whole = _read_log(self._log)
        return victim(lines, self._pid) or (None if whole else self._counted())

    def _counted(self) -> OomKill | None:
        if self._place is None or self._before is None:
            return None
        try:
            group = read_figures(*self._place)
        except OSError:
            return None  # removed meanwhile, as containers' are
        now = group.cgroup.oom_kill
        if now is None or now <= self._before:
            return None
        return OomKill(None, group.cgroup.path, None, False, now - self._before)


def _open_log() -> int:
    """Return the kernel's log behind its last record; -1 where it may not be read, or numbers processes otherwise."""
    try:
        if os.stat("/proc/self/ns/pid").st_ino != INITIAL_NAMESPACES["pid"]:
            return -1
        fd = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        os.close(fd)
        return -1
    return fd


def _read_log(log: int) -> tuple[list[str], bool]:
    """Return the kernel's own records since the log was read last, and whether these are all."""
    lines: list[str] = []
    whole = True
    for _ in range(_MOST_RECORDS):
        try:
            record = os.read(log, _RECORD_BYTES)
        except BrokenPipeError:  # some were overwritten before we came
            whole = False
            continue
        except OSError as error:
            return lines, whole and error.errno == errno.EAGAIN
        if not record:
            return lines, whole
        if (line := kernels_line(record)) is not None:
            lines.append(line)
    return lines, False


def kernels_line(record: bytes) -> str | None:
    """Return the text of a record, "priority,sequence,time,flags;text"; None if a program wrote it."""
    prefix, semicolon, text = record.partition(b";")
    priority = prefix.split(b",", 1)[0]
    if not semicolon or not priority.isdigit() or int(priority) >> 3:
        return None
    return printable(text.split(b"\n", 1)[0])
