"""`gomem pod`: what a pod's, container's or any memory cgroup is charged for."""

from __future__ import annotations

import sys

import click

from gomem.exporters.output import check_output, write_output
from gomem.exporters.pod import pod_json, pod_text
from gomem.exporters.text.console import Sheet, sheet_of
from gomem.tracer.cli.options import Format, page_options
from gomem.tracer.cli.whom import Whom, WhomCommand, whom_options
from gomem.tracer.discovery.pod_bill import place_named, place_of, pod_bill
from gomem.tracer.errors import UsageError
from gomem.tracer.process.target import Target

# The first character tells click to leave the lines as they are.
_EXAMPLES = """\b
Examples:
  gomem pod PID                          the pod, container or service that the process is in
  gomem pod --cgroup /kubepods/pod1f     a cgroup by its path
  gomem pod --cgroup /sys/fs/cgroup/system.slice/etcd.service --format json
"""


class PodCommand(WhomCommand):
    """A WhomCommand that takes --cgroup PATH in the place of a process."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let --cgroup stand for whom; raises UsageError."""
        if not any(word == "--cgroup" or word.startswith("--cgroup=") for word in args) or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        rest = click.Command.parse_args(self, ctx, args)
        given = [ctx.params.pop(name, None) for name in ("words", "pid", "exe", "module")]
        if any(given):
            raise UsageError("--cgroup stands for the process", "give a pid, or a cgroup")
        ctx.params["whom"] = None
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the pieces of the usage line."""
        return ["[OPTIONS]", "PID | --exe NAME | --cgroup PATH"]


@click.command(cls=PodCommand, epilog=_EXAMPLES)
@whom_options
@click.option(
    "--cgroup", metavar="PATH", help="This memory cgroup: its path as in /proc/PID/cgroup, or that of its directory."
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many processes the page shows, the largest first.",
)
@page_options("A page for people, or one JSON object with all processes (schema gomem.pod/1).")
def pod(whom: Whom | None, cgroup: str | None, top: int, form: Format, output: str | None) -> None:
    """Show what a memory cgroup is charged for: page cache, tmpfs, the kernel's memory, each process, what is nobody's.

    Of a process in a Kubernetes pod it is the pod's cgroup, else its container's, else the one that it is charged to.
    The working set is what the kubelet reckons. Nothing is attached, and no process's memory is read.
    """
    check_output(output)
    if whom is None:
        assert cgroup is not None
        place = place_named(cgroup)
    else:
        pid = whom.find()
        assert pid is not None
        with Target.open(pid) as target:
            place = place_of(target)
    report = pod_bill(place)
    if form == "json":
        write_output(pod_json(report), output)
    else:
        write_output(pod_text(report, top, sheet_of(sys.stdout) if output is None else Sheet()), output)
