"""The files that a process has mapped, opened so that no file system of its making is asked."""

from __future__ import annotations

import errno
import os

from gomem.tracer.binary.executable import Executable
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.proc.beneath import open_mapped


def open_executable(pid: int, mappings: Mappings, row: int) -> Executable:
    """Open the ELF file that a process has mapped in one of its `mappings`; the caller closes it.

    Raises OSError (NotAsked where reading it may wait for ever), BinaryError and NotPermitted.
    """
    name = mappings.name[row]
    found = open_mapped(pid, int(mappings.start[row]), int(mappings.end[row]), name)
    try:
        exe = Executable.open(f"/proc/self/fd/{found}", pid)
    finally:
        os.close(found)
    if exe.status.st_ino == mappings.inode[row]:
        return exe
    exe.close()
    raise FileNotFoundError(errno.ENOENT, "another file has its name now", name)
