"""`gomem record`: watch a process, and keep what happens in a file."""

from __future__ import annotations

import os

import click

from gomem.tracer.cli.options import Seconds, say, stop_filtered_option
from gomem.tracer.cli.watching import exit_as, optional_roles, watch, watch_options
from gomem.tracer.cli.whom import StartingCommand, Whom
from gomem.tracer.recording.recorder import LOOK_SECONDS
from gomem.tracer.recording.recordings import Recordings
from gomem.tracer.watch.backend import Backend, TraceRequest


@click.command(cls=StartingCommand)
@watch_options("until the target ends, or Ctrl-C")
@click.option(
    "-o", "--output", type=click.Path(),
    help="The recording. It grows while it is made, and can be replayed at any time. [default: gomem-NAME.rec]",
)  # fmt: skip
@click.option(
    "--look-every", type=Seconds(), metavar="DURATION",
    help="Look at the whole state so often, and keep each look (20 KB with a small heap): between two of them only "
    "what events tell is known. Looks take 2 % of the time at the most. [default: keep one each 10s]",
)  # fmt: skip
@stop_filtered_option
@click.option("--force", is_flag=True, help="Replace a file that is no recording; a recording is replaced anyway.")
def record(
    whom: Whom,
    duration: float | None,
    backend: Backend,
    require_go: bool,
    optional: tuple[str, ...],
    budget: float,
    output: str | None,
    look_every: float | None,
    stop_filtered: bool,
    force: bool,
) -> None:
    """Watch a process, and keep its first state and all events in a file.

    `gomem replay` gives the report of any moment from it, on any machine. The options are those of `gomem trace`. Each
    program that the process executes in its own stead gets a file of its own: NAME.rec, NAME.2.rec. gomem exits as a
    COMMAND did, or with 125, 126 or 127 if gomem could not do its part.
    """
    roles = optional_roles(optional, backend)
    pid = whom.find()
    request = TraceRequest(
        pid,
        whom.command,
        duration,
        backend,
        require_go,
        optional=roles,
        budget=budget,
        stop_filtered=stop_filtered,
        look_every=look_every,
        module=whom.module,
    )
    path = output or _default_path(pid, whom.command)
    recordings = Recordings(path, force=force, look_seconds=LOOK_SECONDS if look_every is None else look_every)
    try:
        report = watch(request, recordings)
    finally:
        recordings.close()
    lost = report.event_loss.lost if report.event_loss else 0
    for recorder in recordings.recorders:
        say(f"{recorder.events_written:,} events; {recorder.bytes_written:,} bytes in {recorder.path}")
    say(f"watched the last program for {report.duration_seconds:.1f} s, {lost} events lost")
    say(f"the report of it: gomem replay {recordings.recorders[-1].path}")
    exit_as(whom, report)


def _default_path(pid: int | None, command: tuple[str, ...]) -> str:
    return f"gomem-{pid}.rec" if pid is not None else f"gomem-{os.path.basename(command[0])}.rec"
