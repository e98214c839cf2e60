"""The errors that gomem raises on purpose: what failed, for which target, and what the person can do.

The command line prints them in one or two lines and ends with `exit_code`; everything else that
escapes is a bug of ours.
"""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_PERMITTED = 77


class GomemError(Exception):
    """Base of all expected failures.

    `what` names the failure and its target in one line; `fix` says what the person can do, or is "".
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  {self.fix}" if self.fix else self.what

    def in_one_line(self) -> str:
        """Return what failed and what the person can do, for where there is room for one line."""
        return f"{self.what}; {self.fix}" if self.fix else self.what


class UsageError(GomemError):
    """The command line asks for something that makes no sense."""

    exit_code = EXIT_USAGE


class NotPermitted(GomemError):
    """The kernel refused; `fix` names the missing capability."""

    exit_code = EXIT_NOT_PERMITTED


class TargetError(GomemError):
    """The process is not there, not suitable, or changed under our hands."""


class TargetGone(TargetError):
    """The process exited, became a zombie, or another one has its pid now."""


class BinaryError(GomemError):
    """An executable is truncated, corrupt, or not what was asked for."""


class LayoutError(GomemError):
    """The struct layouts of this Go release are unknown, or do not fit the live process."""


class SnapshotError(GomemError):
    """The runtime's memory could be read but makes no sense."""


class BackendUnavailable(GomemError):
    """An event source cannot work on this machine or for this target."""
