"""`gomem doctor`: what works on this machine, what does not, and how to fix it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from gomem.bpf.trials import check_bpf
from gomem.exporters.output import write_output
from gomem.exporters.units import clean
from gomem.tracer.cli.options import Format, report_options
from gomem.tracer.doctor.settings import kernel_checks
from gomem.tracer.doctor.trials import process_checks, subjects
from gomem.tracer.errors import EXIT_FAILED
from gomem.tracer.machine.checks import Check
from gomem.tracer.proc.mounts import has_procfs

_MARKS = {True: "ok  ", False: "FAIL", None: "--  "}


@click.command()
@report_options
def doctor(form: Format, output: str | None) -> None:
    """Tell what works on this machine, what does not, and how to fix it.

    Changes nothing. Exit code 1 if something that gomem needs does not work.
    """
    checks = kernel_checks()
    if has_procfs():
        with subjects() as tried:
            checks += process_checks(tried)
            if tried.any is not None:
                checks += check_bpf(tried.any)
    as_json = json.dumps({"checks": [asdict(check) for check in checks]}, indent=2) + "\n"
    write_output(as_json if form == "json" else _page(checks), output)
    if any(check.ok is False for check in checks):
        raise SystemExit(EXIT_FAILED)


def _page(checks: list[Check]) -> str:
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{_MARKS[check.ok]}  {check.name:<{width}}  {clean(check.detail)}")
        if check.fix and check.ok is not True:
            lines.append(f"{'':6}{'':<{width}}  fix: {clean(check.fix)}")
    return "\n".join(lines) + "\n"
