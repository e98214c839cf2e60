"""From the lines of `strace -f -ttt -T` to events: pure, linear in its input, and deaf to garbage.

Source of the format: strace(1); the lines of strace 4.26 to 6.x look alike. Both ways of naming the
thread are understood (`[pid  123] ` on a terminal, `123  ` in a file), symbols as well as raw numbers
(`-X raw`), and times of any precision up to nanoseconds.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gomem.tracer.events.record import EVENT, EventBatch, EventKind, no_events
from gomem.tracer.events.strace.symbols import argument_value

MAX_LINE = 1 << 16  # bytes; a longer line is not strace's and is dropped as unparsed
MAX_UNFINISHED = 1 << 16  # threads inside a system call that is still unfinished

_U32 = (1 << 32) - 1
_U64 = (1 << 64) - 1
_I64 = (1 << 63) - 1
_CLONE_THREAD = 0x10000

_LINE = re.compile(r"(?:\[pid\s+(\d{1,10})\]\s+|(\d{1,10})\s+)?(\d{1,11})\.(\d{1,9})\s+(\S.*)")
_CALL = re.compile(r"([a-z_][a-z0-9_]*)\(")
_RESUMED = re.compile(r"<\.\.\. ([a-z_][a-z0-9_]*) resumed> ?")
_RESULT = re.compile(
    r"(?P<value>\?|0x[0-9a-f]+|-?\d+)(?!\w)"
    r"(?: /\* (?P<translated>\d{1,10}) in strace's PID NS \*/)?(?: (?P<error>E[A-Z0-9]+)\b)?[^<]*"
    r"(?:<(?P<s>\d+)\.(?P<fraction>\d{1,9})>)?"
)
_ENDED = re.compile(r"\+\+\+ (?:exited with (\d+)|killed by (\S+)(?: \(core dumped\))?) \+\+\+")
_SUPERSEDED = re.compile(r"\+\+\+ superseded by execve in pid (\d{1,10}) \+\+\+")
_PID_CHANGED = re.compile(r"<pid changed to (\d{1,10}) \.\.\.>$")
_MESSAGE = re.compile(r"\S*strace: Process \d+ (?:attached|detached)\b.*")
_CLONE_FLAGS = re.compile(r"flags=([^,})]*)")

_KINDS = {
    "mmap": EventKind.MMAP,
    "mmap2": EventKind.MMAP,  # of 32-bit programs; strace shows the offset in bytes
    "munmap": EventKind.MUNMAP,
    "mremap": EventKind.MREMAP,
    "mprotect": EventKind.MPROTECT,
    "madvise": EventKind.MADVISE,
    "process_madvise": EventKind.PROCESS_MADVISE,
    "brk": EventKind.BRK,
    "execve": EventKind.EXEC,
    "execveat": EventKind.EXEC,
}
_BIRTHS = frozenset({"clone", "clone3", "fork", "vfork"})
_ARGUMENTS = {
    EventKind.MMAP: (6, 6),
    EventKind.MUNMAP: (2, 2),
    EventKind.MREMAP: (4, 5),
    EventKind.MPROTECT: (3, 3),
    EventKind.MADVISE: (3, 3),
    EventKind.PROCESS_MADVISE: (5, 5),
    EventKind.BRK: (1, 1),
}


@dataclass(frozen=True, slots=True)
class Birth:
    """A new task, and whether it is a thread of its parent.

    `child` is its id in strace's PID namespace if strace translated it, else in the parent's.
    """

    parent: int
    child: int
    thread: bool


@dataclass(slots=True)
class _Rows:
    """The columns of a batch in the making."""

    time: list[int] = field(default_factory=list)
    entered: list[int] = field(default_factory=list)
    tid: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    args: list[tuple[int, ...]] = field(default_factory=list)
    result: list[int] = field(default_factory=list)

    def add(self, time: int, entered: int, tid: int, kind: EventKind, args: tuple[int, ...], result: int) -> None:
        if not (0 <= entered <= _U64 and 0 <= time <= _U64 and tid <= _U32 and -_I64 <= result <= _I64):
            raise ValueError("out of range")
        self.time.append(time)
        self.entered.append(entered)
        self.tid.append(tid)
        self.kind.append(kind)
        self.args.append(args)
        self.result.append(result)

    def batch(self) -> EventBatch:
        if not self.time:
            return no_events()
        events = np.zeros(len(self.time), dtype=EVENT)
        events["time"] = np.array(self.time, dtype=np.uint64)
        events["entered"] = np.array(self.entered, dtype=np.uint64)
        events["tid"] = self.tid
        events["kind"] = self.kind
        events["args"] = np.array(self.args, dtype=np.uint64)
        events["result"] = np.array(self.result, dtype=np.int64)
        return events[np.argsort(events["time"], kind="stable")]


class StraceParser:
    """Turns the text of strace into EVENT batches (syscalls of the mmap family, EXEC, EXIT).

    Times in the text are seconds since the epoch; `moment` makes moments of CLOCK_MONOTONIC of them, both in ns. A line
    without a thread id belongs to `default_tid`. EXIT comes once for each thread; its result is the exit code, or minus
    the number of the signal that killed it. Events have no stacks; process_madvise's iovec is printed by content, so
    args[1] is 0 there.

    `unparsed` counts the lines that made no sense, cut-off ones included. Nothing that is fed raises.
    """

    def __init__(self, moment: Callable[[int], int] = int, default_tid: int = 0) -> None:
        self._moment = moment
        self.unparsed = 0
        self._default_tid = default_tid
        self._carry = b""
        self._skipping = False  # inside a line that was longer than MAX_LINE
        self._unfinished: dict[int, tuple[int, str]] = {}
        self._births: list[Birth] = []
        self._rows = _Rows()

    def feed(self, text: bytes) -> EventBatch:
        """Take the next piece of output, cut anywhere; return the events that it completes, by time."""
        lines = (self._carry + text).split(b"\n")
        self._carry = lines.pop()
        for line in lines:
            if self._skipping:
                self._skipping = False
            else:
                self._parse(line)
        if len(self._carry) > MAX_LINE:
            self.unparsed += not self._skipping
            self._skipping, self._carry = True, b""
        return self._take()

    def finish(self) -> EventBatch:
        """Take the end of the output: a last line without its newline counts only if it is whole."""
        if self._carry and not self._skipping:
            self._parse(self._carry)
        self._carry, self._skipping = b"", False
        self._unfinished.clear()
        return self._take()

    def take_births(self) -> list[Birth]:
        """Return the tasks born since the last call."""
        births, self._births = self._births, []
        return births

    def _take(self) -> EventBatch:
        rows, self._rows = self._rows, _Rows()
        return rows.batch()

    def _parse(self, raw: bytes) -> None:
        if len(raw) > MAX_LINE:
            self.unparsed += 1
            return
        line = raw.decode("latin-1").strip()
        if not line:
            return
        match = _LINE.fullmatch(line)
        if match is None:
            self.unparsed += _MESSAGE.fullmatch(line) is None
            return
        bracketed, bare, seconds, fraction, body = match.groups()
        tid = int(bracketed or bare or self._default_tid)
        try:
            self._parse_body(tid, self._moment(_nanoseconds(seconds, fraction)), body)
        except (ValueError, OverflowError):
            self.unparsed += 1

    def _parse_body(self, tid: int, entered: int, body: str) -> None:
        returned = entered
        if body.startswith(("--- ", "???", "<... ???", "[ Process PID=")):
            # A signal; a thread that was killed before strace could see what it was calling; from here on 32-bit calls.
            return
        if body.startswith("+++ "):
            self._parse_marker(tid, entered, body)
            return
        if body.startswith("<... "):
            resumed = _RESUMED.match(body)
            if resumed is None:
                raise ValueError(body)
            name = resumed.group(1)
            if name not in _KINDS and name not in _BIRTHS:
                return
            returned = entered
            entered, begun = self._unfinished.pop(tid, (0, ""))
            if not begun.startswith(name + "("):
                raise ValueError("resumed without a beginning")
            body = begun + body[resumed.end() :]
        call = _CALL.match(body)
        if call is None:
            raise ValueError(body)
        if call.group(1) in _KINDS or call.group(1) in _BIRTHS:
            self._parse_call(tid, entered, max(returned, entered), call.group(1), body)

    def _parse_call(self, tid: int, entered: int, returned: int, name: str, body: str) -> None:
        """Take a call; `returned` is when it did where strace was not asked for durations (-T)."""
        if body.endswith("<unfinished ...>"):
            self._leave_unfinished(tid, entered, body[: -len("<unfinished ...>")])
            return
        changed = _PID_CHANGED.search(body) if body.endswith("...>") else None
        if changed:  # a thread that calls execve takes over the pid of its leader
            self._leave_unfinished(int(changed.group(1)), entered, body[: changed.start()])
            return
        if body.endswith("<detached ...>"):
            return
        inside, equals, outcome = body.rpartition(" = ")
        inside = inside.rstrip(" ")
        result = _RESULT.fullmatch(outcome)
        if not equals or not inside.endswith(")") or result is None:
            raise ValueError(body)
        if result["value"] == "?":
            return  # it never returned (exit, kill) or will be restarted and printed again
        value = _result_value(result["value"], result["error"])
        inside = inside[len(name) + 1 : -1]
        if name in _BIRTHS:
            if value > 0:
                child = int(result["translated"] or value)
                self._births.append(Birth(tid, child, _makes_thread(inside)))
            return
        duration = _nanoseconds(result["s"], result["fraction"]) if result["s"] else returned - entered
        kind = _KINDS[name]
        if kind is not EventKind.EXEC:
            self._rows.add(entered + duration, entered, tid, kind, _arguments(kind, inside), value)
        elif value == 0:
            self._rows.add(entered + duration, entered, tid, kind, (0,) * 6, 0)

    def _leave_unfinished(self, tid: int, entered: int, begun: str) -> None:
        if len(self._unfinished) >= MAX_UNFINISHED:
            self._unfinished.pop(next(iter(self._unfinished)))
        self._unfinished[tid] = (entered, begun.rstrip(" "))

    def _parse_marker(self, tid: int, time: int, body: str) -> None:
        superseded = _SUPERSEDED.fullmatch(body)
        if superseded is not None:
            # The old leader; its pid is the exec'ing thread's by now, whose call is resumed under that.
            begun = self._unfinished.pop(int(superseded.group(1)), None)
            if begun is not None:
                self._unfinished[tid] = begun
            return
        ended = _ENDED.fullmatch(body)
        if ended is None:
            raise ValueError(body)
        self._unfinished.pop(tid, None)
        self._rows.add(time, 0, tid, EventKind.EXIT, (0,) * 6, _exit_result(*ended.groups()))


def _nanoseconds(seconds: str, fraction: str) -> int:
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def _result_value(value: str, error: str | None) -> int:
    number = int(value, 0)
    if number == -1 and error:
        code: object = getattr(errno, error, None)
        if not isinstance(code, int):
            raise ValueError(error)
        return -code
    return number if number <= _I64 else number - (1 << 64)


def _exit_result(code: str | None, killer: str | None) -> int:
    if code is not None:
        return int(code)
    number: object = getattr(signal, killer or "", None)
    return -int(number) if isinstance(number, signal.Signals) else -1


def _makes_thread(arguments: str) -> bool:
    flags = _CLONE_FLAGS.search(arguments)
    if flags is None:
        return False
    text = flags.group(1)
    return "CLONE_THREAD" in text or (text[:2] == "0x" and bool(int(text, 16) & _CLONE_THREAD))


def _arguments(kind: EventKind, inside: str) -> tuple[int, ...]:
    parts = [inside] if kind is EventKind.BRK else inside.split(", ")
    if kind is EventKind.PROCESS_MADVISE:
        parts = _without_iovec(inside)
    elif kind is EventKind.MMAP and len(parts) > 6:  # a path with ", " in it, as `strace -y` prints descriptors
        parts = [*parts[:4], ", ".join(parts[4:-1]), parts[-1]]
    fewest, most = _ARGUMENTS[kind]
    if not fewest <= len(parts) <= most:
        raise ValueError(inside)
    values = [argument_value(part) for part in parts]
    return (*values, *(0,) * (6 - len(values)))


def _without_iovec(inside: str) -> list[str]:
    """Split `fd, [{iov_base=..., iov_len=...}, ...], vlen, advice, flags`, giving 0 for the vector."""
    descriptor, comma, rest = inside.partition(", ")
    if not comma:
        raise ValueError(inside)
    if rest.startswith("["):
        rest = rest[rest.rindex("]") + 1 :]
        return [descriptor, "0", *rest.removeprefix(", ").split(", ")]
    return [descriptor, *rest.split(", ")]
