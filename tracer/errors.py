"""The errors that gomem raises on purpose: what failed, for which target, and what the person can do.

The command line prints them in one or two lines and ends with `exit_code`; everything else that
escapes is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_PERMITTED = 77
# Of gomem with a command to start, whose own code is what it exits with otherwise: as env(1) and timeout(1) do it.
EXIT_OURS = 125
EXIT_CANNOT_RUN = 126
EXIT_NO_COMMAND = 127


class GomemError(Exception):
    """Base of all expected failures.

    `what` names the failure and its target in one line; `fix` says what the person can do, or is "". `detail` is what
    others said of it (a compiler, the BPF verifier), in as many lines as it took them: for --debug only. `choices`:
    what the person can choose from, one a line.
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, fix: str = "", detail: str = "", choices: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.detail = detail
        self.choices = tuple(choices)

    def __str__(self) -> str:
        return f"{self.what}\n  {self.fix}" if self.fix else self.what

    def in_one_line(self) -> str:
        """Return what failed and what the person can do, for where there is room for one line."""
        return f"{self.what}; {self.fix}" if self.fix else self.what


class UsageError(GomemError):
    """The command line asks for something that makes no sense."""

    exit_code = EXIT_USAGE


class CannotRun(UsageError):
    """The command that is to be started cannot be executed."""

    exit_code = EXIT_CANNOT_RUN


class NoSuchCommand(CannotRun):
    """There is no such command."""

    exit_code = EXIT_NO_COMMAND


class NotPermitted(GomemError):
    """The kernel refused; `fix` names what was found to be missing (tracer/machine/rights.py)."""

    exit_code = EXIT_NOT_PERMITTED


class TargetError(GomemError):
    """The process is not there, not suitable, or changed under our hands."""


class TargetGone(TargetError):
    """The process exited, became a zombie, or another one has its pid now."""


class TargetExecuted(TargetError):
    """The process runs another program now."""


class TooLarge(TargetError):
    """What gomem would have to hold of the process is more than it may."""


class BinaryError(GomemError):
    """An executable is truncated, corrupt, or not what was asked for."""


class LayoutError(GomemError):
    """The struct layouts of this Go release are unknown, or do not fit the live process."""


class SnapshotError(GomemError):
    """The runtime's memory could be read but makes no sense."""


class NoAnswer(GomemError):
    """Whoever looks at a process would have to wait, perhaps for ever."""


class BackendUnavailable(GomemError):
    """An event source cannot work on this machine or for this target."""


class WouldWait(BackendUnavailable):
    """Probes cannot be put on now: the kernel would wait for a process, perhaps for ever."""
