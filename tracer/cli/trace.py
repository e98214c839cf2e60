"""`gomem trace`: watch a process for a while, then report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import click

from exporters.output import check_output
from tracer.cli.options import (
    Format,
    check_go,
    report_options,
    require_go_option,
    say,
    stop_signals,
    write_report,
)
from tracer.errors import TargetError, TargetGone, UsageError
from tracer.inspection import Inspector
from tracer.program import GoProgram, load_program
from tracer.report import ProcessFacts, Report
from tracer.session import Choice, Plan, report_of_the_ended, start_source, watch_target
from tracer.sources.launch import Launched
from tracer.target import Target

DEFAULT_SECONDS = 10.0


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--pid", type=click.IntRange(min=1), metavar="PID", help="The process to trace.")
@click.option(
    "--duration", type=click.FloatRange(min=0), metavar="SECONDS",
    help=f"How long to watch. [default: {DEFAULT_SECONDS:g}, for a command: until it ends]",
)  # fmt: skip
@click.option(
    "--backend", type=click.Choice(["auto", "bpf", "strace", "procfs"]), default="auto", show_default=True,
    help="Where events come from: bpf sees system calls and the runtime; strace sees system calls and stops the target "
    "at each; procfs sees states only. auto takes bpf, else strace for a command, else procfs.",
)  # fmt: skip
@require_go_option
@report_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def trace(
    pid: int | None,
    duration: float | None,
    backend: Choice,
    require_go: bool,
    form: Format,
    output: str | None,
    command: tuple[str, ...],
) -> None:
    """Watch a process for a while, then report its memory.

    Either a running process (--pid), or a COMMAND behind "--", which is started and watched from its very first
    mmap on. Ctrl-C ends the watching early and still reports. A command that still runs then is left alone.
    """
    if (pid is None) == (not command):
        raise UsageError("give either --pid PID or -- COMMAND", "for example: gomem trace --pid 4711")
    check_output(output)
    if pid is not None:
        report = _trace_pid(pid, DEFAULT_SECONDS if duration is None else duration, backend, require_go)
    else:
        report = _trace_command(command, duration, backend, require_go)
    write_report(report, form, output)


def _trace_pid(pid: int, seconds: float, backend: Choice, require_go: bool) -> Report:
    with Target.open(pid) as target, Inspector.open(target) as inspector, stop_signals() as stop:
        check_go(inspector.program, f"process {pid} ({target.exe})", required=require_go)
        facts = inspector.facts()
        plan = start_source(backend, pid, inspector.program, None)
        _announce(plan, f"watching process {pid} ({target.comm}) for {seconds:g} s")
        return watch_target(inspector, plan, seconds, stop, facts=facts)


def _trace_command(command: tuple[str, ...], seconds: float | None, backend: Choice, require_go: bool) -> Report:
    with Launched(command) as launched, stop_signals() as stop:
        program = load_program(launched.image)
        check_go(program, launched.image, required=require_go)
        try:
            plan = start_source(backend, launched.pid, program, launched)
        except BaseException:
            launched.abandon()
            program.close()
            raise
        _announce(plan, f"started {command[0]} (process {launched.pid})")
        try:
            launched.resume()
            report = _watch_launched(launched, program, plan, seconds, stop)
        finally:
            if plan.source is not None:
                plan.source.stop()
            program.close()
        if launched.poll() is None:
            say(f"process {launched.pid} is still running, and is left running")
        return report


def _watch_launched(
    launched: Launched, program: GoProgram, plan: Plan, seconds: float | None, stop: Callable[[], bool]
) -> Report:
    """Watch the program that has just been let go; it may be over before anybody could look at it."""
    try:
        target = Target.open(launched.pid)
    except TargetGone:
        return report_of_the_ended(_facts_of(launched, program), program, plan)
    with target:
        inspector = Inspector(target, program)
        with suppress(TargetError):
            inspector.prepare()
        return watch_target(inspector, plan, seconds, stop, launched, _facts_of(launched, program))


def _facts_of(launched: Launched, program: GoProgram) -> ProcessFacts:
    """Return who a launched program is, without asking the process: it may be gone."""
    return program.describe(
        ProcessFacts(
            pid=launched.pid,
            ns_pid=launched.pid,
            start_time=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            exe=launched.image,
            cmdline=launched.argv,
        )
    )


def _announce(plan: Plan, what: str) -> None:
    say(f"{what}; backend {plan.backend} ({plan.reason})")
