"""`gomem replay`: the report of a recording, or of a log that strace or dtruss made."""

from __future__ import annotations

import click

from exporters.output import check_output
from tracer.cli.options import Format, report_options, say, write_report
from tracer.replay import replay_file


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--at", metavar="TIME",
    help="The moment to report: seconds since the beginning, or a time as 2026-03-01T12:00:00Z. [default: the end]",
)  # fmt: skip
@report_options
def replay(file: str, at: str | None, form: Format, output: str | None) -> None:
    """Report what a FILE says of a process's memory, at its end or at any moment before.

    FILE is a recording (`gomem record`), a log of `strace -f -ttt -T -e trace=memory -o FILE COMMAND`, or the output
    of dtruss on macOS; which one is seen from its content. Of a recording that is cut or damaged, what is intact is
    reported, and what is missing is said.
    """
    check_output(output)
    report = replay_file(file, at)
    for limit in report.limits:
        if limit.what == "a part of the recording":
            say(f"{file}: {limit.why}")
    write_report(report, form, output)
