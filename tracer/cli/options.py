"""Options that several commands share, and how a report is written."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, TypeVar

import click

from exporters.json_report import render_json
from exporters.output import write_output
from exporters.text import render_for, render_text
from tracer.errors import TargetError
from tracer.freeze import LONGEST
from tracer.optional_roles import DESCRIPTIONS, OptionalRole
from tracer.program import GoProgram
from tracer.report import Report

Format = Literal["text", "json"]
Command = TypeVar("Command", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A number of seconds, 0 or more: neither "nan" nor "inf", which a plain FloatRange lets pass."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; ends with a usage error if it is none."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return number


def report_options(command: Command) -> Command:
    """Add --format and -o to a command that prints a report."""
    command = click.option(
        "-o", "--output", type=click.Path(), help="Write the report to this file, whole or not at all."
    )(command)
    return click.option(
        "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="A page for people, or one JSON object (schema gomem.report/1).",
    )(command)  # fmt: skip


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


def with_option(command: Command) -> Command:
    """Add --with, which may come more than once: `optional` is a tuple of the names of OptionalRoles."""
    told = "; ".join(f"{role}: {DESCRIPTIONS[role]}" for role in OptionalRole)
    return click.option(
        "--with", "optional", multiple=True, type=click.Choice([role.value for role in OptionalRole]),
        help=f"Watch this, too; needs BPF, and costs the target more than the default does. May be repeated. {told}.",
    )(command)  # fmt: skip


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
        help="How much of the target's time the probes of --with spans may take, and an eighth of that the probe that "
        "tells when the heap takes back scavenged pages. They are taken off when they have used it up, and come back "
        "when it has recovered; the report says for how long they were on.",
    )(command)  # fmt: skip


def check_go(program: GoProgram, who: str, *, required: bool) -> None:
    """Raise TargetError if a Go program is required and this is none."""
    if required and not program.is_go:
        raise TargetError(
            f"{who} is not a Go program: its executable has neither build information nor a function table",
            "without --require-go the kernel's view of it is reported",
        )


def write_report(report: Report, form: Format, output: str | None) -> None:
    """Print the report, or write it to the file `output`."""
    if form == "json":
        text = render_json(report)
    else:
        text = render_for(report, sys.stdout) if output is None else render_text(report)
    write_output(text, output)


def say(text: str) -> None:
    """Tell progress on stderr."""
    click.echo(f"gomem: {text}", err=True)


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
