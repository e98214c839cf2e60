"""Options that several commands share, and how a report is written."""

from __future__ import annotations

import math
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, TypeVar

import click

from gomem.exporters.json.report import render_json
from gomem.exporters.output import check_output, goes_to_stdout, write_output
from gomem.exporters.text.report import render_for, render_text
from gomem.tracer.cli.durations import parse_duration
from gomem.tracer.cli.speech import tell
from gomem.tracer.errors import TargetError, UsageError
from gomem.tracer.events.optional_roles import DESCRIPTIONS, ROLES_OF_WITH
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Report
from gomem.tracer.report.memory_map import Picture
from gomem.tracer.snapshot.freeze import LONGEST

_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(?:([kKmMgG])(?:i?[bB])?)?")

Format = Literal["text", "json", "html"]
Command = TypeVar("Command", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """Seconds, 0 or more, as people type them: 10, 0.5, 10s, 2m, 1h30m; neither "nan" nor "inf"."""

    name = "duration"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of seconds; ends with a usage error if it is none."""
        with_units = parse_duration(value) if isinstance(value, str) else None
        try:
            number = float(super().convert(value if with_units is None else with_units, param, ctx))
        except click.BadParameter:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a time: give seconds, or 10s, 2m, 1h30m", param, ctx)
        return number


def report_options(command: Command) -> Command:
    """Add --format and -o to a command that prints a report."""
    return _format_options(command, ["text", "json"], "A page for people, or one JSON object (schema gomem.report/1).")


def page_options(told: str) -> Callable[[Command], Command]:
    """Add --format and -o to a command that prints a page of its own kind; `told`: what the two formats are."""
    return lambda command: _format_options(command, ["text", "json"], told)


def shown_report_options(command: Command) -> Command:
    """Add --format and -o to a command whose report can be seen as well."""
    return _format_options(
        command,
        ["text", "json", "html"],
        "A page for people, or one JSON object (schema gomem.report/1), or the memory map: one HTML file that needs "
        "nothing else.",
    )


def _format_options(command: Command, forms: list[str], told: str) -> Command:
    command = click.option(
        "-o", "--output", type=click.Path(), help="Write the report to this file, whole or not at all."
    )(command)
    return click.option("--format", "form", type=click.Choice(forms), default="text", show_default=True, help=told)(
        command
    )


def require_go_option(command: Command) -> Command:
    """Add --require-go."""
    return click.option(
        "--require-go", is_flag=True, help="Refuse a target that is not a Go program (else: the kernel's view only)."
    )(command)


def freeze_option(command: Command) -> Command:
    """Add --freeze."""
    return click.option(
        "--freeze", is_flag=True,
        help="Stop the process (ptrace) while it is read, so that all figures are of one moment. It runs on when it "
        f"has been read, after {LONGEST:g} seconds at the latest, and also when gomem is killed.",
    )(command)  # fmt: skip


def holders_option(command: Command) -> Command:
    """Add --holders."""
    return click.option(
        "--holders", is_flag=True,
        help="Also tell in JSON who holds each byte of RSS, by the function that allocated it where the program keeps "
        "a heap profile, and who created the goroutines: gomem diff needs it to name who made it grow. Reads the heap "
        "profile and all goroutines.",
    )(command)  # fmt: skip


def stop_filtered_option(command: Command) -> Command:
    """Add --stop-filtered."""
    return click.option(
        "--stop-filtered", is_flag=True,
        help="Let --freeze and --backend strace stop a process under a seccomp filter, too. The filter must allow "
        "restart_syscall, by which the kernel resumes a sleep after a stop, else the process ends or its sleep fails. "
        "The default profiles of Docker, containerd, CRI-O and systemd allow it.",
    )(command)  # fmt: skip


def with_option(command: Command) -> Command:
    """Add --with, which may come more than once: `optional` is a tuple of the names of OptionalRoles."""
    told = "; ".join(f"{role}: {DESCRIPTIONS[role]}" for role in ROLES_OF_WITH)
    return click.option(
        "--with", "optional", multiple=True, type=click.Choice([role.value for role in ROLES_OF_WITH]),
        help=f"Watch this, too; needs BPF, and costs the target more than the default does. May be repeated. {told}.",
    )(command)  # fmt: skip


class Size(click.ParamType[int]):
    """Bytes as people type them: 170M, 2G, 180MiB or a plain number; K, M and G are powers of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes; ends with a usage error if it is none."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is not a size: give 170M, 2G, 180MiB or bytes", param, ctx)
        return int(float(match[1]) * 1024 ** " KMG".index((match[2] or " ").upper()))


class Percent(click.FloatRange):
    """A percentage above 0, up to 100; "nan" is none. Gives the share, 0.01 for 1."""

    name = "percent"

    def __init__(self) -> None:
        super().__init__(min=0, max=100, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share; ends with a usage error if it is none."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a percentage", param, ctx)
        return number / 100


def budget_option(command: Command) -> Command:
    """Add --budget."""
    return click.option(
        "--budget", type=Percent(), default="1", show_default=True, metavar="PERCENT",
        help="How much of the target's time the probes of --with spans may take, those of --allocs as much again, and "
        "an eighth of that the probe that tells when the heap takes back scavenged pages. They are taken off when they "
        "have spent it, and come back when it has recovered; the report says for how long they were on.",
    )(command)  # fmt: skip


def check_go(program: GoProgram, who: str, *, required: bool) -> None:
    """Raise TargetError if a Go program is required and this is none."""
    if required and not program.is_go:
        other = next((limit for limit in program.limits if limit.id == "other-go-compiler"), None)
        if other is not None:
            raise TargetError(f"{who} has no Go runtime that gomem reads: {other.why}", other.fix)
        raise TargetError(
            f"{who} is not a Go program: its executable has neither build information nor a function table",
            "without --require-go the kernel's view of it is reported",
        )


def check_shown(form: Format, output: str | None) -> None:
    """Raise GomemError now if the report cannot be written in its format, before anything is looked at."""
    check_output(output)
    if form == "html" and goes_to_stdout(output) and sys.stdout.isatty():
        raise UsageError("a page is no text, and this is a terminal", "name a file: -o map.html")


def write_report(report: Report, form: Format, output: str | None, picture: Picture | None = None) -> None:
    """Print the report, or write it to the file `output`; `picture`: what a page shows beside it."""
    if form == "json":
        text = render_json(report)
    elif form == "html":
        from gomem.exporters.memory_map.page import map_page  # jinja2 takes 20 ms to import

        text = map_page(report, picture or Picture())
    else:
        text = render_for(report, sys.stdout) if output is None else render_text(report)
    write_output(text, output)


def say(text: str) -> None:
    """Tell progress on stderr."""
    tell(f"gomem: {text}")


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Within the block SIGINT and SIGTERM end the watching early instead of gomem; yields "has one come?"."""
    come = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        come.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield come.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
