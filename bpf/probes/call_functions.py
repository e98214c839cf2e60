"""The kernel's functions that are the memory system calls, in the place of tracepoints.

As long as any tracepoint of system calls is in use, the kernel takes every system call of every process the long way
round. A program at a function (a BPF trampoline: fentry when it begins, fexit when it ends) costs those that call the
function, and nobody else. Each has a function for 64-bit calls and one for 32-bit calls, so that the kinds are told
apart by themselves. The only argument is the caller's registers (arch/x86/include/asm/syscall_wrapper.h).

Where the kernel has no trampolines, kprobes and return probes do the same, but for two things: a call that began before
is not seen to end, and of all the calls of a function that are under way on the machine at once, only so many are seen
to end: twice the CPUs, 10 at the least.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal

from gomem.bpf import kernel_functions, syscalls
from gomem.bpf.probes.uprobe_program import Template, load_counted
from gomem.bpf.probes.uprobes import close_all
from gomem.bpf.program import SYSCALLS
from gomem.tracer.errors import BackendUnavailable, NotPermitted
from gomem.tracer.machine.rights import Right, remedy

# By BPF trampolines, or by kprobes.
ByFunctions = Literal["functions", "kprobes"]

NATIVE = {call: f"__x64_sys_{call}" for call in SYSCALLS}
COMPAT = (
    "__ia32_compat_sys_ia32_mmap",
    "__ia32_sys_mmap_pgoff",
    *(f"__ia32_sys_{call}" for call in SYSCALLS if call != "mmap"),
)
FLAGS = 0x676F6D31  # what the programs have in the place of their flags as long as nobody has put them in
_OF_COMPAT, _OF_FUNCTION = 128, 256  # bpf/programs/programs.c: COMPAT, AT_FUNCTION
_BY_FLAGS = {_OF_FUNCTION: tuple(NATIVE.values()), _OF_FUNCTION | _OF_COMPAT: COMPAT}
_KPROBES = Path("/sys/bus/event_source/devices/kprobe/type")
_NEEDS_KPROBES = "needs CONFIG_KPROBE_EVENTS"
_KIND = syscalls.BPF_PROG_TYPE_TRACING
_NOT_EVERYWHERE = frozenset({NATIVE["process_madvise"], "__ia32_sys_process_madvise"})  # Linux 5.10
_MOST_UNENDED = 32  # calls in a window; others that begin or end to use the same functions cost some, too
_FEW_UNENDED = 2  # where something else costs others as little
_WINDOW = 1.0  # seconds


def are_complete(there: Collection[str]) -> bool:
    """Return whether all memory calls can be seen, given which functions there are.

    A kernel that takes no 32-bit calls has none of those.
    """
    native, compat = ({name for name in names if name not in _NOT_EVERYWHERE} for names in (NATIVE.values(), COMPAT))
    return native <= set(there) and (compat <= set(there) or compat.isdisjoint(there))


class CallFunctions:
    """Runs programs when memory system calls begin and end, until closed. `compat`: 32-bit calls too, as there are."""

    def __init__(self, seen_by: ByFunctions, attached: Iterable[tuple[str, int]]) -> None:
        """Have what is attached, of by_trampolines or by_kprobes: functions, and what to close at the end.

        Raises BackendUnavailable.
        """
        self.seen_by: ByFunctions = seen_by
        self._held: list[int] = []
        self._unended: int | None = None
        self._since = time.monotonic()
        self._there_is_no_other = False
        there = set()
        try:
            for function, held in attached:
                there.add(function)
                self._held.append(held)
            if not are_complete(there):
                raise BackendUnavailable("this kernel lacks some of the functions that are memory calls")
        except BaseException:
            self.close()
            raise
        self.compat = not there.isdisjoint(COMPAT)

    def misses_many(self, unended: int) -> bool:
        """Return whether the kernel fails too often to run them, given how many calls ever were not seen to end.

        It runs a program once at a time on each CPU. A kernel that interrupts programs for other threads may leave out
        thousands of calls a second, of programs that do little else. It does not interrupt those of kprobes.
        """
        now = time.monotonic()
        if self._there_is_no_other:
            return False
        most = _FEW_UNENDED if self.seen_by == "functions" and are_kprobes_there() else _MOST_UNENDED
        if self._unended is not None and unended - self._unended > most:
            return True
        if self._unended is None or now - self._since > _WINDOW:
            self._unended, self._since = unended, now
        return False

    def keep(self) -> None:
        """Take it that these cannot be done without, whatever they miss."""
        self._there_is_no_other = True

    def close(self) -> None:
        """Run the programs no more. Idempotent."""
        close_all(self._held)


def by_trampolines(on_enter: Template, on_exit: Template) -> Iterator[tuple[str, int]]:
    """Load and attach programs of the type TRACING. Raises BackendUnavailable.

    The ends come first: that of a call that began in between tells all of it.
    """
    ids = kernel_functions.ids_of(frozenset((*NATIVE.values(), *COMPAT)))
    for template, attach_type in ((on_exit, syscalls.BPF_TRACE_FEXIT), (on_enter, syscalls.BPF_TRACE_FENTRY)):
        for flags, names in _BY_FLAGS.items():
            code = template.with_number(FLAGS, flags)
            for name in names:
                if name in ids:
                    yield name, _run(code, attach_type, ids[name])


def by_kprobes(on_native: Template, on_compat: Template, on_return: Template) -> Iterator[tuple[str, int]]:
    """Load and attach programs of the type KPROBE, the returns first. Raises BackendUnavailable or NotPermitted."""
    kind = _kind_of_kprobes()
    programs: list[int] = []
    try:
        programs += [_loaded(template.with_number(FLAGS, 0)) for template in (on_native, on_compat, on_return)]
        native, compat, returning = programs
        for returns in (True, False):
            for program, names in ((native, NATIVE.values()), (compat, COMPAT)):
                for name in names:
                    for held in _run_by_kprobe(returning if returns else program, kind, name, returns=returns):
                        yield name, held
    finally:
        close_all(programs)


def _run_by_kprobe(program: int, kind: int, name: str, *, returns: bool) -> Iterator[int]:
    """Run a program at a function until what this yields is closed; nothing where there is no such function."""
    try:
        event = syscalls.open_kprobe(kind, name, returns=returns)
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise NotPermitted(f"kprobes are not permitted: {error.strerror}", remedy(Right.BPF)) from error
    except OSError as error:
        raise BackendUnavailable(f"no kprobe at {name}: {error.strerror}", _NEEDS_KPROBES) from error
    yield event
    yield from syscalls.run_at_perf_event(program, event)


def are_kprobes_there() -> bool:
    """Return whether the kernel was built with kprobes."""
    return _KPROBES.exists()


def _kind_of_kprobes() -> int:
    """Return by which number perf_event_open(2) knows kprobes. Raises BackendUnavailable."""
    try:
        return int(_KPROBES.read_text())
    except (OSError, ValueError) as error:
        raise BackendUnavailable("this kernel has no kprobes", _NEEDS_KPROBES) from error


def _run(code: bytes, attach_type: int, function: int) -> int:
    """Run a program at a function until the returned fd is closed. Raises BackendUnavailable."""
    program = _loaded(code, _KIND, attach_type, function)
    try:
        return syscalls.run_at_function(program)
    except OSError as error:
        what = f"this kernel runs no programs at its functions: {error.strerror}"
        raise BackendUnavailable(what, "sysctl kernel.ftrace_enabled=1") from error
    finally:
        os.close(program)


def _loaded(code: bytes, kind: int = syscalls.BPF_PROG_TYPE_KPROBE, attach_type: int = 0, function: int = 0) -> int:
    """Return the descriptor of a program that the kernel has taken. Raises BackendUnavailable."""
    try:
        return load_counted(code, kind, attach_type, "on_function", function)
    except OSError as error:
        what = f"the kernel refuses the BPF program for its functions: {error.strerror}"
        raise BackendUnavailable(what, detail=syscalls.verifier_log(kind, code, attach_type, function)) from error
