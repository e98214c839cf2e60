"""`gomem goroutines`: who created a process's goroutines, what they wait for, and what their stacks take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Literal, get_args

import click

from gomem.exporters.goroutines import SORTS, Sort, goroutines_json, goroutines_text, in_order
from gomem.exporters.output import check_output, write_output
from gomem.exporters.text.console import Sheet, sheet_of
from gomem.tracer.cli.options import Seconds, say, stop_signals
from gomem.tracer.cli.profile_output import ProfileOutput
from gomem.tracer.cli.whom import Whom, WhomCommand, whom_options
from gomem.tracer.errors import TargetError, UsageError
from gomem.tracer.process.target import Target
from gomem.tracer.profile.goroutine import goroutine_profile
from gomem.tracer.profile.goroutine_groups import LEAST_LOOKS
from gomem.tracer.profile.goroutine_looks import GoroutineLooks
from gomem.tracer.report.goroutines import By
from gomem.tracer.snapshot.inspection import Inspector

GoroutineFormat = Literal["table", "json", "pprof"]
_MOST_LOOKS = 200
# The first character tells click to leave the lines as they are.
_EXAMPLES = """\b
Examples:
  gomem goroutines PID                 by the go statement that created them
  gomem goroutines PID --by reason     by what they wait for
  gomem goroutines PID -d 30s          what grows, and what only grows: leak suspects
  gomem goroutines PID --format pprof -o goroutines.pb.gz
"""
_NAP = 0.1  # seconds, after which it is seen that somebody wants us to end


@click.command(cls=WhomCommand, epilog=_EXAMPLES)
@whom_options
@click.option(
    "--by",
    type=click.Choice(get_args(By)),
    help="What the goroutines of a row have in common. creator: the go statement that made them. start: the function "
    "that they began with. reason: what they wait for or do. stack: all their calls. [default: creator]",
)
@click.option(
    "-d",
    "--duration",
    type=Seconds(),
    metavar="DURATION",
    help="Look several times within so long, and show how each group has grown: 10s, 2m. Ctrl-C ends it early.",
)
@click.option(
    "--looks",
    type=click.IntRange(min=LEAST_LOOKS, max=_MOST_LOOKS),
    default=5,
    show_default=True,
    metavar="N",
    help="How many looks there are within --duration.",
)
@click.option(
    "--sort",
    type=click.Choice(get_args(Sort)),
    help="; ".join(f"{name}: {what}" for name, what in SORTS.items()) + ". [default: count; with --duration: growth]",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many groups table shows."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(GoroutineFormat)),
    default="table",
    show_default=True,
    help="table: a page for people. json: one object with all groups (schema gomem.goroutines/1). pprof: the stacks of "
    "all goroutines for go tool pprof, as of gomem profile --kind goroutine.",
)
@click.option("-o", "--output", type=click.Path(), help="Write to this file, whole or not at all.")
def goroutines(
    whom: Whom, by: By | None, duration: float | None, looks: int, sort: Sort | None, top: int, form: GoroutineFormat,
    output: str | None,
) -> None:  # fmt: skip
    """Show a process's goroutines by who created them: how many, their stacks, what they wait for and for how long.

    They are read from the process's memory: it need not serve /debug/pprof, nor have symbols, and it is never stopped
    or written to. How long one waits is what the program's own traces would say: since the collection before the first
    that saw it wait.
    """
    check_output(output)
    if form == "pprof":
        for name, given in (("--by", by), ("--duration", duration), ("--sort", sort)):
            if given is not None:
                raise UsageError(f"{name} does nothing for --format pprof", "a profile has all stacks, of one moment")
        ProfileOutput("pprof", output, None, top, False).check()
    pid = whom.find()
    assert pid is not None
    with Target.open(pid) as target, Inspector.open(target, whom.module) as inspector:
        if not inspector.program.is_go:
            raise TargetError(f"process {pid} ({target.exe}) is not a Go program, and has no goroutines")
        if form == "pprof":
            _write_profile(inspector, output)
            return
        watched = GoroutineLooks(inspector, by or "creator")
        if duration is None:
            watched.look()
        else:
            say(f"looking {looks} times at the goroutines of process {pid} ({target.exe}) in {duration:g} s")
            _look_again_and_again(watched.look, duration, looks)
        report = watched.report()
    report = in_order(report, sort or ("count" if duration is None else "growth"))
    if form == "json":
        for limit in report.limits:
            say(f"{limit.what}: {limit.why}" + (f"; {limit.fix}" if limit.fix else ""))
        write_output(goroutines_json(report), output)
        return
    write_output(goroutines_text(report, top, sheet_of(sys.stdout) if output is None else Sheet()), output)


def _write_profile(inspector: Inspector, output: str | None) -> None:
    taken = goroutine_profile(inspector)
    for limit in taken.limits:
        say(f"{limit.what}: {limit.why}" + (f"; {limit.fix}" if limit.fix else ""))
    ProfileOutput("pprof", output, None, 1, False).write(taken)


def _look_again_and_again(look: Callable[[], None], duration: float, looks: int) -> None:
    """Look so many times, the last time after `duration` seconds; somebody who wants us to end has one more at once."""
    began = time.monotonic()
    with stop_signals() as stopped:
        for number in range(looks):
            due = began + duration * number / (looks - 1)
            while not stopped() and (left := due - time.monotonic()) > 0:
                time.sleep(min(left, _NAP))
            look()
            if stopped():
                return
