"""`gomem trace`: watch a process for a while, then report."""

from __future__ import annotations

import click

from exporters.output import check_output
from tracer.cli.options import Format, freeze_option, report_options, write_report
from tracer.cli.watching import Wish, check_wish, optional_roles, watch, watch_options
from tracer.session import Choice

DEFAULT_SECONDS = 10.0


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@watch_options(f"{DEFAULT_SECONDS:g}, for a command: until it ends")
@freeze_option
@report_options
def trace(
    pid: int | None,
    duration: float | None,
    backend: Choice,
    require_go: bool,
    optional: tuple[str, ...],
    budget: float,
    freeze: bool,
    form: Format,
    output: str | None,
    command: tuple[str, ...],
) -> None:
    """Watch a process for a while, then report its memory.

    Either a running process (--pid), or a COMMAND behind "--", which is started and watched from its very first
    mmap on. Ctrl-C ends the watching early and still reports. A command that still runs then is left alone.
    With --freeze the process is stopped for the last reading only.
    """
    check_wish(pid, command, "gomem trace --pid 4711")
    check_output(output)
    seconds = DEFAULT_SECONDS if duration is None and pid is not None else duration
    wish = Wish(pid, command, seconds, backend, require_go, freeze, optional_roles(optional, backend), budget)
    write_report(watch(wish), form, output)
