"""32-bit memory calls where the tracepoints of single system calls are in use, which leave them out.

No tracepoint of the kernel is for them alone (kernel/trace/trace_syscalls.c ignores them), and the raw ones cost every
system call of the machine 170 ns beside those of single calls (a getppid of 170 ns takes 220 with these, and 390 with
both). So they are on all the time only for a process that is known to make such calls, or has `int 0x80` in its
program, where no compiler puts it. For all others they are on for a hundredth of the time, and for some seconds when
memory has changed without an event. So whoever makes such calls again and again is found out (from code in a library,
or that it made itself); it is said then that some were missed.
"""

from __future__ import annotations

import os
import time

import numpy as np

from gomem.bpf import syscalls
from gomem.bpf.program import Counter
from gomem.tracer.report import Limit

EVERY = 2.0  # seconds between two moments in which we watch
MOMENT = 0.02  # seconds; to begin and to end one takes 0.2 ms each
SUSPECTED_FOR = 10.0  # seconds for which they are watched after memory changed without an event

MISSED = Limit(
    "compat-calls",
    "32-bit system calls (int 0x80) before the first that was seen",
    f"such calls of a 64-bit program are looked for during {MOMENT / EVERY:.0%} of the time, until there is one",
    "--backend strace sees all of them; so does a trace of less than 2 seconds",
)
UNTOLD = Limit(
    "compat-calls",
    "32-bit system calls (int 0x80, programs for 386)",
    "gomem does not find where this kernel keeps which kind a call is: they are taken for 64-bit ones, or not seen",
    "--backend strace tells them; please report the kernel's release",
)


class CompatWatch:
    """Runs two programs of the type RAW_TRACEPOINT at 32-bit memory calls, now and then or all the time.

    Not for several threads. Whoever makes one calls `tick` when `due` is 0.
    """

    def __init__(self, on_enter: int, on_exit: int, *, wanted: bool) -> None:
        """Begin; if it is `wanted` by watching."""
        # The exit comes first, or a call entered between the two would never be seen to end.
        self._programs = (("sys_exit", on_exit), ("sys_enter", on_enter))
        self._held: list[int] = []
        self.last_off = float("-inf")  # time.monotonic() when we did not watch last, as of the last tick
        if wanted:
            self._begin()
        if not self._held:
            self.last_off = time.monotonic()
        self._next = time.monotonic() + EVERY

    @property
    def due(self) -> float:
        """Return the seconds until `tick` has something to do."""
        return max(self._next - time.monotonic(), 0.0)

    def tick(self, *, wanted: bool) -> None:
        """Do what is due. While it is `wanted`, it watches."""
        now = time.monotonic()
        if not self._held:
            self.last_off = now
        if now < self._next:
            return
        if wanted or not self._held:
            self._begin()
        else:
            self.close()
            self.last_off = now
        self._next = now + (MOMENT if self._held and not wanted else EVERY)

    def begin(self) -> None:
        """Watch from now on, until a `tick` finds that it is not wanted."""
        if not self._held:
            self.last_off = time.monotonic()
        self._begin()
        self._next = time.monotonic() + EVERY

    def _begin(self) -> None:
        try:
            for name, program in self._programs if not self._held else ():
                self._held.append(syscalls.open_raw_tracepoint(program, name))
        except OSError:
            self.close()

    def close(self) -> None:
        """Watch no longer. Idempotent."""
        while self._held:
            os.close(self._held.pop())


class TargetCalls:
    """Which 32-bit calls of a target were not seen."""

    def __init__(self) -> None:
        self.has_int_0x80 = False  # in its program, which may make such calls at any time
        self.suspected_until = 0.0  # time.monotonic(); its memory changed, and no event told of that
        self.told = True  # they are told from others
        self.watched_since = time.monotonic()
        self._missed = False

    @property
    def expected(self) -> bool:
        """Whether it may make some just now, so that they are worth watching all the time."""
        return self.has_int_0x80 or time.monotonic() < self.suspected_until

    def note(self, row: np.void, unwatched: float) -> None:
        """Take the kernel's row of the target; until `unwatched` (time.monotonic()) nobody watched all the time."""
        self._missed |= self.watched_since < unwatched and bool(row["counters"][Counter.COMPAT_HITS])

    def limits(self) -> list[Limit]:
        """Return what holds by now."""
        return [*([] if self.told else [UNTOLD]), *([MISSED] if self._missed else [])]
