"""`gomem profile`: who holds or allocates a process's memory, by call stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import click

from gomem.tracer.cli.options import check_go, freeze_option, require_go_option, say, stop_filtered_option
from gomem.tracer.cli.profile_output import ProfileOutput, profile_options
from gomem.tracer.cli.whom import Whom, WhomCommand, whom_options
from gomem.tracer.errors import TargetError, UsageError
from gomem.tracer.process.target import Target
from gomem.tracer.profile.goroutine import goroutine_profile
from gomem.tracer.profile.heap import heap_profile
from gomem.tracer.profile.resident import resident_profile
from gomem.tracer.report.profile import Profile
from gomem.tracer.runtime.profile_buckets import Cycle
from gomem.tracer.snapshot.inspection import Inspector

Kind = Literal["heap", "goroutine", "resident"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line asks of a profile."""

    cycle: Cycle
    freeze: bool


_TAKEN: dict[Kind, Callable[[Inspector, _Asked], Profile]] = {
    "heap": lambda inspector, asked: heap_profile(inspector, asked.cycle),
    "goroutine": lambda inspector, asked: goroutine_profile(inspector),
    "resident": lambda inspector, asked: resident_profile(inspector, freeze=asked.freeze),
}
_STOPS: tuple[Kind, ...] = ("resident",)  # those that --freeze makes sense for
_ANY_PROGRAM: tuple[Kind, ...] = ("resident",)  # and those that a process which is no Go program has, too


@click.command(cls=WhomCommand)
@whom_options
@click.option(
    "--kind",
    type=click.Choice(list(_TAKEN)),
    default="heap",
    show_default=True,
    help="heap: what the runtime's own heap profile has sampled since the start, allocated and in use. goroutine: "
    "where each goroutine is now, as /debug/pprof/goroutine has it. resident: who holds each byte of RSS: objects by "
    "call, free slots and pages, stacks, the runtime, C, files.",
)
@click.option(
    "--cycle",
    type=click.Choice(get_args(Cycle)),
    default="published",
    show_default=True,
    help="published: as of the last finished collection, as /debug/pprof/heap has it. active: also what was allocated "
    "and swept since; what is in use then has garbage in it.",
)
@freeze_option
@stop_filtered_option
@require_go_option
@profile_options
def profile(
    whom: Whom, kind: Kind, cycle: Cycle, freeze: bool, stop_filtered: bool, require_go: bool, out: ProfileOutput
) -> None:
    """Show by call stack who has allocated a process's memory, and who still holds it, or where its goroutines are.

    By default that is the heap profile that every Go runtime keeps, read from the process's memory: it need not serve
    /debug/pprof, nor have symbols, and it is never stopped or written to. The figures are those that the process itself
    would show at /debug/pprof/heap.

    --kind goroutine is read in the same way: the stacks of all goroutines, as the runtime itself would unwind them.

    --kind resident is of all memory in RAM: its values sum to the process's RSS. Only that can --freeze the process.
    """
    out.check()
    if cycle != "published" and kind != "heap":
        raise UsageError(f"--cycle does nothing for --kind {kind}", "leave it away, or give --kind heap")
    if freeze and kind not in _STOPS:
        raise UsageError(f"--freeze does nothing for --kind {kind}", "leave it away, or give --kind resident")
    pid = whom.find()
    assert pid is not None
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        inspector.stop_filtered = stop_filtered
        who = f"process {pid} ({target.exe})"
        if kind not in _ANY_PROGRAM and not inspector.program.is_go:
            raise TargetError(
                f"{who} is not a Go program, and has no {kind} profile",
                "--kind resident tells who holds its memory, by what the kernel knows",
            )
        check_go(inspector.program, who, required=require_go)
        taken = _TAKEN[kind](inspector, _Asked(cycle, freeze))
    if out.form != "top":  # which has them on its page
        for limit in taken.limits:
            say(f"{limit.what}: {limit.why}" + (f"; {limit.fix}" if limit.fix else ""))
    out.write(taken)
