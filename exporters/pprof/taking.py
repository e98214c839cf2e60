"""Taking a profile of a process that is followed, as a file that pprof reads."""

from __future__ import annotations

from collections.abc import Callable

from gomem.exporters.pprof.encode import encode
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.process.target import Target
from gomem.tracer.report.profile import Profile
from gomem.tracer.snapshot.inspection import Inspector


def profile_of(programs: Programs, pid: int, start_ticks: int, take: Callable[[Inspector], Profile]) -> bytes:
    """Return the file that `take` makes of the process that started then; may have to wait for its file systems.

    Raises TargetGone, TargetExecuted, TargetError where it keeps no such profile, and any other GomemError.
    """
    with Target.open(pid, start_ticks or None) as target:
        shared = programs.take(target)
        try:
            with Inspector(target, shared.program, owns_program=False) as inspector:
                return encode(take(inspector))
        finally:
            programs.give_back(shared)
