"""Logs that strace wrote earlier, with any of its options for times and threads, as events.

The lines are brought into the form of `strace -f -ttt -T`, which StraceParser reads. What a log does not tell is
told by `StraceLog`: no absolute times, no durations, nobody who says whose a task is.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.events.strace.parser import MAX_LINE, StraceParser

Times = Literal["unix", "clock", "relative", "none"]

_PREFIX = re.compile(
    rb"\s*(?:\[pid\s+(?P<bracketed>\d{1,10})\]\s+|(?P<bare>\d{1,7})\s+)?"
    rb"(?:(?P<unix>\d{9,11}(?:\.\d{1,9})?)(?:\s+\(\+\s+[\d.]+\))?\s+"
    rb"|(?P<clock>\d{1,2}:\d\d:\d\d(?:\.\d{1,9})?)(?:\s+\(\+\s+[\d.]+\))?\s+"
    rb"|(?P<relative>\d{1,8}\.\d{1,9})\s+)?"
    rb"(?P<body>[a-z_<+?\-].*)"
)
_EXECUTED = re.compile(rb'execve\("((?:[^"\\]|\\.)*)", \[((?:"(?:[^"\\]|\\.)*"(?:\.\.\.)?(?:, )?)*)')
_DURATION = re.compile(rb" <\d+\.\d+>$")
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_DAY = 86_400
MOST_TASKS = 1 << 17


class StraceLog:
    """Reads one log from its beginning; `feed` its bytes, then `finish`.

    Times are nanoseconds: since 1970 if `times` is "unix", since midnight of the first day for "clock", else since the
    beginning (without any times a line takes a microsecond). `pid` is the first task's id (None if the log
    names none). Events of processes that it started are left out, as far as clone calls tell them: `others` are those.
    `births_known` says whether there was any such call.
    """

    def __init__(self) -> None:
        self.times: Times | None = None
        self.pid: int | None = None
        self.others: set[int] = set()
        self.births_known = False
        self.command: list[str] = []
        self._parser = StraceParser()
        self._carry = b""
        self._clock = 0  # ns
        self._ours: dict[int, bool] = {}

    @property
    def unparsed(self) -> int:
        """How many lines made no sense."""
        return self._parser.unparsed

    def feed(self, text: bytes) -> EventBatch:
        """Take the next piece of the log, cut anywhere; return the process's events in it."""
        lines = (self._carry + text).split(b"\n")
        self._carry = lines.pop()[-MAX_LINE - 1 :]
        return self._parsed(lines)

    def finish(self) -> EventBatch:
        """Take the last line, if it has no end."""
        lines, self._carry = [self._carry], b""
        return self._parsed(lines)

    def _parsed(self, lines: list[bytes]) -> EventBatch:
        batch = self._parser.feed(b"".join(self._canonical(line) for line in lines))
        for birth in self._parser.take_births():
            self.births_known = True
            if len(self._ours) < MOST_TASKS:
                self._ours[birth.child] = birth.thread and self._ours.get(birth.parent, True)
        if not len(batch):
            return batch
        if self.pid is None:
            self.pid = int(batch["tid"][0])
        tids = np.unique(batch["tid"]).tolist()
        strangers = [tid for tid in tids if not self._ours.get(tid, True)]
        self.others.update(strangers[: MOST_TASKS - len(self.others)])
        keep = ~np.isin(batch["tid"], strangers)
        keep &= (batch["kind"] != EventKind.EXIT) | (batch["tid"] == self.pid)
        return batch[keep]

    def _canonical(self, line: bytes) -> bytes:
        """Return the line with a thread id and a time, as StraceParser wants it."""
        match = _PREFIX.fullmatch(line[: MAX_LINE + 1].rstrip())
        if match is None:
            return line + b"\n"
        if not self.command and (executed := _EXECUTED.match(match["body"])):
            self.command = [_text(word) for word in (executed[1], *_WORD.findall(executed[2]))]
        body = match["body"]
        if not self._pass_time(match):
            # Durations on top of times that only keep the order would spoil it.
            body = _DURATION.sub(b"", body)
        tid = match["bracketed"] or match["bare"] or b"%d" % (self.pid or 0)
        seconds, rest = divmod(self._clock, 1_000_000_000)
        return b"%s %d.%09d %s\n" % (tid, seconds, rest, body)

    def _pass_time(self, match: re.Match[bytes]) -> bool:
        """Move on to the line's time; return whether it is told finer than in seconds."""
        if match["unix"]:
            self.times = self.times or "unix"
            now = _nanoseconds(match["unix"])
        elif match["clock"]:
            self.times = self.times or "clock"
            hours, minutes, seconds = match["clock"].split(b":")
            day = self._clock // (_DAY * 10**9)
            now = (day * _DAY + int(hours) * 3600 + int(minutes) * 60) * 10**9 + _nanoseconds(seconds)
            # Past midnight the clock begins anew; threads alone never put it back by half a day.
            now = now if now > self._clock - _DAY * 10**9 // 2 else now + _DAY * 10**9
        elif match["relative"]:
            self.times = self.times or "relative"
            now = self._clock + _nanoseconds(match["relative"])
        else:
            self.times = self.times or "none"
            now = 0
        fine = b"." in (match["unix"] or match["clock"] or match["relative"] or b"")
        self._clock = now if fine else max(now, self._clock + 1000)
        return fine


def _nanoseconds(text: bytes) -> int:
    seconds, _, fraction = text.partition(b".")
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, b"0"))


def _text(raw: bytes) -> str:
    return raw[:4096].decode("utf-8", "backslashreplace")
