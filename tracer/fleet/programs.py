"""The executables of many processes: each file is understood once, and held while processes run it.

A file that no process runs any longer is let go after IDLE seconds: a program in a crash loop is not read again for
each of its lives, and a deleted image does not keep its disk space.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gomem.tracer.binary.go_marks import shares_packages
from gomem.tracer.errors import BinaryError
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import GoProgram, load_program
from gomem.tracer.program.modules import library_files, load_target, loads_libraries
from gomem.tracer.watch.probes import PlannedProbes, plan_probes

IDLE = 30.0  # seconds
MOST_IDLE = 16

_File = tuple[int, int, int]  # device, inode, mtime in ns
_Key = tuple[_File, ...]  # the executable, and the Go libraries beside it


@dataclass(slots=True)
class Shared:
    """One executable, or a Go library in it, and the default uprobes in that.

    The uprobes lie in the file that `program` holds open.
    """

    key: _Key
    program: GoProgram
    planned: PlannedProbes
    loads_plugins: bool
    has_int_0x80: bool
    users: int = 0
    idle_since: float = 0.0  # time.monotonic()


class Programs:
    """Gives out executables, to be given back, to any thread. To take one and to close some may have to wait."""

    def __init__(self) -> None:
        self._known: dict[_Key, Shared] = {}
        self._lock = threading.Lock()

    def take(self, target: Target) -> Shared:
        """Return what `target` runs: its executable, or the Go library that it has loaded.

        Raises NotPermitted, or TargetGone when the process has ended.
        """
        identity = target.exe_identity
        key = ((identity.device, identity.inode, identity.mtime_ns),)
        executable = self._take(key, target, lambda: load_program(target.exe_file))
        try:
            return self._take((*key, *_beside(executable.program, target)), target, lambda: load_target(target))
        finally:
            self.give_back(executable)

    def _take(self, key: _Key, target: Target, load: Callable[[], GoProgram]) -> Shared:
        shared = self._taken(key)
        if shared is not None:
            return shared
        read = self._read(key, target, load)
        shared = self._taken(key, read)
        assert shared is not None
        if shared is not read:
            read.program.close()
        return shared

    def _taken(self, key: _Key, read: Shared | None = None) -> Shared | None:
        with self._lock:
            shared = self._known.get(key)
            if shared is None and read is not None:
                shared = self._known[key] = read
            if shared is not None:
                shared.users += 1
            return shared

    def give_back(self, shared: Shared) -> None:
        """Say that a process of this executable is not followed any more."""
        with self._lock:
            shared.users -= 1
            shared.idle_since = time.monotonic()

    @property
    def too_many_idle(self) -> bool:
        """Whether `close_idle` should be called soon."""
        with self._lock:
            return sum(not one.users for one in self._known.values()) > MOST_IDLE

    def close_idle(self, after: float = IDLE) -> None:
        """Let go of files that have not been in use for `after` seconds, and of the oldest beyond MOST_IDLE."""
        too_old = time.monotonic() - after
        with self._lock:
            idle = sorted((one for one in self._known.values() if not one.users), key=lambda one: one.idle_since)
            left = [one for n, one in enumerate(idle) if one.idle_since <= too_old or len(idle) - n > MOST_IDLE]
            for shared in left:
                del self._known[shared.key]
        for shared in left:
            shared.program.close()

    def close(self) -> None:
        """Close all that are not in use."""
        self.close_idle(after=float("-inf"))

    def _read(self, key: _Key, target: Target, load: Callable[[], GoProgram]) -> Shared:
        program = load()
        try:
            target.check_same_program()
        except BaseException:
            program.close()
            raise
        planned = plan_probes(program)
        for one in (program, *program.beside):
            slim(one)
        loads_plugins = bool(planned.specs) and _loads_plugins(program)
        return Shared(key, program, planned, loads_plugins, program.may_make_compat_calls())


def _beside(host: GoProgram, target: Target) -> tuple[_File, ...]:
    """Return what makes a process another program than others that execute the same file. Raises as `Programs.take`."""
    libraries = library_files(target) if loads_libraries(host) else ()
    if libraries or host.is_go:
        return libraries
    # It was asked for. It may be packed: what it has in memory is its own.
    return ((target.pid, target.start_ticks, 0),)


def slim(program: GoProgram) -> None:
    """Keep in memory only what is in use all the time; the rest is read from the file again."""
    if program.executable is not None:
        if program.functions is not None:
            program.functions.leave_names_in(program.executable)
        program.executable.forget_tables()


def _loads_plugins(program: GoProgram) -> bool:
    try:
        return program.executable is not None and shares_packages(program.executable)
    except BinaryError:
        return False
