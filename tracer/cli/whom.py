"""How a command line says which process it means: PID, --pid PID, --exe NAME, or -- COMMAND.

What stands before "--" is gomem's, what stands behind it is the command's, whatever it looks like.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

import click
from msgspec import Struct
from msgspec.structs import replace

from gomem.exporters.units import clean
from gomem.tracer.cli.exit_codes import starts_a_command
from gomem.tracer.cli.options import Command
from gomem.tracer.errors import NotPermitted, TargetError, UsageError

_DASHES = "--"
_MOST_LISTED = 20
_LONGEST_LINE = 100  # characters of a command line that is listed


class Whom(Struct, frozen=True):
    """Whom to look at, as it was asked for: a pid, the name of an executable, or a command to start."""

    pid: int | None = None
    exe: str | None = None
    command: tuple[str, ...] = ()
    module: str = ""  # the file whose Go runtime is meant; "": whichever there is

    def find(self) -> int | None:
        """Return the pid, None where a command is to be started.

        Raises TargetError if not exactly one Go process has the name, NotPermitted if none can be seen for want of
        rights.
        """
        return self.pid if self.exe is None else _the_one_named(self.exe)


class WhomCommand(click.Command):
    """A click command whose function gets a `whom`; `starts` tells whether it can start a command."""

    starts = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what is behind "--" away from click, and make a Whom of the rest; raises UsageError."""
        at = args.index(_DASHES) if _DASHES in args else len(args)
        ours, command = args[:at], tuple(args[at + 1 :])
        if command and self.starts:
            starts_a_command(ctx)
        if not ctx.resilient_parsing:
            self._refuse_a_command(ctx, ours)
        rest = super().parse_args(ctx, ours)
        words, pid, exe, module = (ctx.params.pop(name, None) for name in ("words", "pid", "exe", "module"))
        if not ctx.resilient_parsing:
            whom = self._whom(ctx, words or (), pid, exe, command)
            if module and command:
                raise UsageError("--module is for a process that runs", "leave it out, or give the pid")
            ctx.params["whom"] = replace(whom, module=module or "")
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the pieces of the usage line."""
        return ["[OPTIONS]", "PID | --exe NAME" + (" | -- COMMAND [ARGS]..." if self.starts else "")]

    def _refuse_a_command(self, ctx: click.Context, words: list[str]) -> None:
        """Raise UsageError for a command that stands without "--", before its options are taken for ours."""
        parser = self.make_parser(ctx)
        parser.allow_interspersed_args = False
        try:
            values, _, _ = parser.parse_args(list(words))
        except click.UsageError:
            return  # click says it better when it parses in earnest
        found = values.get("words")
        if isinstance(found, tuple | list) and found and not str(found[0]).isdecimal():
            raise UsageError(f"{clean(found[0], 60)} is not a pid", self._way_out(found))

    def _way_out(self, words: Sequence[str]) -> str:
        word = words[0]
        name = os.path.basename(word)
        by_name = f"a process that runs: gomem {self.name} --exe {name}"
        if not self.starts:
            return f"for {by_name}" if name else "give the pid of a process"
        if "/" in word or shutil.which(word):
            return f"to start it: gomem {self.name} -- {clean(' '.join(words), 60)}; for {by_name}"
        return f"for {by_name}; to start a command: gomem {self.name} -- COMMAND ARGS"

    def _whom(
        self, ctx: click.Context, words: Sequence[str], pid: int | None, exe: str | None, command: tuple[str, ...]
    ) -> Whom:
        pids = [_pid(word) for word in words] + ([pid] if pid is not None else [])
        if len(pids) > 1:
            raise UsageError(f"one process at a time: {', '.join(map(str, pids))} were given", "give one pid")
        if command and not self.starts:
            raise UsageError(
                f"gomem {self.name} looks at a process that runs, it starts none",
                "to start one: gomem trace -- COMMAND",
            )
        if len(pids) + (exe is not None) + bool(command) != 1:
            ways = "PID, --exe NAME, or -- COMMAND" if self.starts else "PID, or --exe NAME"
            raise UsageError(f"give one of these: {ways}", f"for example: gomem {self.name} 4711 (gomem ps lists pids)")
        if exe is not None and (not exe or "\0" in exe):
            raise UsageError(f"--exe {exe!r}: not a name")
        return Whom(pids[0] if pids else None, exe, command)


class StartingCommand(WhomCommand):
    """A WhomCommand that can start what it looks at."""

    starts = True


def whom_options(command: Command) -> Command:
    """Add [PID], -p/--pid, --exe and --module. The command's class is WhomCommand or StartingCommand."""
    adders: tuple[Callable[[Command], Command], ...] = (
        click.argument("words", nargs=-1, metavar="PID"),
        click.option("--exe", metavar="NAME", help="The one Go process that runs whose program has this name (glob; a "
                     "path if it has a slash)."),
        click.option("--module", metavar="FILE", help="The file (path or name) whose Go runtime is meant, in a process "
                     "that has loaded Go libraries (-buildmode=c-shared). [default: the program's own, else that "
                     "of the largest heap]"),
        click.option("-p", "--pid", type=click.IntRange(min=1), metavar="PID",
                     help="The process; its pid alone says the same."),
    )  # fmt: skip
    for add in adders:
        command = add(command)
    return command


def _pid(word: str) -> int:
    if word.isascii() and word.isdecimal() and len(word) <= 10 and int(word) > 0:
        return int(word)
    raise UsageError(f"{clean(word, 60)} is not a pid", "a pid is a number above 0; see gomem ps")


def _the_one_named(name: str) -> int:
    # Imported here: who gives a pid does not wait for it.
    from gomem.tracer.discovery.census import take_census
    from gomem.tracer.discovery.selection import matches_exe

    census = take_census()
    found = [one for one in census.go if matches_exe(name, one)]
    if len(found) == 1:
        return found[0].pid
    if found:
        listed = [f"{one.pid:>7}  {clean(_command_line(one.pid) or one.exe, _LONGEST_LINE)}" for one in found]
        more = [f"and {len(listed) - _MOST_LISTED} more"] if len(listed) > _MOST_LISTED else []
        raise TargetError(
            f"{len(found)} Go processes are called {clean(name, 60)}; give the pid of one of them",
            choices=[*listed[:_MOST_LISTED], *more],
        )
    what = f"no Go process called {clean(name, 60)} can be seen"
    unseen = [f"{limit.what}: {limit.why}; {limit.fix}" for limit in census.limits()]
    kind = NotPermitted if census.hidden and not census.may_look else TargetError
    raise kind(what, choices=unseen or ["gomem ps lists those that run"])


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(4 * _LONGEST_LINE).rstrip(b"\0").replace(b"\0", b" ").decode(errors="backslashreplace")
    except OSError:
        return ""
