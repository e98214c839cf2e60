"""Reading a process that is followed for what its followers do not read, such as a profile, as a file for pprof."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gomem.exporters.pprof.encode import encode
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.process.target import Target
from gomem.tracer.report.profile import Profile
from gomem.tracer.snapshot.inspection import Inspector

T = TypeVar("T")


def profile_of(programs: Programs, pid: int, start_ticks: int, take: Callable[[Inspector], Profile]) -> bytes:
    """Return the file that `take` makes of the process that started then; see `read_of`.

    Raises TargetError where it keeps no such profile, too.
    """
    return read_of(programs, pid, start_ticks, lambda inspector: encode(take(inspector)))


def read_of(programs: Programs, pid: int, start_ticks: int, read: Callable[[Inspector], T]) -> T:
    """Return what `read` makes of the process that started then; may have to wait for its file systems.

    Raises TargetGone, TargetExecuted, and any other GomemError.
    """
    with Target.open(pid, start_ticks or None) as target:
        shared = programs.take(target)
        try:
            with Inspector(target, shared.program, owns_program=False) as inspector:
                return read(inspector)
        finally:
            programs.give_back(shared)
