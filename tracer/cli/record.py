"""`gomem record`: watch a process, and keep what happens in a file."""

from __future__ import annotations

import os

import click

from tracer.cli.options import say
from tracer.cli.watching import Wish, check_wish, optional_roles, watch, watch_options
from tracer.recording.recorder import Recorder
from tracer.session import Choice


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@watch_options("until the target ends, or Ctrl-C")
@click.option(
    "-o", "--output", type=click.Path(),
    help="The recording. It grows while it is made, and can be replayed at any time. [default: gomem-NAME.rec]",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a file that is no recording; a recording is replaced anyway.")
def record(
    pid: int | None,
    duration: float | None,
    backend: Choice,
    require_go: bool,
    optional: tuple[str, ...],
    budget: float,
    output: str | None,
    force: bool,
    command: tuple[str, ...],
) -> None:
    """Watch a process, and keep its first state and all events in a file.

    `gomem replay` gives the report of any moment from it, on any machine. The options are those of `gomem trace`.
    """
    check_wish(pid, command, "gomem record --pid 4711 -o server.rec")
    roles = optional_roles(optional, backend)
    wish = Wish(pid, command, duration, backend, require_go, optional=roles, budget=budget)
    path = output or _default_path(pid, command)
    recorder = Recorder(path, force=force)
    try:
        report = watch(wish, recorder)
    finally:
        recorder.close()
    lost = report.event_loss.lost if report.event_loss else 0
    say(
        f"{recorder.events_written:,} events in {report.duration_seconds:.1f} s, {lost} lost; "
        f"{recorder.bytes_written:,} bytes in {path}"
    )
    say(f"the report of it: gomem replay {path}")


def _default_path(pid: int | None, command: tuple[str, ...]) -> str:
    return f"gomem-{pid}.rec" if pid is not None else f"gomem-{os.path.basename(command[0])}.rec"
