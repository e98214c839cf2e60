"""What runs at tracepoints: the beginning and the end of programs, and the memory system calls."""

from __future__ import annotations

from typing import Protocol

from gomem.bpf import syscalls
from gomem.bpf.memory_calls import CallPrograms, MemoryCalls, SeenBy
from gomem.bpf.probes.call_tracepoints import refused_tracepoint
from gomem.bpf.probes.uprobes import close_all


class TracepointPrograms(CallPrograms, Protocol):
    """The loaded programs (bpf/shared_program.py)."""

    def exit_of_group(self) -> int | None:
        """Return the fd of the program for kernels that say which thread is the last, None where it cannot be had."""


class Tracepoints:
    """Runs the programs at their tracepoints until closed."""

    def __init__(
        self, program: TracepointPrograms, tells_last: bool | None = None, seen_by: SeenBy | None = None,
        *, lasting: bool = False,
    ) -> None:  # fmt: skip
        """Attach. Raises NotPermitted or BackendUnavailable.

        `tells_last`: whether sched_process_exit says which thread is a process's last. None: find out. For `seen_by`
        and `lasting` see MemoryCalls.
        """
        self._held: list[int] = []
        self._calls: MemoryCalls | None = None
        try:
            self._attach(program, "sched_process_exec", "on_exec")
            if tells_last is False or not self._attached_exit_of_group(program):
                self._attach(program, "sched_process_exit", "on_exit")
            self._calls = MemoryCalls(program, seen_by, lasting=lasting)
        except BaseException:
            close_all(self._held)
            raise

    def _attach(self, program: TracepointPrograms, name: str, function: str) -> None:
        try:
            self._held.append(syscalls.open_raw_tracepoint(program.tracepoint(function), name))
        except OSError as error:
            raise refused_tracepoint(name, error) from error

    def _attached_exit_of_group(self, program: TracepointPrograms) -> bool:
        """Return whether the kernel takes the program that reads which thread is the last."""
        fd = program.exit_of_group()
        try:
            self._held += [syscalls.open_raw_tracepoint(fd, "sched_process_exit")] if fd is not None else []
        except OSError:
            return False
        return fd is not None

    @property
    def calls(self) -> MemoryCalls:
        """What sees the system calls."""
        assert self._calls is not None
        return self._calls

    def close(self) -> None:
        """Detach. Idempotent."""
        close_all(self._held)
        if self._calls is not None:
            self._calls.close()
