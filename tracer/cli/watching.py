"""What the commands that watch a process share: their options, and what they tell whoever typed them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from gomem.exporters.text.progress import Figures, progress
from gomem.tracer.cli.exit_codes import command_code
from gomem.tracer.cli.options import (
    Command,
    Seconds,
    budget_option,
    check_go,
    require_go_option,
    say,
    stop_signals,
    with_option,
)
from gomem.tracer.cli.showing import Audience
from gomem.tracer.cli.whom import Whom, whom_options
from gomem.tracer.errors import NotPermitted, TargetError, UsageError
from gomem.tracer.events.optional_roles import OptionalRole
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Report
from gomem.tracer.snapshot.glance import glance
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.backend import Backend, TraceRequest
from gomem.tracer.watch.process import NextRecorder, Person, trace
from gomem.tracer.watch.trace import Tick


def watch_options(duration_default: str) -> Callable[[Command], Command]:
    """Add whom to watch, --duration, --backend, --require-go and --with to a command that watches."""

    def add(command: Command) -> Command:
        command = with_option(budget_option(require_go_option(command)))
        command = click.option(
            "--backend", type=click.Choice(["auto", "bpf", "strace", "procfs"]), default="auto", show_default=True,
            help="Where events come from: bpf sees system calls and the runtime; strace sees system calls and stops "
            "the target at each; procfs sees states only. auto takes bpf, else strace for a command, else procfs.",
        )(command)  # fmt: skip
        command = click.option(
            "-d", "--duration", type=Seconds(), metavar="DURATION",
            help=f"How long to watch: 10s, 2m, 1h30m; a plain number is seconds. [default: {duration_default}]",
        )(command)  # fmt: skip
        return whom_options(command)

    return add


def optional_roles(names: tuple[str, ...], backend: Backend, *, allocs: bool = False) -> frozenset[OptionalRole]:
    """Return the roles of --with and --allocs; raises UsageError for a backend that sees none of them."""
    asked = [f"--with {name}" for name in names] + ["--allocs"] * allocs
    if asked and backend in ("strace", "procfs"):
        raise UsageError(f"{asked[0]} needs BPF, not --backend {backend}", "leave --backend out, or name bpf")
    return frozenset([*map(OptionalRole, names), *[OptionalRole.ALLOCATIONS] * allocs])


def watch(request: TraceRequest, next_recorder: NextRecorder | None = None, audience: Audience | None = None) -> Report:
    """Watch, and return the report; Ctrl-C ends the watching early. Recorders and the audience get all that is seen."""
    watching = audience or Audience(wanted=False)

    def check(program: GoProgram, who: str) -> None:
        check_go(program, who, required=request.require_go)

    @contextmanager
    def beside(inspector: Inspector) -> Iterator[Tick]:
        with watching.until_its_end(inspector), countdown(inspector) as tick:

            def both(watched: float, left: float | None) -> None:
                watching.glance(inspector)
                tick(watched, left)

            yield both

    return trace(request, Person(say, stop_signals, beside, check, watching.begins), next_recorder)


@contextmanager
def countdown(inspector: Inspector) -> Iterator[Tick]:
    """Within the block a terminal shows the time that is left, and what the process uses meanwhile."""

    def figures() -> Figures:
        try:
            now = glance(inspector)
        except (TargetError, NotPermitted):  # the watch will say so
            return None, None, None
        return now.rss, now.in_use, now.live

    with progress(sys.stderr) as show:
        yield lambda watched, left: show(watched, left, figures)


def exit_as(whom: Whom, report: Report) -> None:
    """End gomem as the command ended that it started, if it did."""
    if whom.command and (code := command_code(report.ending)):
        raise SystemExit(code)
