"""The command line: the only place that wires the other rooms together."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import NoReturn

import click

from tracer import __version__
from tracer.errors import EXIT_FAILED, EXIT_USAGE, GomemError

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_COMMANDS = ("trace", "snapshot", "record", "replay", "serve", "doctor")


class Gomem(click.Group):
    """The group of all commands, each imported when it is asked for: none shall wait for what another needs.

    Prints errors in one or two lines, a traceback only with --debug.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the help page."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command of that name, which is in the module of the same name."""
        if name not in _COMMANDS:
            return None
        _import_numpy()
        command: click.Command = getattr(import_module(f"tracer.cli.{name}"), name)
        return command

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


def _import_numpy() -> None:
    """Import NumPy without the threads of its linear algebra, which we have no use for.

    They would keep privileges that we give up. The variable is for this import only, not for programs that we start.
    """
    known = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"
    try:
        import_module("numpy")
    finally:
        if known is None:
            del os.environ[_BLAS_THREADS]
        else:
            os.environ[_BLAS_THREADS] = known


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


__all__ = ["EXIT_USAGE", "main"]
