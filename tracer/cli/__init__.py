"""The command line: the only place that wires the other rooms together."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from gomem.tracer import __version__
from gomem.tracer.cli.exit_codes import failure_code
from gomem.tracer.cli.speech import tell_error, tell_refusal, tell_trace
from gomem.tracer.errors import EXIT_USAGE, GomemError, NoAnswer
from gomem.tracer.process.guardian import Guardian, appoint, appointed
from gomem.tracer.process.watchdog import watch

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_LOOKING = ("trace", "snapshot", "why", "profile", "goroutines", "record", "serve", "top", "ps", "pod")  # at processes
_COMMANDS = (
    "trace", "snapshot", "why", "profile", "goroutines", "record", "replay", "serve", "top", "ps", "pod", "diff",
    "explain", "doctor",
)  # fmt: skip


class Gomem(click.Group):
    """The group of all commands, each imported when it is asked for: none shall wait for what another needs.

    Prints errors in one or two lines, a traceback only with --debug.
    """

    def main(self, args: Sequence[str] | None = None, *more: Any, **named: Any) -> Any:
        """Run the command line; when that is this process's own, looks are tried first by a process of ours.

        That comes up while the rest is imported.
        """
        if args is None:
            gc.disable()  # until the command is imported: nothing of that is garbage, and to see that takes 20 ms
            if any(word in _LOOKING for word in sys.argv[1:3]):
                _appoint_guardian()
        return super().main(args, *more, **named)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the help page."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command of that name, which is in the module of the same name."""
        if name not in _COMMANDS:
            return None
        _import_numpy()
        command: click.Command = getattr(import_module(f"gomem.tracer.cli.{name}"), name)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command, and turn every error into its line and its exit code."""
        # These two go on without whoever does not answer.
        if appointed() is not None and not {"serve", "top"} & set(sys.argv[1:3]):
            watch(lambda error: _give_up(ctx, error))
        try:
            return super().invoke(ctx)
        except GomemError as error:
            _fail(error, failure_code(ctx, error=error), debug=bool(ctx.params.get("debug")))
        except click.ClickException as error:
            tell_refusal(error)
            raise SystemExit(failure_code(ctx, error.exit_code)) from None
        except BrokenPipeError:
            # Whoever read our output has gone: nobody is left to be told.
            sys.stderr.close()
            raise SystemExit(failure_code(ctx)) from None
        except (OSError, MemoryError, RecursionError) as error:
            _fail(error, failure_code(ctx), debug=bool(ctx.params.get("debug")))


def _give_up(ctx: click.Context, error: NoAnswer) -> None:
    """End from another thread than the command's, which cannot be woken."""
    tell_error(error)
    sys.stderr.flush()
    os._exit(failure_code(ctx, error=error))


def _appoint_guardian() -> None:
    """Have looks tried first by a process of our own."""
    guardian = Guardian()
    with suppress(OSError):
        guardian.start()
        appoint(guardian)


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


def _fail(error: BaseException, code: int, *, debug: bool) -> NoReturn:
    if debug:
        tell_trace(error)
    known = error if isinstance(error, GomemError) else GomemError(f"{type(error).__name__}: {error}")
    tell_error(known)
    raise SystemExit(code) from None


@click.group(cls=Gomem, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gomem")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and what the BPF verifier said.")
def main(debug: bool) -> None:
    """Show where a running Go process's memory is, who in the runtime holds it, and how much is resident.

    The process needs no change and no restart. Exit codes: 0 done, 1 the target or its data failed,
    2 usage, 77 not permitted; trace and record with "-- COMMAND" exit as the command did, or with 125 (gomem failed),
    126 (it cannot be executed), 127 (there is no such command).
    """
    del debug


__all__ = ["EXIT_USAGE", "main"]
