"""The terminal that the table is shown on: standard input and output, which may go away at any time."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gomem.tracer.errors import UsageError

_MOST_SAID = 1 << 14  # bytes of what others write to standard error meanwhile
_INSTEAD = "gomem ps lists the Go processes once; gomem serve exports their figures"


def check_terminal() -> None:
    """Raise UsageError where no table can be shown."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("gomem top needs a terminal as its standard input and output", f"{_INSTEAD}; or give --once")
    term = os.environ.get("TERM") or ""
    if term in ("", "dumb", "unknown"):
        name = f"TERM is {term!r}" if term else "TERM is not set"
        raise UsageError(f"gomem top cannot draw on this terminal: {name}", f"{_INSTEAD}; or give --once")


def is_gone() -> bool:
    """Tell whether the terminal has hung up."""
    poll = select.poll()
    poll.register(0, 0)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


@contextmanager
def quiet_errors() -> Iterator[None]:
    """Keep what is written to standard error, within the block, off a terminal, and show it behind the block."""
    if not os.isatty(2):
        yield
        return
    kept, meant = os.memfd_create("gomem-stderr"), os.dup(2)
    os.dup2(kept, 2)
    try:
        yield
    finally:
        os.dup2(meant, 2)
        os.close(meant)
        said = os.pread(kept, _MOST_SAID, 0)
        os.close(kept)
        with suppress(OSError):
            os.write(2, said)
