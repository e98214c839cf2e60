"""The memory system calls' own tracepoints, in the place of those of all system calls.

A raw tracepoint on sys_enter or sys_exit runs its program at every system call of the machine: both together cost each
call 160 ns, 200 ns in the target, and again as much for every further tracer. The tracepoints of single system calls,
attached as perf events, test a bit for each call and run nothing but for the calls that are asked for: 80 ns, for any
number of tracers (measured with getppid, which takes 190 ns alone). They need a tracefs, mounted or not, and taking
them off takes most of a second, as the kernel waits for a grace period for each. So they are for watching that lasts.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from typing import Protocol

from gomem.bpf import syscalls
from gomem.bpf.compat_trial import Outcome
from gomem.bpf.compat_watch import CompatWatch
from gomem.bpf.probes.tracefs import Tracefs
from gomem.bpf.probes.uprobes import close_all
from gomem.bpf.program import SYSCALLS, Counter
from gomem.tracer.errors import BackendUnavailable, GomemError, NotPermitted
from gomem.tracer.machine.rights import Right, remedy

# The exit comes first, or a call entered between the two would never be seen to end.
_OF_ALL_CALLS = (("sys_exit", "on_sys_exit"), ("sys_enter", "on_sys_enter"))
_LASTING = 2.0  # seconds of watching from which on the cheaper tracepoints are worth their detaching
# Offset and size of the field that bpf/programs/programs.c: struct call_tracepoint has there.
_FIELDS = {"enter": ("__syscall_nr", (8, 4)), "exit": ("ret", (16, 8))}
_NOT_EVERYWHERE = "process_madvise"  # Linux 5.10


class CallPrograms(Protocol):
    """The loaded programs (bpf/shared_program.py)."""

    def tracepoint(self, name: str) -> int:
        """Return the fd of a raw tracepoint program."""

    def call_tracepoint(self, name: str) -> int:
        """Return the fd of a program for the tracepoints of single calls. Raises BackendUnavailable."""

    def counter(self, index: int) -> int:
        """Return one of the counters, of all targets together."""

    def try_compat(self) -> Outcome:
        """Find out how 32-bit calls are told from others (bpf/compat_trial.py)."""


class CallTracepoints:
    """Runs two programs of the type TRACEPOINT when memory system calls begin and end, until closed.

    As long as the programs run at raw tracepoints as well, nothing is told twice: whichever is first at the end of
    a call takes it.
    """

    def __init__(self, on_enter: int, on_exit: int) -> None:
        """Attach, the ends first, or a call entered between the two would never be seen to end.

        Raises NotPermitted, BackendUnavailable, or OSError.
        """
        self._events: list[int] = []
        self._links: list[int] = []
        try:
            ids = _ids()
            for side, program in (("exit", on_exit), ("enter", on_enter)):
                for number in ids[side]:
                    self._events.append(syscalls.open_tracepoint(number))
                    self._links.append(syscalls.link_perf_event(program, self._events[-1], 0))
        except (OSError, GomemError):
            self.close()
            raise

    def close(self) -> threading.Thread | None:
        """Run the programs no more. What that leaves is taken off by the thread that is returned, a second later."""
        links, self._links = self._links, []
        closing = [threading.Thread(target=os.close, args=(link,)) for link in links]  # they wait, all for the same
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        if not self._events:
            return None
        events, self._events = self._events, []
        rest = threading.Thread(target=close_all, args=(events,), name="tracepoints-off", daemon=True)
        rest.start()
        return rest


def _ids() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {side: [] for side in _FIELDS}
    with Tracefs() as tracefs:
        for side, (field, place) in _FIELDS.items():
            for call in SYSCALLS:
                tracepoint = tracefs.tracepoint("syscalls", f"sys_{side}_{call}")
                if tracepoint is not None and tracepoint.fields.get(field) == place:
                    found[side].append(tracepoint.id)
                elif tracepoint is not None or call != _NOT_EVERYWHERE:
                    raise BackendUnavailable(f"this kernel does not trace {call}", "needs CONFIG_FTRACE_SYSCALLS")
    return found


class MemoryCalls:
    """Sees the memory system calls of targets: by raw tracepoints first, by CallTracepoints where it takes longer.

    Those leave 32-bit calls out, for which there is a CompatWatch then. `compat`: whether it is possible that there are
    some, and whether they are told from others.
    """

    def __init__(self, program: CallPrograms, *, single_calls: bool | None = None, lasting: bool = False) -> None:
        """Attach. Raises NotPermitted or BackendUnavailable.

        `single_calls`: False keeps to the raw ones. `lasting`: there are CallTracepoints from the beginning, and raw
        ones only where those cannot be had.
        """
        self._program = program
        self._held: list[int] = []
        self._lasting: CallTracepoints | None = None
        self._programs: tuple[int, int] | None = None
        self._watch: CompatWatch | None = None
        self._compat_expected = False
        self.compat = program.try_compat()
        if single_calls is not False:
            with contextlib.suppress(BackendUnavailable):
                self._programs = program.call_tracepoint("on_call_enter"), program.call_tracepoint("on_call_exit")
        self._lasting_from = time.monotonic() + _LASTING
        if lasting:
            self._change()
        if self._lasting is None:
            self._attach_raw()

    def _attach_raw(self) -> None:
        for name, function in _OF_ALL_CALLS:
            try:
                self._held.append(syscalls.open_raw_tracepoint(self._program.tracepoint(function), name))
            except OSError as error:
                close_all(self._held)
                raise refused_tracepoint(name, error) from error

    def leave_others_alone(self) -> bool:
        """Once it is worth it, cost other system calls less, if the kernel lets us.

        Return whether it may have become known that a target makes 32-bit calls.
        """
        if self._programs is not None and time.monotonic() >= self._lasting_from and not self._compat_wanted():
            self._change()  # else the raw ones, which see all, cost less than both together
        if self._watch is None or self._watch.due:
            return False
        self._watch.tick(wanted=self._compat_wanted())
        return True

    @property
    def due(self) -> float:
        """Return the seconds until `leave_others_alone` should be called again."""
        return self._watch.due if self._watch is not None else math.inf

    @property
    def compat_unwatched(self) -> float:
        """Until when (time.monotonic()) 32-bit calls were not watched all the time; -inf: they always were."""
        return self._watch.last_off if self._watch is not None else -math.inf

    def expect_compat(self, expected: bool) -> None:
        """Take it that some target may make 32-bit calls at any time, or that none does."""
        self._compat_expected = expected
        if expected and self._watch is not None:
            self._watch.begin()

    def _compat_wanted(self) -> bool:
        return self._compat_expected or bool(self._program.counter(Counter.COMPAT_HITS))

    def _change(self) -> None:
        """Use the tracepoints of single calls from now on, if the kernel lets us; this is not tried twice."""
        programs, self._programs = self._programs, None
        if programs is not None:
            with contextlib.suppress(OSError, GomemError):
                self._lasting = CallTracepoints(*programs)
                if self.compat.possible and self.compat.told:
                    begins, ends = (self._program.tracepoint(name) for name in ("on_compat_enter", "on_sys_exit"))
                    self._watch = CompatWatch(begins, ends, wanted=self._compat_wanted())
                close_all(self._held)

    def close(self) -> None:
        """Detach. Idempotent."""
        close_all(self._held)
        self._programs = None
        if self._watch is not None:
            self._watch.close()
        lasting, self._lasting = self._lasting, None
        rest = lasting.close() if lasting is not None else None
        if rest is not None:
            rest.join()  # whoever looks at our descriptors afterwards shall not see them go


def refused_tracepoint(name: str, error: OSError) -> GomemError:
    """Return what the kernel's refusal of a raw tracepoint means."""
    if isinstance(error, PermissionError):
        return NotPermitted(f"tracepoints are not permitted: {error.strerror}", remedy(Right.BPF))
    what = f"cannot attach to the tracepoint {name}: {error.strerror}"
    return BackendUnavailable(what, "needs a kernel with CONFIG_TRACEPOINTS")
