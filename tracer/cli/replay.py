"""`gomem replay`: the report of a recording, or of a log that strace or dtruss made."""

from __future__ import annotations

import sys

import click

from gomem.exporters.text.progress import reading
from gomem.tracer.cli.options import Format, check_shown, say, shown_report_options, write_report
from gomem.tracer.replay.file import replay_file
from gomem.tracer.replay.seen import Replayed


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--at", metavar="TIME",
    help="The moment to report: seconds since the beginning, or a time as 2026-03-01T12:00:00Z. The whole state is "
    "known where a look was taken; 0 is the first of them. [default: the end]",
)  # fmt: skip
@shown_report_options
def replay(file: str, at: str | None, form: Format, output: str | None) -> None:
    """Report what a FILE says of a process's memory, at its end or at any moment before.

    FILE is a recording (`gomem record`), a log of `strace -f -ttt -T -e trace=memory -o FILE COMMAND`, or the output
    of dtruss on macOS; which one is seen from its content. Of a recording that is cut or damaged, what is intact is
    reported, and what is missing is said.
    """
    check_shown(form, output)
    seen = Replayed() if form == "html" else None
    with reading(sys.stderr) as tick:
        report = replay_file(file, at, tick, seen)
    for limit in report.limits:
        if limit.id == "recording-damaged":
            say(f"{file}: {limit.why}")
    write_report(report, form, output, seen.picture() if seen is not None else None)
