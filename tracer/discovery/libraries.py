"""Go libraries in processes whose executables are none of Go's, told at a price that a thousand processes can pay.

A Go runtime has threads of its own: a process of one thread has none that runs, and costs one read of /proc/PID/stat.
Of the others the list of mappings is read, and of the files in it only those that are not known yet. Who had no Go
library is asked again when it is twice as old, and at least every minute: most load their libraries when they start.
"""

from __future__ import annotations

import os
import re
import time

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.go_marks import go_mark
from gomem.tracer.discovery.process_info import age
from gomem.tracer.discovery.recognition import FileKey, Latest, ProgramKind, Recognized, file_key
from gomem.tracer.errors import GomemError
from gomem.tracer.proc.beneath import open_mapped
from gomem.tracer.proc.small_files import parse_stat, printable, read_bounded
from gomem.tracer.proc.unasked import status, status_of

MOST_FILES = 4096
_MOST_PROCESSES = 1 << 16
_MOST_OF_ONE = 256  # files
_STAT_BYTES, _MAPS_BYTES = 1 << 12, 16 << 20
_SOONEST, _LATEST = 5.0, 60.0  # seconds until a process is asked again
# Processes with the same files by name, device and inode have the same ones; a number may become another file's.
_MOST_SETS, _SET_HOLDS = 1024, 600.0  # seconds
_CODE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ..x. [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+ [1-9][0-9]*) +(.*)$", re.MULTILINE)
_DELETED = " (deleted)"


class Libraries:
    """Recognises Go libraries, for any thread."""

    def __init__(self) -> None:
        self._files: Latest[FileKey, bool] = Latest(MOST_FILES)
        self._without: Latest[tuple[int, FileKey], float] = Latest(_MOST_PROCESSES)  # until when, time.monotonic()
        self._sets: Latest[frozenset[tuple[bytes, bytes]], float] = Latest(_MOST_SETS)  # the same of files without Go
        self.lists_read = 0  # how many lists of mappings had to be read

    def of_process(self, pid: int, key: FileKey) -> Recognized | None:
        """Return what is known of the process, which executes the file `key`, if it has loaded a Go library."""
        if time.monotonic() < (self._without.get((pid, key)) or 0.0):
            return None
        try:
            stat = parse_stat(_read(pid, "stat", _STAT_BYTES))
            found = self._library(pid) if stat.threads > 1 else None
        except (OSError, ValueError):
            return None  # it has ended, or may not be looked at
        if found is not None:
            return Recognized(ProgramKind.GO, f"it has loaded a Go library, {found}")
        pause = min(max(age(stat.start_ticks), _SOONEST), _LATEST)
        self._without.put((pid, key), time.monotonic() + pause)
        return None

    def _library(self, pid: int) -> str | None:
        """Return the name of a Go library that a process has mapped."""
        self.lists_read += 1
        mapped = {(number, name): (start, end) for start, end, number, name in _CODE.findall(_maps(pid))}
        files = frozenset(mapped)
        if time.monotonic() < (self._sets.get(files) or 0.0):
            return None
        whole = len(mapped) <= _MOST_OF_ONE
        for (_, name), (start, end) in list(mapped.items())[:_MOST_OF_ONE]:
            path = printable(name).removesuffix(_DELETED)
            try:
                if self._is_go(pid, int(start, 16), int(end, 16), path):
                    return path
            except (OSError, GomemError):
                whole = False
        if whole:
            self._sets.put(files, time.monotonic() + _SET_HOLDS)
        return None

    def _is_go(self, pid: int, start: int, end: int, name: str) -> bool:
        key = _key(pid, start, end)
        known = self._files.get(key) if key is not None else None
        if known is not None:
            return known
        opened = open_mapped(pid, start, end, name)
        try:
            key = file_key(status_of(opened))
            known = self._files.get(key)
            if known is None:
                known = _examined(opened, pid)
                self._files.put(key, known)
        finally:
            os.close(opened)
        return known


def _key(pid: int, start: int, end: int) -> FileKey | None:
    """Return the key of a mapped file; None where only its name leads to it, for want of rights."""
    try:
        return file_key(status(f"/proc/{pid}/map_files/{start:x}-{end:x}"))
    except PermissionError:
        return None


def _examined(opened: int, pid: int) -> bool:
    try:
        with Executable.open(f"/proc/self/fd/{opened}", pid) as exe:
            return go_mark(exe) is not None
    except GomemError:
        return False


def _maps(pid: int) -> bytes:
    return _read(pid, "maps", _MAPS_BYTES)


def _read(pid: int, name: str, limit: int) -> bytes:
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_bounded(fd, limit)[0]
    finally:
        os.close(fd)
