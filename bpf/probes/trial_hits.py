"""What a hit of a uprobe costs on this machine: measured on a function of our own, within a few milliseconds.

The function is three instructions in a file without a name (memfd_create), and does nothing but push and pop the frame
pointer; a loop beside it calls it. With the probe on the push, which the kernel emulates, the loop takes longer by the
hits. A program that takes the stack of a hit walks over the frames that the loop was given: once some, once none.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.bpf.probes import uprobes
from gomem.bpf.probes.uprobe_program import UprobeProgram
from gomem.tracer.errors import GomemError
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind

Loop = Callable[[int, int], None]

_HITS, _ROUNDS = 1000, 5
_TRIAL = 8  # bpf/programs/allocations.c: a flag of the cookie
_FUNCTION = bytes.fromhex("555dc3")  # push rbp; pop rbp; ret
_LOOP_AT = 16
# void loop(int times, frame *frames): the function is called with a size of 48 bytes in rax, in rbx a type that can be
# read, and in rbp the frames.
_LOOP = bytes.fromhex(
    "5355"  # push rbx; push rbp
    "4889f5"  # mov rbp, rsi
    "488d1de4ffffff"  # lea rbx, [rip-28]: where the code begins
    "b830000000"  # again: mov eax, 48
    "e8daffffff"  # call the function
    "ffcf"  # dec edi
    "75f2"  # jnz again
    "5d5bc3"  # pop rbp; pop rbx; ret
)
_CODE = _FUNCTION.ljust(_LOOP_AT, b"\xcc") + _LOOP
_RETURNS_TO = 0x1000  # of frame 0, and a byte more of each that comes after it: nothing reads what is there


@dataclass(frozen=True, slots=True)
class HitPrice:
    """What a hit costs, seconds: `hit`, and for each frame of its stack `frame`."""

    hit: float
    frame: float = 0.0

    def of(self, hits: int, frames: int = 0) -> float:
        """Return what so many hits cost that walked over so many frames, seconds."""
        return hits * self.hit + frames * self.frame


def price_of_a_hit(program: UprobeProgram, counter: int, depth: int = 0) -> HitPrice | None:
    """Return what a hit costs; None where it cannot be tried.

    `program` takes a hit whose cookie has the flag of a trial for one of its target. `counter`: the
    counter of that cookie. `depth`: the most frames that it walks over; 0 where it takes no stack.
    """
    with suppress(OSError, GomemError), _code() as (path, loop):
        chain = _chain(max(depth - 1, 0))
        frames = chain.ctypes.data if len(chain) else 0
        spec = UprobeSpec("trial", EventKind.MALLOCGC, "trial", path, 0, ("0", "rax", "rbx"))
        without = _fastest(loop, 0)
        cookies = {spec: uprobes.cookie(spec, counter) | _TRIAL << 24}
        held, skipped = uprobes.attach(program, [spec], os.getpid(), cookies)
        try:
            flat, deep = _fastest(loop, 0), _fastest(loop, frames) if frames else 0.0
        finally:
            uprobes.close_all(held)
        if not skipped and flat > without:
            frame = max(deep - flat, 0.0) / _HITS / max(len(chain), 1)
            # The flat stack is one frame deep already: the loop's.
            return HitPrice(max((flat - without) / _HITS - frame, 0.0), frame)
    return None


def _chain(depth: int) -> NDArray[np.uint64]:
    """Return frames as a stack has them, shape (depth, 2): the address of the next one, and a return address."""
    frames = np.zeros((depth, 2), np.uint64)
    frames[:, 1] = _RETURNS_TO + np.arange(depth)
    frames[:-1, 0] = frames.ctypes.data + frames.strides[0] * np.arange(1, depth)
    return frames


@contextmanager
def _code() -> Iterator[tuple[str, Loop]]:
    """Yield the path of a file with the code, and the loop in it, mapped as a program's text is."""
    fd = os.memfd_create("trial", os.MFD_CLOEXEC)
    try:
        os.write(fd, _CODE.ljust(mmap.PAGESIZE, b"\xcc"))
        with mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC) as mapped:
            address = np.frombuffer(mapped, np.uint8).ctypes.data
            yield f"/proc/self/fd/{fd}", ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)(address + _LOOP_AT)
    finally:
        os.close(fd)


def _fastest(loop: Loop, frames: int) -> float:
    """Return the CPU seconds of the fastest of some rounds: what else the machine does makes them longer only."""
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.thread_time()
        loop(_HITS, frames)
        best = min(best, time.thread_time() - began)
    return best
