"""`gomem ps`: the Go processes of this machine."""

from __future__ import annotations

import shutil
import sys

import click

from gomem.exporters.output import check_output, write_output
from gomem.exporters.processes import processes_json, processes_text
from gomem.tracer.cli.options import Format, report_options
from gomem.tracer.discovery.listing import list_processes


@click.command()
@report_options
def ps(form: Format, output: str | None) -> None:
    """List the Go processes of this machine: pid, release, RSS, heap in use and live, limits.

    Each is read for about a millisecond; nothing is attached. GOMEMLIMIT is the one in force, CGROUP the lowest limit
    among the process's memory cgroup and those above it. The JSON object has the schema gomem.processes/1.
    """
    check_output(output)
    listing = list_processes()
    to_terminal = output is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if to_terminal else None
    write_output(processes_json(listing) if form == "json" else processes_text(listing, width), output)
