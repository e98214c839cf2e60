"""The uprobes of one target: which there are, by what counter, what keeps them on, and what the kernel refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gomem.bpf.governor import GovernedUprobes
from gomem.bpf.memory_calls import SeenBy
from gomem.bpf.probes import uprobes
from gomem.bpf.probes.call_functions import NATIVE
from gomem.bpf.program import SYSCALLS, Counter
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EventBatch
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.process.guardian import Hold
from gomem.tracer.report import Limit

_SYMBOLS: dict[SeenBy, dict[str, str]] = {
    "functions": {name: f"fentry:{function}" for name, function in NATIVE.items()},
    "kprobes": {name: f"kprobe:{function}" for name, function in NATIVE.items()},
    "single calls": {name: f"syscalls:sys_enter_{name}" for name in SYSCALLS},
    "all calls": dict.fromkeys(SYSCALLS, "raw_syscalls:sys_enter"),
}
_TOO_MANY = "there are too many probes"


class TargetProbes:
    """Those on the program that the target runs, up to `most` with those of programs that it ran before."""

    def __init__(self, most: int, *, by_file: bool = False) -> None:
        """`by_file`: a function's copies in several files have a counter each."""
        self.specs: tuple[UprobeSpec, ...] = ()  # one a counter
        self.governed: tuple[GovernedUprobes, ...] = ()  # whose uprobes are among `specs`
        self.skipped: list[SkippedUprobe] = []  # others than the governed ones
        self._most = most
        self._by_file = by_file
        self._first = 0  # the counter of the first of `specs`
        self._held: list[Hold] = []

    def begin(
        self, specs: Sequence[UprobeSpec], governed: Sequence[GovernedUprobes]
    ) -> tuple[dict[UprobeSpec, int], list[tuple[GovernedUprobes, int]]]:
        """Give the probes of a program their counters. Without room for all there is none of them.

        Return the cookies of those that are not governed, and the governed sets, each with its first counter.
        """
        self._first += len(self.specs)
        self.specs, self.governed, self.skipped = (), (), []
        if self._first + len(specs) + sum(len(one.specs) for one in governed) > self._most:
            self.skipped = [SkippedUprobe(spec, _TOO_MANY) for spec in specs]
            return {}, []
        self.specs, self.governed = tuple(specs), tuple(governed)
        cookies = {spec: uprobes.cookie(spec, self._first + at) for at, spec in enumerate(specs)}
        numbered = []
        for one in governed:
            numbered.append((one, self._first + len(self.specs)))
            self.specs += one.specs
        return cookies, numbered

    def number(self, specs: Sequence[UprobeSpec]) -> tuple[dict[UprobeSpec, int], list[SkippedUprobe]]:
        """Return the cookies of more uprobes, and those for which there is no counter left.

        Unless each file has its own counters, one of the role and the function of an earlier one, in another file,
        counts its hits with it.
        """
        refused = self._refused()
        earlier = () if self._by_file else enumerate(self.specs)
        numbers = {(spec.role, spec.symbol): n for n, spec in earlier if spec not in refused}
        cookies: dict[UprobeSpec, int] = {}
        skipped = []
        for spec in specs:
            number = numbers.get((spec.role, spec.symbol), len(self.specs))
            if self._first + number == self._most:
                skipped.append(SkippedUprobe(spec, _TOO_MANY))
                continue
            if number == len(self.specs):
                self.specs += (spec,)
            cookies[spec] = uprobes.cookie(spec, self._first + number)
        return cookies, skipped

    def hold(self, held: Hold | None, skipped: Sequence[SkippedUprobe]) -> None:
        """Take over what keeps some of them on, and what the kernel has refused of them."""
        self._held += [held] if held is not None else []
        self.skipped += skipped

    @property
    def attached(self) -> bool:
        """Whether any of them was put on."""
        return bool(self._held) or any(one.attached for one in self.governed)

    def tick(self) -> list[EventBatch]:
        """Put the governed ones on or off as their budget wants it; return the marks of that."""
        return [one.tick() for one in self.governed]

    def take_off(self) -> tuple[list[EventBatch], list[threading.Event]]:
        """Let them be taken off, once; return the marks that are left, and what is set when they are off.

        Those that have to wait for a debugger count as off.
        """
        held, self._held = self._held, []
        for one in held:
            one.release()
        return self.stop_governed(), [*(one.settled for one in held), *(one.settled for one in self.governed)]

    def stop_governed(self) -> list[EventBatch]:
        """Let the governed ones be taken off for good, without waiting; return the marks that are left."""
        return [one.stop() for one in self.governed]

    def limits(self) -> list[Limit]:
        """Return what the governed ones have not seen."""
        return [limit for one in self.governed for limit in one.limits()]

    def statuses(self, counters: NDArray[np.uint64], seen_by: SeenBy) -> list[ProbeStatus]:
        """Return syscalls and placed uprobes with their hits; `counters` are the target's.

        `seen_by`: what the system calls are seen by now, which their symbols say.
        """
        found = [
            ProbeStatus(name, _SYMBOLS[seen_by][name], int(counters[Counter.SYSCALL_HITS + kind]))
            for name, kind in SYSCALLS.items()
        ]
        refused = self._refused()
        for index, spec in enumerate(self.specs, start=Counter.HITS + self._first):
            if spec not in refused:
                found.append(ProbeStatus(spec.role, spec.symbol, int(counters[index])))
        return found

    def _refused(self) -> set[UprobeSpec]:
        never_on = (skipped for one in self.governed if not one.were_on for skipped in one.refused)
        return {skipped.spec for skipped in (*self.skipped, *never_on)}


def wait_until_off(leaving: Sequence[threading.Event], seconds: float) -> None:
    """Wait until the kernel has taken uprobes off, but for no debugger, nor a process that does not answer."""
    deadline = time.monotonic() + seconds
    for off in leaving:
        off.wait(max(deadline - time.monotonic(), 0.0))
