"""The memory system calls' own tracepoints, in the place of those of all system calls.

A raw tracepoint on sys_enter or sys_exit runs its program at every system call of the machine: both together cost each
call 160 ns, 200 ns in the target, and again as much for every further tracer. The tracepoints of single system calls,
attached as perf events, test a bit for each call and run nothing but for the calls that are asked for: 80 ns, for any
number of tracers (measured with getppid, which takes 190 ns alone). They need a tracefs, mounted or not, and taking
them off takes most of a second, as the kernel waits for a grace period for each. So they are for watching that lasts.
"""

from __future__ import annotations

import os
import threading

from gomem.bpf import syscalls
from gomem.bpf.probes.tracefs import Tracefs
from gomem.bpf.probes.uprobes import close_all
from gomem.bpf.program import SYSCALLS
from gomem.tracer.errors import BackendUnavailable, GomemError, NotPermitted
from gomem.tracer.machine.rights import Right, remedy

# Offset and size of the field that bpf/programs/programs.c: struct call_tracepoint has there.
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


def refused_tracepoint(name: str, error: OSError) -> GomemError:
    """Return what the kernel's refusal of a raw tracepoint means."""
    if isinstance(error, PermissionError):
        return NotPermitted(f"tracepoints are not permitted: {error.strerror}", remedy(Right.BPF))
    what = f"cannot attach to the tracepoint {name}: {error.strerror}"
    return BackendUnavailable(what, "needs a kernel with CONFIG_TRACEPOINTS")
