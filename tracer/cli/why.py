"""`gomem why`: why a process takes the memory that it takes: the verdict, what was ruled out, and what to do next."""

from __future__ import annotations

import sys

import click

from gomem.exporters.output import check_output, write_output
from gomem.exporters.text.console import Sheet, sheet_of
from gomem.exporters.verdict import verdict
from gomem.exporters.why import why_json, why_text
from gomem.tracer.cli.options import Format, Seconds, check_go, page_options, require_go_option
from gomem.tracer.cli.watching import watch
from gomem.tracer.cli.whom import Whom, WhomCommand, whom_options
from gomem.tracer.process.target import Target
from gomem.tracer.report import Report
from gomem.tracer.report.findings.judging import why as judge
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.backend import TraceRequest
from gomem.tracer.watch.snapshot_report import snapshot_target

_SECONDS = 10.0
_LOOKS = 20  # within the time that it is watched,
_SHARE = 0.25  # where they take no more of that time than this


@click.command(cls=WhomCommand)
@whom_options
@click.option(
    "-d",
    "--duration",
    type=Seconds(),
    default=_SECONDS,
    metavar="DURATION",
    help="How long to watch, so that growth can be told: 10s, 2m, 1h30m; 0 for one look. Ctrl-C ends it early. "
    "[default: 10]",
)
@require_go_option
@page_options("A page for people, or one JSON object (schema gomem.why/1).")
def why(whom: Whom, duration: float, require_go: bool, form: Format, output: str | None) -> None:  # fmt: skip
    """Say why a process takes the memory that it takes.

    One page: the verdict, what was ruled out and by which figure, what could not be told, and what to do next. It is
    looked at and watched as by gomem trace; nothing is called ruled out that was not measured.
    """
    check_output(output)
    pid = whom.find()
    assert pid is not None
    report = _report(pid, duration, require_go)
    found = judge(report, verdict(report))
    if form == "json":
        write_output(why_json(found), output)
    else:
        write_output(why_text(found, sheet_of(sys.stdout) if output is None else Sheet()), output)


def _report(pid: int, duration: float, require_go: bool) -> Report:
    if duration:
        return watch(
            TraceRequest(pid, (), duration, "auto", require_go, look_every=duration / _LOOKS, look_share=_SHARE)
        )
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        check_go(inspector.program, f"process {pid} ({target.exe})", required=require_go)
        return snapshot_target(inspector)
