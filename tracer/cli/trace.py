"""`gomem trace`: watch a process for a while, then report."""

from __future__ import annotations

import click

from gomem.exporters.output import goes_to_stdout
from gomem.tracer.cli.options import (
    Format,
    check_shown,
    freeze_option,
    holders_option,
    say,
    shown_report_options,
    stop_filtered_option,
    write_report,
)
from gomem.tracer.cli.showing import Audience, with_holders
from gomem.tracer.cli.watching import exit_as, optional_roles, watch, watch_options
from gomem.tracer.cli.whom import StartingCommand, Whom
from gomem.tracer.watch.backend import Backend, TraceRequest

DEFAULT_SECONDS = 10.0


@click.command(cls=StartingCommand)
@watch_options(f"{DEFAULT_SECONDS:g}, for a command: until it ends")
@click.option(
    "--allocs", is_flag=True,
    help="Also count allocations by size class, type and line of source; needs BPF. There are so many that this is "
    "done in short bursts within --budget, from which the whole is estimated. --budget 100 counts all, and slows the "
    "process.",
)  # fmt: skip
@freeze_option
@stop_filtered_option
@click.option(
    "--follow-children", is_flag=True,
    help="Also watch the Go processes that it starts, each with a report of its own in this one (`children`).",
)  # fmt: skip
@holders_option
@shown_report_options
def trace(
    whom: Whom,
    duration: float | None,
    backend: Backend,
    require_go: bool,
    optional: tuple[str, ...],
    budget: float,
    allocs: bool,
    freeze: bool,
    stop_filtered: bool,
    follow_children: bool,
    holders: bool,
    form: Format,
    output: str | None,
) -> None:
    """Watch a process for a while, then report its memory.

    Either a running process (its PID, or --exe NAME), or a COMMAND behind "--", which is started and watched from its
    very first mmap on. Ctrl-C ends the watching early and still reports. A command that still runs then is left alone.
    With --freeze the process is stopped for the last reading only.

    What the process executes in its own stead is followed; each program is a chapter of the report. gomem exits as a
    COMMAND did, or with 125, 126 or 127 if gomem could not do its part. With --format json and no -o the COMMAND's
    standard output goes to standard error: standard output has the report alone.
    """
    check_shown(form, output)
    roles = optional_roles(optional, backend, allocs=allocs)
    seconds = DEFAULT_SECONDS if duration is None and not whom.command else duration
    aside = form in ("json", "html") and goes_to_stdout(output) and bool(whom.command)
    request = TraceRequest(
        whom.find(),
        whom.command,
        seconds,
        backend,
        require_go,
        freeze,
        roles,
        budget,
        follow_children,
        aside,
        stop_filtered,
        module=whom.module,
    )
    if aside:
        say("the command's standard output goes to standard error: the report has standard output (else: -o FILE)")
    audience = Audience(wanted=holders or form == "html")
    report = watch(request, audience=audience)
    picture = audience.picture()
    write_report(with_holders(report, picture) if holders else report, form, output, picture)
    exit_as(whom, report)
