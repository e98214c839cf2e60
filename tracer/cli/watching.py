"""What the commands that watch a process share: their options, and the way from a pid or a command to the report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from bpf.governor import DEFAULT_BUDGET
from tracer.cli.options import (
    Command,
    Seconds,
    budget_option,
    check_go,
    require_go_option,
    say,
    stop_signals,
    with_option,
)
from tracer.errors import TargetError, TargetGone, UsageError
from tracer.inspection import Inspector
from tracer.optional_roles import OptionalRole
from tracer.program import GoProgram, load_program
from tracer.recording.recorder import Recorder
from tracer.report import ProcessFacts, Report
from tracer.session import Choice, Plan, report_of_the_ended, start_source, watch_target
from tracer.sources.launch import Launched
from tracer.target import Target


@dataclass(frozen=True, slots=True)
class Wish:
    """What to watch and how; `seconds` None: until the target ends or Ctrl-C comes."""

    pid: int | None
    command: tuple[str, ...]
    seconds: float | None
    backend: Choice
    require_go: bool
    freeze: bool = False
    optional: frozenset[OptionalRole] = frozenset()
    budget: float = DEFAULT_BUDGET  # share of the target's time


def watch_options(duration_default: str) -> Callable[[Command], Command]:
    """Add --pid, --duration, --backend, --require-go and the COMMAND to a command that watches."""

    def add(command: Command) -> Command:
        command = click.argument("command", nargs=-1, type=click.UNPROCESSED)(command)
        command = with_option(budget_option(require_go_option(command)))
        command = click.option(
            "--backend", type=click.Choice(["auto", "bpf", "strace", "procfs"]), default="auto", show_default=True,
            help="Where events come from: bpf sees system calls and the runtime; strace sees system calls and stops "
            "the target at each; procfs sees states only. auto takes bpf, else strace for a command, else procfs.",
        )(command)  # fmt: skip
        command = click.option(
            "--duration", type=Seconds(), metavar="SECONDS",
            help=f"How long to watch. [default: {duration_default}]",
        )(command)  # fmt: skip
        return click.option("--pid", type=click.IntRange(min=1), metavar="PID", help="The process to watch.")(command)

    return add


def optional_roles(names: tuple[str, ...], backend: Choice) -> frozenset[OptionalRole]:
    """Return the roles of --with; raises UsageError for a backend that sees none of them."""
    if names and backend in ("strace", "procfs"):
        raise UsageError(f"--with {names[0]} needs BPF, not --backend {backend}", "leave --backend out, or name bpf")
    return frozenset(map(OptionalRole, names))


def check_wish(pid: int | None, command: tuple[str, ...], example: str) -> None:
    """Raise UsageError unless exactly one of pid and command is given."""
    if (pid is None) == (not command):
        raise UsageError("give either --pid PID or -- COMMAND", f"for example: {example}")


def watch(wish: Wish, recorder: Recorder | None = None) -> Report:
    """Watch, and return the report; Ctrl-C ends the watching early. A `recorder` gets all that is seen."""
    if wish.pid is not None:
        return _watch_pid(wish.pid, wish, recorder)
    return _watch_command(wish, recorder)


def _watch_pid(pid: int, wish: Wish, recorder: Recorder | None) -> Report:
    with Target.open(pid) as target, Inspector.open(target) as inspector, stop_signals() as stop:
        check_go(inspector.program, f"process {pid} ({target.exe})", required=wish.require_go)
        inspector.freeze_last = wish.freeze
        facts = inspector.facts()
        plan = start_source(wish.backend, pid, inspector.program, None, wish.optional, wish.budget)
        how_long = "until it ends" if wish.seconds is None else f"for {wish.seconds:g} s"
        _announce(plan, f"watching process {pid} ({target.comm}) {how_long}")
        return watch_target(inspector, plan, wish.seconds, stop, facts=facts, recorder=recorder)


def _watch_command(wish: Wish, recorder: Recorder | None) -> Report:
    with Launched(wish.command) as launched, stop_signals() as stop:
        program = load_program(launched.image)
        check_go(program, launched.image, required=wish.require_go)
        try:
            plan = start_source(wish.backend, launched.pid, program, launched, wish.optional, wish.budget)
        except BaseException:
            launched.abandon()
            program.close()
            raise
        _announce(plan, f"started {wish.command[0]} (process {launched.pid})")
        try:
            launched.resume()
            report = _watch_launched(launched, program, plan, wish, stop, recorder)
        finally:
            if plan.source is not None:
                plan.source.stop()
            program.close()
        if launched.poll() is None:
            say(f"process {launched.pid} is still running, and is left running")
        return report


def _watch_launched(
    launched: Launched,
    program: GoProgram,
    plan: Plan,
    wish: Wish,
    stop: Callable[[], bool],
    recorder: Recorder | None,
) -> Report:
    """Watch the program that has just been let go; it may be over before anybody could look at it."""
    facts = _facts_of(launched, program)
    try:
        target = Target.open(launched.pid)
    except TargetGone:
        return report_of_the_ended(facts, program, plan, recorder)
    with target:
        inspector = Inspector(target, program)
        with suppress(TargetError):
            inspector.prepare()
        inspector.freeze_last = wish.freeze
        return watch_target(inspector, plan, wish.seconds, stop, launched, facts, recorder)


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
