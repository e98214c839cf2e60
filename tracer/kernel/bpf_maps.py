"""The BPF maps that processes hold open, with the bytes that the kernel has for each: /proc/PID/fdinfo.

Source: bpf_map_show_fdinfo() in kernel/bpf/syscall.c.
"""

from __future__ import annotations

import os
from contextlib import suppress

from gomem.tracer.proc.small_files import colon_fields, decimal, read_bounded

MOST_DESCRIPTORS = 65_536  # of all processes
_LINK = "anon_inode:bpf-map"
_SMALL = 1 << 14


class OpenMaps:
    """Collects them, each map once: `sizes` by map id, bytes.

    `readable`: the descriptors of one process at least could be seen; `cut`: not all were looked at.
    """

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.readable = False
        self.cut = False
        self._left = MOST_DESCRIPTORS

    def look(self, process: int) -> None:
        """Look at the process whose directory in /proc is open as `process`; never raises."""
        with suppress(OSError):
            fds = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
            try:
                with os.scandir(fds) as entries:
                    self._look_at_all(process, fds, entries)
            finally:
                os.close(fds)

    def _look_at_all(self, process: int, fds: int, entries: os._ScandirIterator[str]) -> None:
        for entry in entries:
            if not self._left:
                self.cut = True
                return
            self._left -= 1
            try:
                link = os.readlink(entry.name, dir_fd=fds)
            except FileNotFoundError:
                continue
            self.readable = True
            if link == _LINK:
                self._add(process, entry.name)

    def _add(self, process: int, number: str) -> None:
        with suppress(OSError):
            fd = os.open(f"fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
            try:
                fields = colon_fields(read_bounded(fd, _SMALL)[0])
            finally:
                os.close(fd)
            which, size = (decimal(fields.get(name, "")) for name in ("map_id", "memlock"))
            if which is not None and size is not None:
                self.sizes[which] = size
