r"""From the lines of macOS's dtruss to events: pure, linear in its input, and deaf to garbage.

Source of the format: the dtruss script of the DTraceToolkit as macOS ships it. Each call is one line, printed when it
returns: `PID/0xTHREAD:  RELATIVE  ELAPSD  CPU name(0xARG, ...)\t\t = RESULT ERRNO`, where the columns before the name
depend on the options (-f, -d, -e, -o, -a) and a failure is `-1 Err#ERRNO`. Stacks (-s), counts (-c) and messages of
dtrace stand between the lines.

Darwin's numbers become Linux's by name, because EVENT has Linux's: flags of mmap, advice, errnos. Advice that Linux has
not gets a number of its own (gomem.tracer.events.madvise). Flags that only Darwin has are dropped.
"""

from __future__ import annotations

import errno
import re

import numpy as np

from gomem.tracer.events.madvise import DARWIN_ADVICE_BASE
from gomem.tracer.events.record import EVENT, EventBatch, EventKind, no_events

MAX_LINE = 1 << 14
_U64 = (1 << 64) - 1
_U32 = (1 << 32) - 1

_CALL = re.compile(
    r"\s*(?:(?P<pid>\d{1,10})/(?P<thread>0x[0-9a-fA-F]{1,16}|\d{1,19}):)?(?P<columns>(?:\s*\d{1,19}:?\s)*)\s*"
    r"(?P<name>[a-z_]\w*)\((?P<args>[^()]*)\)\s*= (?P<result>-?(?:0x[0-9A-Fa-f]{1,16}|\d{1,19})) "
    r"(?P<failed>Err#)?(?P<errno>\d{1,5})\s*"
)
_HEADER = re.compile(r"(?P<columns>.*)SYSCALL\(args\)\s+= return\s*")
_KINDS = {
    "mmap": (EventKind.MMAP, 6),
    "munmap": (EventKind.MUNMAP, 2),
    "mprotect": (EventKind.MPROTECT, 3),
    "madvise": (EventKind.MADVISE, 3),
}
# bsd/sys/mman.h and include/uapi/asm-generic/mman-common.h.
_FLAGS = {0x1: 0x01, 0x2: 0x02, 0x10: 0x10, 0x40: 0x4000, 0x1000: 0x20}
_ADVICE = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 8, 10: 21}  # normal ... dontneed; free; pageout
# bsd/sys/errno.h: below 35 the numbers are the same, EDEADLK apart.
_ERRNOS = {11: errno.EDEADLK, 35: errno.EAGAIN, 45: errno.EOPNOTSUPP, 78: errno.ENOSYS, 102: errno.EOPNOTSUPP}


class DtrussParser:
    """Turns the output of dtruss into EVENT batches, in the order of the lines.

    Only the first process's calls count; `others` has the pids of the rest. `timed` tells whether there is a RELATIVE
    column: it counts microseconds of CPU time of each thread, so it only spreads the lines over time, never
    orders them. Without it a line takes a microsecond. `unparsed` counts memory calls that made no sense.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        self.others: set[int] = set()
        self.timed = False
        self.calls = 0  # lines that are calls of any kind
        self.unparsed = 0
        self._columns: list[str] | None = None
        self._time = 0
        self._carry = b""

    def feed(self, text: bytes) -> EventBatch:
        """Take the next piece of output, cut anywhere; return the events of its whole lines."""
        lines = (self._carry + text).split(b"\n")
        self._carry = lines.pop()[-MAX_LINE - 1 :]
        return self._events(lines)

    def finish(self) -> EventBatch:
        """Take the last line, if it has no end."""
        lines, self._carry = [self._carry], b""
        return self._events(lines)

    def _events(self, lines: list[bytes]) -> EventBatch:
        rows = [row for line in lines if (row := self._row(line)) is not None]
        if not rows:
            return no_events()
        events = np.zeros(len(rows), EVENT)
        for at, (time, entered, tid, kind, args, result) in enumerate(rows):
            event = events[at]
            event["time"], event["entered"], event["tid"], event["kind"] = time, entered, tid, kind
            event["args"][: len(args)] = args
            event["result"] = result
        return events

    def _row(self, raw: bytes) -> tuple[int, int, int, EventKind, list[int], int] | None:
        if len(raw) > MAX_LINE:
            return None
        line = raw.decode("latin-1")
        header = _HEADER.fullmatch(line)
        if header is not None:
            self._columns = [word for word in header["columns"].split() if word != "PID/THRD"]
            return None
        call = _CALL.fullmatch(line)
        if call is None:
            self.unparsed += any(f"{name}(0x" in line for name in _KINDS)
            return None
        self.calls += 1
        took = self._pass_time(call["columns"].replace(":", " ").split())
        if call["pid"] is not None and not self._is_ours(int(call["pid"])):
            return None
        if call["name"] not in _KINDS:
            return None
        try:
            kind, args, result = _call(call)
        except ValueError:
            self.unparsed += 1
            return None
        tid = int(call["thread"], 0) & _U32 if call["thread"] else 0
        return self._time, max(self._time - took, 1), tid, kind, args, result

    def _is_ours(self, pid: int) -> bool:
        if self.pid is None:
            self.pid = pid
        elif pid != self.pid and len(self.others) < 1000:
            self.others.add(pid)
        return pid == self.pid

    def _pass_time(self, figures: list[str]) -> int:
        """Move on to the time of the next line; return how long its call took, ns."""
        names = self._columns if self._columns is not None else ["RELATIVE", "ELAPSD", "CPU"]
        told = dict(zip(names, map(int, figures), strict=False))
        self._time += 1000
        if "RELATIVE" in told:
            self.timed = True
            self._time = min(max(self._time, told["RELATIVE"] * 1000), _U64 >> 1)
        return min(told.get("ELAPSD", 0) * 1000, 999)


def _call(call: re.Match[str]) -> tuple[EventKind, list[int], int]:
    """Return kind, arguments and result with Linux's numbers; raises ValueError."""
    kind, count = _KINDS[call["name"]]
    args = [int(word.strip(), 0) & _U64 for word in call["args"].split(",")]
    if len(args) != count:
        raise ValueError(call["args"])
    if kind is EventKind.MMAP:
        args[3] = sum(ours for theirs, ours in _FLAGS.items() if args[3] & theirs)
    elif kind is EventKind.MADVISE:
        args[2] = _ADVICE.get(args[2], DARWIN_ADVICE_BASE + (args[2] & 0xFFFF))
    if call["failed"]:
        number = int(call["errno"])
        return kind, args, -_ERRNOS.get(number, number)
    result = int(call["result"], 0)
    if not 0 <= result <= _U64 >> 1:
        raise ValueError(call["result"])
    return kind, args, result
