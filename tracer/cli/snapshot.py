"""`gomem snapshot`: the state now, without watching."""

from __future__ import annotations

import click

from gomem.tracer.cli.options import (
    Format,
    check_go,
    check_shown,
    freeze_option,
    holders_option,
    require_go_option,
    shown_report_options,
    stop_filtered_option,
    write_report,
)
from gomem.tracer.cli.whom import Whom, WhomCommand, whom_options
from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.snapshot_report import snapshot_target


@click.command(cls=WhomCommand)
@whom_options
@freeze_option
@stop_filtered_option
@require_go_option
@holders_option
@shown_report_options
def snapshot(
    whom: Whom, freeze: bool, stop_filtered: bool, require_go: bool, holders: bool, form: Format, output: str | None
) -> None:
    """Report the state of a process now, without watching what happens.

    Reads the process's memory and /proc only: nothing is attached, and without --freeze the process is never stopped.
    """
    check_shown(form, output)
    pid = whom.find()
    assert pid is not None
    with Target.open(pid) as target, Inspector.open(target, whom.module) as inspector:
        inspector.stop_filtered = stop_filtered
        check_go(inspector.program, f"process {pid} ({target.exe})", required=require_go)
        if form == "html" or holders:
            _show(inspector, form, output, freeze=freeze, holders=holders)
        else:
            write_report(snapshot_target(inspector, freeze=freeze), form, output)


def _show(inspector: Inspector, form: Format, output: str | None, *, freeze: bool, holders: bool) -> None:
    """Write the report with what only the live process tells: a page has a memory map."""
    from gomem.tracer.cli.showing import with_holders  # others do not wait for what a map takes to import
    from gomem.tracer.watch.portrait import portrait

    report, picture = portrait(inspector, freeze=freeze, page=form == "html")
    write_report(with_holders(report, picture) if holders else report, form, output, picture)
