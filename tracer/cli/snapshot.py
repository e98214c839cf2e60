"""`gomem snapshot`: the state now, without watching."""

from __future__ import annotations

import click

from exporters.output import check_output
from tracer.cli.options import Format, check_go, freeze_option, report_options, require_go_option, write_report
from tracer.inspection import Inspector
from tracer.session import snapshot_target
from tracer.target import Target


@click.command()
@click.option("--pid", type=click.IntRange(min=1), required=True, metavar="PID", help="The process to look at.")
@freeze_option
@require_go_option
@report_options
def snapshot(pid: int, freeze: bool, require_go: bool, form: Format, output: str | None) -> None:
    """Report the state of a process now, without watching what happens.

    Reads the process's memory and /proc only: nothing is attached, and without --freeze the process is never stopped.
    """
    check_output(output)
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        check_go(inspector.program, f"process {pid} ({target.exe})", required=require_go)
        write_report(snapshot_target(inspector, freeze=freeze), form, output)
