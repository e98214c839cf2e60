"""The kind (REPORT.md) of what the Go runtime does not own, from what the kernel says of each mapping."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.report import KINDS

_BY_NAME = {
    "[heap]": "c_heap",
    "[stack]": "thread_stack",
    "[vdso]": "vdso",
    "[vvar]": "vdso",
    "[vvar_vclock]": "vdso",
    "[uprobes]": "vdso",
}
# Names that a process itself gives (PR_SET_VMA_ANON_NAME), where the kernel has CONFIG_ANON_VMA_NAME: glibc 2.39 and
# later with the tunable glibc.mem.decorate_maps (sysdeps/unix/sysv/linux/setvmaname.c and its callers).
_BY_PREFIX = {
    "[anon: Go:": "runtime_other",
    "[anon: glibc: pthread stack:": "thread_stack",
    "[anon: glibc: pthread user stack:": "thread_stack",
    "[anon: glibc: malloc": "c_heap",
    "[anon: glibc: loader malloc": "c_heap",
    # What other allocators give: jemalloc (src/pages.c), tcmalloc (system-alloc.cc), bionic (libc_malloc and scudo).
    "[anon:jemalloc_": "c_heap",
    "[anon:tcmalloc_": "c_heap",
    "[anon:libc_malloc": "c_heap",
    "[anon:scudo:": "c_heap",
}


class Program(Struct, frozen=True):
    """The executable's place in the process: its file, and where its segments lie, bss included."""

    device: int
    inode: int
    segments: tuple[tuple[int, int], ...]  # address ranges in the process

    def covers(self, start: int, end: int) -> bool:
        """Tell whether a range lies within one segment."""
        return any(low <= start and end <= high for low, high in self.segments)


def mapping_kinds(mappings: Mappings, program: Program | None) -> NDArray[np.int64]:
    """Return the index into KINDS of each mapping, shape (n,)."""
    files = set(zip(mappings.device.tolist(), mappings.inode.tolist(), strict=True))
    executable = mappings.executable & (mappings.inode != 0)
    libraries = set(zip(mappings.device[executable].tolist(), mappings.inode[executable].tolist(), strict=True))
    own = (program.device, program.inode) if program and (program.device, program.inode) in files else None
    kinds = np.empty(len(mappings), np.int64)
    previous_end, previous = 0, "other"
    columns = (mappings.start, mappings.end, mappings.device, mappings.inode, mappings.writable)
    rows = zip(*(column.tolist() for column in columns), mappings.name, strict=True)
    for position, (start, end, device, inode, writable, name) in enumerate(rows):
        if (device, inode) == own:
            kind = "binary"
        elif inode:
            kind = "shared_library" if (device, inode) in libraries else "file"
        elif name:
            kind = _named(name)
        elif program and program.covers(start, end):
            kind = "binary"
        elif previous == "shared_library" and start == previous_end and writable:
            # A library's bss is mapped right behind its data by the loader.
            kind = "shared_library"
        else:
            kind = "other"
        kinds[position] = KINDS.index(kind)
        previous_end, previous = end, kind
    return kinds


def _named(name: str) -> str:
    if name in _BY_NAME:
        return _BY_NAME[name]
    for prefix, kind in _BY_PREFIX.items():
        if name.startswith(prefix):
            return kind
    return "other" if name.startswith("[") else "file"
