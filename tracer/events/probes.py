"""A probe as it is asked of a source, and one that the kernel did not take: plain data."""

from __future__ import annotations

from dataclasses import dataclass

from gomem.tracer.events.record import EventKind
from gomem.tracer.events.role_limits import refused
from gomem.tracer.report import Limit


@dataclass(frozen=True, slots=True)
class UprobeSpec:
    """One uprobe: where it sits and how its hit becomes an event.

    `args` are sources in the canonical order of EVENT.args, at most three: a register ("rax"), a stack
    slot at a byte distance from the return address ("stack:8" is the first ABI0 argument), or "0"; each
    with an optional factor that is a power of two ("rbx*8192"). `operands` (bpf/probes/operands.py) come after
    them: arguments that no cookie has room for, for a program that was made to read them.
    """

    role: str
    kind: EventKind
    symbol: str
    path: str  # /proc/PID/exe, /proc/self/fd/N or a file
    offset: int  # in the file, bytes
    args: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()
    return_address_offset: int = 0  # the rest as in bpf/probes/placement.py: ProbeSite
    emulated: bool = True
    skip_if_branch_taken: bool = False


@dataclass(frozen=True, slots=True)
class SkippedUprobe:
    """A uprobe that the kernel did not take, and its reason."""

    spec: UprobeSpec
    reason: str

    def limit(self, where: str = "") -> Limit:
        """Return what is not seen for that; `where`: the plugin that it was for."""
        return refused(self.spec.role, self.spec.symbol, self.reason, where)
