"""What a hit of a uprobe costs on this machine: measured on a function of our own, within a few milliseconds.

The function is three instructions in a file without a name (memfd_create), and does nothing but push and pop the frame
pointer; a loop beside it calls it. With the probe on the push, which the kernel emulates, the loop takes longer by the
hits.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from gomem.bpf.probes import uprobes
from gomem.bpf.probes.uprobes import Attached
from gomem.tracer.errors import GomemError
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind

Loop = Callable[[int], None]

_HITS, _ROUNDS = 1000, 5
_TRIAL = 8  # bpf/programs/allocations.c: a flag of the cookie
_FUNCTION = bytes.fromhex("555dc3")  # push rbp; pop rbp; ret
_LOOP_AT = 16
# void loop(int times): the function is called with a size of 48 bytes in rax, and in rbx a type that can be read.
_LOOP = bytes.fromhex(
    "53"  # push rbx
    "488d1de8ffffff"  # lea rbx, [rip-24]: where the code begins
    "b830000000"  # again: mov eax, 48
    "e8deffffff"  # call the function
    "ffcf"  # dec edi
    "75f2"  # jnz again
    "5bc3"  # pop rbx; ret
)
_CODE = _FUNCTION.ljust(_LOOP_AT, b"\xcc") + _LOOP


def price_of_a_hit(program: int, backend: Attached, counter: int) -> float | None:
    """Return what a hit costs, seconds; None where it cannot be tried.

    `program` is for uprobes, and takes a hit whose cookie has the flag of a trial for one of its target. `counter`: the
    counter of that cookie.
    """
    with suppress(OSError, GomemError), _code() as (path, loop):
        spec = UprobeSpec("trial", EventKind.MALLOCGC, "trial", path, 0, ("0", "rax", "rbx"))
        without = _fastest(loop)
        cookies = {spec: uprobes.cookie(spec, counter) | _TRIAL << 24}
        held, skipped = uprobes.attach(program, [spec], os.getpid(), backend, cookies)
        try:
            with_hits = _fastest(loop)
        finally:
            uprobes.close_all(held)
        if not skipped and with_hits > without:
            return (with_hits - without) / _HITS
    return None


@contextmanager
def _code() -> Iterator[tuple[str, Loop]]:
    """Yield the path of a file with the code, and the loop in it, mapped as a program's text is."""
    fd = os.memfd_create("trial", os.MFD_CLOEXEC)
    try:
        os.write(fd, _CODE.ljust(mmap.PAGESIZE, b"\xcc"))
        with mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC) as mapped:
            address = np.frombuffer(mapped, np.uint8).ctypes.data
            yield f"/proc/self/fd/{fd}", ctypes.CFUNCTYPE(None, ctypes.c_int)(address + _LOOP_AT)
    finally:
        os.close(fd)


def _fastest(loop: Loop) -> float:
    """Return the seconds of the fastest of some rounds: what else the machine does makes them longer only."""
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        loop(_HITS)
        best = min(best, time.perf_counter() - began)
    return best
