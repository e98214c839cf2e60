"""All Go processes of the machine, once: for commands that list them or look for one by its name."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gomem.tracer.discovery.prober import Prober
from gomem.tracer.discovery.process_info import ProcessInfo
from gomem.tracer.discovery.recognition import ProgramKind, Recognition
from gomem.tracer.discovery.scan import list_pids
from gomem.tracer.errors import TargetError
from gomem.tracer.machine.rights import own, remedy_for
from gomem.tracer.proc.mounts import MOUNT_PROCFS, NO_PROCFS, has_procfs
from gomem.tracer.report import Limit


@dataclass(frozen=True, slots=True)
class Census:
    """The Go processes that could be seen, by pid, and how many processes could not be told."""

    go: tuple[ProcessInfo, ...]
    hidden: int  # processes whose executables we may not look at
    silent: int  # processes whose executables' file systems do not answer
    may_look: bool  # we have the capability for it: who is hidden is so for another reason
    fix: str = ""  # what was found to be missing to look at one of the hidden

    def limits(self) -> list[Limit]:
        """Return which processes could not be told to be Go or not, and why."""
        limits = []
        if self.hidden:
            why = "their executables may not be looked at"
            limits.append(Limit("hidden-processes", _processes(self.hidden), why, self.fix))
        if self.silent:
            why = "the file systems of their executables do not answer"
            limits.append(Limit("silent-processes", _processes(self.silent), why, ""))
        return limits


def take_census() -> Census:
    """Look at every process once; our own is left out. Raises TargetError where there is no /proc."""
    if not has_procfs():
        raise TargetError(f"no process can be seen: {NO_PROCFS}", MOUNT_PROCFS)
    prober = Prober(Recognition())
    try:
        looks = prober.look(sorted(list_pids() - {os.getpid()}), ())
        silent = len(prober.stuck) + sum(
            look.recognized is not None and look.recognized.kind is ProgramKind.SILENT for look in looks
        )
    finally:
        prober.stop()
    seen = [
        (look.recognized.kind, look.seen) for look in looks if look.recognized and isinstance(look.seen, ProcessInfo)
    ]
    hidden = [info.pid for kind, info in seen if kind is ProgramKind.UNREADABLE]
    return Census(
        go=tuple(info for kind, info in seen if kind is ProgramKind.GO),
        hidden=len(hidden),
        silent=silent,
        may_look="CAP_SYS_PTRACE" in own().effective,
        fix=remedy_for(hidden[0], "exe") if hidden else "",
    )


def _processes(count: int) -> str:
    return f"{count} process{'es' if count != 1 else ''}, Go or not"
