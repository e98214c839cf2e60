"""The memory system calls' own tracepoints, in the place of those of all system calls.

A raw tracepoint on sys_enter or sys_exit runs its program at every system call of the machine: both together cost each
call 160 ns, 200 ns in the target, and again as much for every further tracer. The tracepoints of single system calls,
attached as perf events, test a bit for each call and run nothing but for the calls that are asked for: 80 ns, for any
number of tracers (measured with getppid, which takes 190 ns alone). They need a tracefs, mounted or not, and taking
them off takes most of a second, as the kernel waits for a grace period for each. So they are for watching that lasts.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

from bpf import syscalls
from bpf.bcc_import import NEEDS_BPF
from bpf.program import SYSCALLS, Program
from bpf.tracefs import Tracefs
from bpf.uprobes import close_all
from tracer.errors import BackendUnavailable, GomemError, NotPermitted

# The exit comes first, or a call entered between the two would never be seen to end.
_OF_ALL_CALLS = (("sys_exit", "on_sys_exit"), ("sys_enter", "on_sys_enter"))
_LASTING = 2.0  # seconds of watching from which on the cheaper tracepoints are worth their detaching
# Offset and size of the field that bpf/programs.c: struct call_tracepoint has there.
_FIELDS = {"enter": ("__syscall_nr", (8, 4)), "exit": ("ret", (16, 8))}
_NOT_EVERYWHERE = "process_madvise"  # Linux 5.10


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
    """Sees the memory system calls of a target: by raw tracepoints first, by CallTracepoints where it takes longer."""

    def __init__(self, program: Program) -> None:
        """Attach. Raises NotPermitted or BackendUnavailable."""
        self._held: list[int] = []
        self._lasting: CallTracepoints | None = None
        self._programs: tuple[int, int] | None = None
        with contextlib.suppress(BackendUnavailable):
            self._programs = program.call_tracepoint("on_call_enter"), program.call_tracepoint("on_call_exit")
        for name, function in _OF_ALL_CALLS:
            try:
                self._held.append(syscalls.open_raw_tracepoint(program.tracepoint(function), name))
            except OSError as error:
                close_all(self._held)
                raise refused_tracepoint(name, error) from error
        self._lasting_from = time.monotonic() + _LASTING

    def leave_others_alone(self) -> None:
        """Once it is worth it, cost other system calls less, if the kernel lets us."""
        if self._programs is None or time.monotonic() < self._lasting_from:
            return
        programs, self._programs = self._programs, None
        with contextlib.suppress(OSError, GomemError):
            self._lasting = CallTracepoints(*programs)
            close_all(self._held)

    def close(self) -> None:
        """Detach. Idempotent."""
        close_all(self._held)
        self._programs = None
        lasting, self._lasting = self._lasting, None
        rest = lasting.close() if lasting is not None else None
        if rest is not None:
            rest.join()  # whoever looks at our descriptors afterwards shall not see them go


def refused_tracepoint(name: str, error: OSError) -> GomemError:
    """Return what the kernel's refusal of a raw tracepoint means."""
    if isinstance(error, PermissionError):
        return NotPermitted(f"tracepoints are not permitted: {error.strerror}", NEEDS_BPF)
    what = f"cannot attach to the tracepoint {name}: {error.strerror}"
    return BackendUnavailable(what, "needs CONFIG_TRACEPOINTS; use --backend strace")
