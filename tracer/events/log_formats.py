"""What kind of log a text file is, by its content."""

from __future__ import annotations

import re
from typing import Literal

LogFormat = Literal["strace", "dtruss"]

_DTRUSS = re.compile(rb"(?:.*[\s:])?[a-z_]\w*\([^\n]*\)\s+= -?(?:0x[0-9A-Fa-f]+|\d+) (?:Err#)?\d+\s*")
_DTRUSS_HEADER = re.compile(rb".*SYSCALL\(args\)\s+= return\s*")
_STRACE = re.compile(
    rb"(?:.*\s)?(?:[a-z_]\w*\([^\n]*(?:\)\s+= (?:\?|-?\d+|0x[0-9a-f]+)[^\n]*|<unfinished \.\.\.>)"
    rb"|<\.\.\. \w+ resumed>[^\n]*|--- SIG\w+ \{[^\n]*|\+\+\+ (?:exited|killed)[^\n]*)"
)
_LINES = 400
_LONGEST = 4096


def recognise(head: bytes) -> LogFormat | None:
    """Return the format of a log that begins with `head`, None if it is neither strace's nor dtruss's."""
    lines = [line for line in head.split(b"\n")[:_LINES] if 0 < len(line) <= _LONGEST]
    if any(_DTRUSS_HEADER.fullmatch(line) for line in lines):
        return "dtruss"
    dtruss = sum(_DTRUSS.fullmatch(line) is not None for line in lines)
    strace = sum(_STRACE.fullmatch(line) is not None for line in lines)
    if not dtruss and not strace:
        return None
    return "dtruss" if dtruss > strace // 2 else "strace"
