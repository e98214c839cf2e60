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
from typing import TypeVar

from gomem.tracer.errors import GomemError
from gomem.tracer.kernel.cgroup import Place, find_memory_cgroup, read_figures
from gomem.tracer.machine.rights import INITIAL_NAMESPACES
from gomem.tracer.proc.small_files import printable
from gomem.tracer.process.target import Target
from gomem.tracer.report import OomKill

_LOG = "/dev/kmsg"
_RECORD_BYTES = 8192  # CONSOLE_EXT_LOG_MAX; a read gives one record
_MOST_RECORDS = 20_000
_MOST_VICTIMS = 1024  # the last ones
_USAGE = re.compile(r"^memory: usage (\d{1,20})kB, limit (\d{1,20})kB")
_CHOICE = re.compile(
    r"^oom-kill:constraint=(\w+),.*?(?:,oom_memcg=(.*?),task_memcg=|,global_oom,).*task=.*,pid=(\d{1,10}),uid=\d+$"
)
_KILL = re.compile(r"^(Memory cgroup out|Out) of memory(?: \(.*?\))?: Kill(?:ed|ing) process (\d{1,10}) \(")


_Said = TypeVar("_Said")


class Victims:
    """Whom the kernel's log names as victims of the OOM killer; the last ones, and it may be read in pieces."""

    def __init__(self) -> None:
        self._usage: tuple[int, int] | None = None
        self._chosen: dict[int, tuple[str | None, int | None]] = {}
        self._found: dict[int, OomKill] = {}

    def read(self, lines: Iterable[str]) -> None:
        """Take the next lines."""
        for line in lines:
            self._read(line)

    def of(self, pid: int) -> OomKill | None:
        """Return what was said of the victim `pid` (as the kernel numbers it), None for nothing."""
        return self._found.get(pid)

    def forget(self, pid: int) -> None:
        """Drop what was said of this one: whoever gets its pid next is another."""
        self._found.pop(pid, None)

    def _read(self, line: str) -> None:
        if told := _USAGE.match(line):
            self._usage = int(told[1]) << 10, int(told[2]) << 10
        elif told := _CHOICE.match(line):
            usage = self._usage if told[1] == "CONSTRAINT_MEMCG" else None
            _keep(self._chosen, int(told[3]), (told[2], usage[1] if usage else None))
            self._usage = None
        elif told := _KILL.match(line):
            pid = int(told[2])
            cgroup = OomKill("cgroup", *self._chosen.get(pid, (None, None)), True)
            _keep(self._found, pid, OomKill("machine", None, None, True) if told[1] == "Out" else cgroup)


def _keep(table: dict[int, _Said], pid: int, said: _Said) -> None:
    table.pop(pid, None)
    table[pid] = said
    if len(table) > _MOST_VICTIMS:
        del table[next(iter(table))]


def victim(lines: Iterable[str], pid: int) -> OomKill | None:
    """Return what lines of the kernel's log say of the victim `pid` (as the kernel numbers it), None for nothing."""
    victims = Victims()
    victims.read(lines)
    return victims.of(pid)


class OomWatch:
    """Watches for the end of one process by the OOM killer. Begin it while the process lives; close it."""

    def __init__(self, target: Target) -> None:
        """Begin; what may not be read is left out."""
        self._pid = target.pid
        self._log = open_log()
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
        lines, whole = read_log(self._log)
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


def open_log() -> int:
    """Open the kernel's log behind its last record; return the fd.

    -1 where it may not be read, or numbers processes otherwise.
    """
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


def read_log(log: int) -> tuple[list[str], bool]:
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
