"""A process that occupies memory in a known way, prints what it did as one line of JSON, and stands still.

Run as a script with the name of an occupation; it ends at the end of its standard input.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PAGE = mmap.PAGESIZE
HUGE = 2 << 20
PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_HUGETLB = 0x1, 0x2, 0x20, 0x4000, 0x40000
MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_GUARD_INSTALL = 4, 8, 14, 15, 102

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def map_memory(size: int, protection: int, flags: int, fd: int = -1) -> int:
    """Return the address of a new mapping; raises OSError."""
    address: int | None = libc.mmap(None, size, protection, flags, fd, 0)
    if address is None or address == 2**64 - 1:
        raise OSError(ctypes.get_errno(), "mmap")
    return address


def advise(address: int, size: int, advice: int) -> bool:
    """Call madvise; return whether the kernel took the advice."""
    return bool(libc.madvise(address, size, advice) == 0)


def write(address: int, pages: int, step: int = 1) -> None:
    """Write to every `step`-th of the first `pages` OS pages."""
    for page in range(0, pages, step):
        ctypes.memset(address + page * PAGE, 1, 1)


def read(address: int, pages: int) -> None:
    """Read the first `pages` OS pages."""
    for page in range(pages):
        ctypes.string_at(address + page * PAGE, 1)


def private(size: int) -> int:
    """Map private anonymous memory without huge pages."""
    address = map_memory(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    advise(address, size, MADV_NOHUGEPAGE)
    return address


def touched() -> dict[str, int]:
    """Write every second of 256 pages."""
    address = private(256 * PAGE)
    write(address, 256, step=2)
    return {"address": address, "size": 256 * PAGE, "resident": 128 * PAGE}


def dontneed() -> dict[str, int]:
    """Write 64 pages and drop the last 48."""
    address = private(64 * PAGE)
    write(address, 64)
    advise(address + 16 * PAGE, 48 * PAGE, MADV_DONTNEED)
    return {"address": address, "size": 64 * PAGE, "resident": 16 * PAGE}


def lazily_freed() -> dict[str, int]:
    """Write 1024 pages and free the last 512 lazily: they stay resident until the kernel wants them."""
    address = private(1024 * PAGE)
    write(address, 1024)
    advise(address + 512 * PAGE, 512 * PAGE, MADV_FREE)
    return {"address": address, "size": 1024 * PAGE, "resident": 1024 * PAGE, "lazy_free": 512 * PAGE}


def zero_pages() -> dict[str, int]:
    """Read 64 pages that were never written, and write 8 more."""
    address = private(128 * PAGE)
    read(address, 64)
    write(address + 64 * PAGE, 8)
    return {"address": address, "size": 128 * PAGE, "resident": 8 * PAGE, "zero": 64 * PAGE}


def guarded() -> dict[str, int]:
    """Write 32 pages and put guards on 16 others, as new C libraries do for thread stacks."""
    address = private(64 * PAGE)
    write(address, 32)
    taken = advise(address + 40 * PAGE, 16 * PAGE, MADV_GUARD_INSTALL)
    return {"address": address, "size": 64 * PAGE, "resident": 32 * PAGE, "guards": taken * 16 * PAGE}


def protected() -> dict[str, int]:
    """Write 32 pages and take all rights from them; they stay resident."""
    address = private(64 * PAGE)
    write(address, 32)
    libc.mprotect(address, 64 * PAGE, PROT_NONE)
    return {"address": address, "size": 64 * PAGE, "resident": 32 * PAGE}


def reservation() -> dict[str, int]:
    """Reserve 138 GB, and use a little in its middle."""
    size = 138 << 30
    address = map_memory(size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
    advise(address, size, MADV_NOHUGEPAGE)
    libc.mprotect(address + size // 2, 64 << 20, PROT_READ | PROT_WRITE)
    write(address + size // 2, 4096, step=2)
    return {"address": address, "size": size, "resident": 2048 * PAGE}


def scattered() -> dict[str, int]:
    """Write every second page of 400 MB: 51,200 ranges."""
    address = private(400 << 20)
    write(address, (400 << 20) // PAGE, step=2)
    return {"address": address, "size": 400 << 20, "resident": 200 << 20}


def memfd() -> dict[str, int]:
    """Write 40 pages of shared memory."""
    fd = os.memfd_create("gomem occupant")
    os.ftruncate(fd, 64 * PAGE)
    address = map_memory(64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd)
    write(address, 40)
    return {"address": address, "size": 64 * PAGE, "resident": 40 * PAGE, "shmem": 40 * PAGE}


def forked() -> dict[str, int]:
    """Share 32 written pages with a child that ends with us."""
    address = private(64 * PAGE)
    write(address, 32)
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    return {"address": address, "size": 64 * PAGE, "resident": 32 * PAGE}


def huge_pages() -> dict[str, int]:
    """Write to one transparent huge page, and read another that was never written."""
    address = map_memory(8 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    advise(address, 8 * HUGE, MADV_HUGEPAGE)
    aligned = address + -address % HUGE
    write(aligned, 1)
    read(aligned + HUGE, 1)
    return {"address": address, "size": 8 * HUGE, "written": aligned, "looked_at": aligned + HUGE}


def unadvised() -> dict[str, int]:
    """Write to each page that one huge page could hold, without asking for that."""
    address = map_memory(4 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    aligned = address + -address % HUGE
    write(aligned, HUGE // PAGE)
    return {"address": address, "size": 4 * HUGE, "written": aligned}


def hugetlb() -> dict[str, int]:
    """Write to one reserved huge page, private, of two mapped."""
    try:
        address = map_memory(2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB)
    except OSError as error:
        return {"errno": error.errno or -1}
    write(address, 1)
    return {"address": address, "size": 2 * HUGE, "resident": 0, "hugetlb": HUGE}


def threads() -> dict[str, int]:
    """Start two more threads."""
    tids: list[int] = []
    ready = threading.Barrier(3)

    def stay() -> None:
        tids.append(threading.get_native_id())
        ready.wait()
        sys.stdin.read()

    for _ in range(2):
        threading.Thread(target=stay, daemon=True).start()
    ready.wait()
    return {"tid": tids[0], "threads": 3}


def headless() -> dict[str, int]:
    """End the main thread, leaving another."""

    def stay() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=stay).start()
    print(json.dumps({"threads": 2}), flush=True)
    libc.syscall(ctypes.c_long(60), 0)  # SYS_exit of x86-64: this thread only
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Occupant:
    """A running occupant and what it says it did."""

    process: subprocess.Popen[bytes]
    said: dict[str, int]

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def place(self) -> tuple[list[int], list[int]]:
        """Where its memory lies: starts and ends, as `rss_in` takes them."""
        return [self.said["address"]], [self.said["address"] + self.said["size"]]


@contextmanager
def occupant(occupation: str) -> Iterator[Occupant]:
    """Run an occupant, and end it afterwards."""
    with subprocess.Popen(
        [sys.executable, __file__, occupation], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield Occupant(process, json.loads(process.stdout.readline()))
        finally:
            process.kill()


if __name__ == "__main__":
    said = globals()[sys.argv[1]]()
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
