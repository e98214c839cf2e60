"""`gomem profile`: who holds or allocates a process's memory, by call stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import click

from gomem.tracer.cli.options import (
    Percent,
    Seconds,
    check_go,
    freeze_option,
    require_go_option,
    say,
    stop_filtered_option,
    stop_signals,
)
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
Source = Literal["buckets", "refill"]

DEFAULT_SECONDS = 10.0
DEFAULT_BUDGET = 0.01


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line asks of a profile."""

    cycle: Cycle
    freeze: bool
    source: Source
    duration: float | None
    budget: float | None

    def check(self, kind: Kind) -> None:
        """Raise UsageError for what makes no sense together."""
        if self.source == "refill" and kind != "heap":
            raise UsageError(
                f"--source refill tells who allocates, and nothing for --kind {kind}",
                "leave one of them away: --source refill is of --kind heap",
            )
        if self.cycle != "published" and (kind != "heap" or self.source == "refill"):
            what = "--source refill" if self.source == "refill" else f"--kind {kind}"
            raise UsageError(f"--cycle does nothing for {what}", "leave it away, or give --kind heap alone")
        if self.freeze and kind not in _STOPS:
            raise UsageError(f"--freeze does nothing for --kind {kind}", "leave it away, or give --kind resident")
        for name, given in (("--duration", self.duration), ("--budget", self.budget)):
            if given is not None and self.source != "refill":
                raise UsageError(
                    f"{name} does nothing for a profile of one moment", "leave it away, or give --source refill"
                )


def _of_heap(inspector: Inspector, asked: _Asked) -> Profile:
    if asked.source == "buckets":
        return heap_profile(inspector, asked.cycle)
    from gomem.tracer.cli.watching import countdown  # others do not wait for what BPF takes to import
    from gomem.tracer.watch.refills import RefillRequest, Watcher, watch_refills

    seconds = DEFAULT_SECONDS if asked.duration is None else asked.duration
    request = RefillRequest(seconds, DEFAULT_BUDGET if asked.budget is None else asked.budget)
    return watch_refills(inspector, request, Watcher(say, stop_signals, countdown))


_TAKEN: dict[Kind, Callable[[Inspector, _Asked], Profile]] = {
    "heap": _of_heap,
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
@click.option(
    "--source",
    type=click.Choice(get_args(Source)),
    default="buckets",
    show_default=True,
    help="Of --kind heap. buckets: what the runtime itself has sampled since the start. refill: what is allocated from "
    "now on, by BPF; also of programs whose runtime samples nothing.",
)
@click.option(
    "-d",
    "--duration",
    type=Seconds(),
    metavar="DURATION",
    help=f"How long --source refill watches: 10s, 2m, 1h30m; a plain number is seconds. [default: {DEFAULT_SECONDS:g}]",
)
@click.option(
    "--budget",
    type=Percent(),
    metavar="PERCENT",
    help="How much of the process's time the probes of --source refill may take: they stay on where they take less, "
    f"and come in bursts where they would take more. [default: {100 * DEFAULT_BUDGET:g}]",
)
@freeze_option
@stop_filtered_option
@require_go_option
@profile_options
def profile(
    whom: Whom,
    kind: Kind,
    cycle: Cycle,
    source: Source,
    duration: float | None,
    budget: float | None,
    freeze: bool,
    stop_filtered: bool,
    require_go: bool,
    out: ProfileOutput,
) -> None:
    """Show by call stack who has allocated a process's memory, and who still holds it, or where its goroutines are.

    By default that is the heap profile that every Go runtime keeps, read from the process's memory: it need not serve
    /debug/pprof, nor have symbols, and it is never stopped or written to. The figures are those that the process itself
    would show at /debug/pprof/heap.

    --source refill tells what is allocated from now on instead, of any Go program: probes of BPF see where the runtime
    takes spans to allocate from, and every large object, with their stacks. Figures are estimates with standard errors.
    Ctrl-C ends it early.

    --kind goroutine is read in the same way: the stacks of all goroutines, as the runtime itself would unwind them.

    --kind resident is of all memory in RAM: its values sum to the process's RSS. Only that can --freeze the process.
    """
    out.check()
    asked = _Asked(cycle, freeze, source, duration, budget)
    asked.check(kind)
    pid = whom.find()
    assert pid is not None
    with Target.open(pid) as target, Inspector.open(target, whom.module) as inspector:
        inspector.stop_filtered = stop_filtered
        who = f"process {pid} ({target.exe})"
        if kind not in _ANY_PROGRAM and not inspector.program.is_go:
            raise TargetError(
                f"{who} is not a Go program, and has no {kind} profile",
                "--kind resident tells who holds its memory, by what the kernel knows",
            )
        check_go(inspector.program, who, required=require_go)
        taken = _TAKEN[kind](inspector, asked)
    if out.form != "top":  # which has them on its page
        for limit in taken.limits:
            say(f"{limit.what}: {limit.why}" + (f"; {limit.fix}" if limit.fix else ""))
    out.write(taken)
