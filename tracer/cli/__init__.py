"""The command line: the only place that wires the other rooms together."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

import click

from tracer import __version__
from tracer.cli.doctor import doctor
from tracer.cli.record import record
from tracer.cli.replay import replay
from tracer.cli.snapshot import snapshot
from tracer.cli.trace import trace
from tracer.errors import EXIT_FAILED, EXIT_USAGE, GomemError


class Gomem(click.Group):
    """The group of all commands; prints errors in one or two lines, a traceback only with --debug."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command, and turn every error into its line and its exit code."""
        try:
            return super().invoke(ctx)
        except GomemError as error:
            _fail(error, str(error), error.exit_code, debug=bool(ctx.params.get("debug")))
        except BrokenPipeError:
            # Whoever read our output has gone: nobody is left to be told.
            sys.stderr.close()
            raise SystemExit(EXIT_FAILED) from None
        except (OSError, MemoryError, RecursionError) as error:
            _fail(error, f"{type(error).__name__}: {error}", EXIT_FAILED, debug=bool(ctx.params.get("debug")))


def _fail(error: BaseException, text: str, code: int, *, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    click.echo(f"gomem: {text}", err=True)
    raise SystemExit(code) from None


@click.group(cls=Gomem, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gomem")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Show where a running Go process's memory is, who in the runtime holds it, and how much is resident.

    The process needs no change and no restart. Exit codes: 0 done, 1 the target or its data failed,
    2 usage, 77 not permitted.
    """
    del debug


main.add_command(trace)
main.add_command(snapshot)
main.add_command(record)
main.add_command(replay)
main.add_command(doctor)

__all__ = ["EXIT_USAGE", "main"]
