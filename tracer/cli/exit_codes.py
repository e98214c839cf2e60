"""What gomem exits with.

With a command that it starts, gomem exits as the command did: with its own code, or with 128 and the number of the
signal that killed it. What gomem itself could not do must be told from that: then it is 125, or 126 and 127 where the
command cannot be executed or is not there, as with env(1), timeout(1) and nohup(1).
"""

from __future__ import annotations

import signal

import click

from gomem.tracer.errors import EXIT_DONE, EXIT_FAILED, EXIT_OURS, CannotRun, GomemError
from gomem.tracer.report import ProcessEnding

_STARTS = "gomem.starts_a_command"  # in the meta of a context and all below it


def starts_a_command(ctx: click.Context) -> None:
    """Note that the exit code will be that of a command."""
    ctx.find_root().meta[_STARTS] = True


def failure_code(ctx: click.Context, code: int = EXIT_FAILED, error: GomemError | None = None) -> int:
    """Return what to exit with when something failed that says `code`, or the `error` says so."""
    if _STARTS in ctx.meta and not isinstance(error, CannotRun):
        return EXIT_OURS
    return error.exit_code if error is not None else code


def command_code(ending: ProcessEnding | None) -> int:
    """Return what a shell would say of a command that ended so; 0 of one that was not seen to end."""
    if ending is None or (ending.exit_code is None and ending.signal is None):
        return EXIT_DONE
    if ending.signal is None:
        return ending.exit_code or EXIT_DONE
    if ending.signal in signal.Signals.__members__:
        return 128 + signal.Signals[ending.signal]
    return 128 + int(ending.signal.rpartition(" ")[2])
