"""Whose the stacks are that hold most: the thread's id out of its control block, and the name that the kernel has."""

from __future__ import annotations

import os
from collections.abc import Iterable

from msgspec import Struct

from gomem.tracer.errors import GomemError, SnapshotError
from gomem.tracer.native.thread_stacks import Stack, thread_of_block
from gomem.tracer.process.memory import Memory, read_words
from gomem.tracer.process.target import Target

# The control block lies near the end of a stack: thread-local variables and musl's thread-specific data above it.
_TOP = 16 << 10
_OS_PAGE = 4096
_MOST_THREADS = 1 << 14


class StackOwner(Struct, frozen=True):
    """The thread `tid` (as the tracer sees it), called `name`, whose stack ends at `end`."""

    end: int
    tid: int
    name: str


def stack_owners(stacks: Iterable[Stack], main_end: int | None, memory: Memory, target: Target) -> list[StackOwner]:
    """Return the owners of these stacks, as (start, end) with their guards, where they are told.

    `main_end`: where the main thread's ends, which the kernel made. Raises TargetGone.
    """
    owners: list[StackOwner] = []
    threads: dict[int, int] | None = None
    for stack in stacks:
        if stack[1] == main_end:
            owners.append(StackOwner(stack[1], target.pid, _name(target, target.pid)))
            continue
        told = _tid(stack, memory)
        if told is None:
            continue
        threads = _threads(target) if threads is None else threads
        if told in threads:  # else it has ended, and the library keeps its stack
            owners.append(StackOwner(stack[1], threads[told], _name(target, threads[told])))
    return owners


def _tid(stack: Stack, memory: Memory) -> int | None:
    """Return the thread id in the control block, which is looked for from the end on: untouched pages are not read."""
    for start in range(stack[1] - _OS_PAGE, stack[1] - _TOP - 1, -_OS_PAGE):
        try:
            words = read_words(memory, start, (stack[1] - start) // 8)
        except SnapshotError:
            return None
        tid = thread_of_block(words, start, stack)
        if tid is not None:
            return tid
    return None


def _threads(target: Target) -> dict[int, int]:
    """Return the threads by their ids in the process's own PID namespace."""
    try:
        tids = [int(task) for task in os.listdir(f"/proc/{target.pid}/task")[:_MOST_THREADS]]
        target.check_alive()
    except OSError:
        return {}
    if target.ns_pid == target.pid:
        return {tid: tid for tid in tids}
    found = {}
    for tid in tids:
        for line in _read(target, tid, "status").splitlines():
            if line.startswith(b"NSpid:"):
                found[int(line.split()[-1])] = tid
    return found


def _name(target: Target, tid: int) -> str:
    return _read(target, tid, "comm").rstrip(b"\n").decode("utf-8", "replace")


def _read(target: Target, tid: int, name: str) -> bytes:
    try:
        return target.read(f"task/{tid}/{name}")
    except (GomemError, OSError):
        return b""
