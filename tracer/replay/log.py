"""The report of a log of system calls that strace or dtruss wrote: events, and the address space rebuilt from them.

Nothing but the log is known: no residency, no runtime, and of the address space only what the log's own calls
made. The report says so in its limits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime

import numpy as np
from msgspec.structs import replace

from gomem.tracer.errors import GomemError, UsageError
from gomem.tracer.events.dtruss import DtrussParser
from gomem.tracer.events.log_formats import recognise
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.events.strace.log import StraceLog
from gomem.tracer.model import mappings as mapped
from gomem.tracer.model.go_hints import GoHints, hint_at
from gomem.tracer.model.one_process import OneProcess
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.recording.frames import Tick
from gomem.tracer.report import Limit, ProcessFacts, RebuiltRange, Report
from gomem.tracer.report.findings.rules import find
from gomem.tracer.watch.moments import parse_moment, rfc3339
from gomem.tracer.watch.session import NO_OVERHEAD, Origin, TargetSession

MOST_RANGES = 10_000
_CHUNK, _PIECE = 4 << 20, 1 << 18  # bytes that tell what a log is, and that are read at once
_OS_PAGE, _APPLE_PAGE = 4096, 16384


def replay_log(path: str, head: bytes, at: str | None = None, tick: Tick | None = None) -> Report:
    """Return the report of the log at `path`, which begins with `head`, up to a moment if one is given.

    `tick` is told how many of how many bytes have been read.

    Raises GomemError if it is no log that is known, or says nothing of memory; UsageError for a bad moment.
    """
    form = recognise(head)
    if form is None:
        raise GomemError(
            f"{path} is nothing that can be replayed",
            "it takes a recording of gomem, a log of strace -f -ttt -T -e trace=memory -o FILE, or dtruss's output",
        )
    log: StraceLog | DtrussParser = StraceLog() if form == "strace" else DtrussParser()
    moment = None if at is None else parse_moment(at)
    replayed = _Replay(form, _os_page(path) if form == "dtruss" else _OS_PAGE)
    for batch in _batches(path, log, tick):
        if not replayed.take(batch, moment, _since_1970(log)):
            break
    if replayed.first is None:
        raise GomemError(
            f"{path} is a log of {form}, but no call in it maps or unmaps memory",
            "with strace, trace at least -e trace=memory",
        )
    replayed.check_reached(moment, at or "")
    return _report(path, form, log, replayed)


def _batches(path: str, log: StraceLog | DtrussParser, tick: Tick | None) -> Iterator[EventBatch]:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while text := file.read(_PIECE):
                if tick is not None:
                    tick(file.tell(), size)
                yield log.feed(text)
        yield log.finish()
    except OSError as error:
        raise GomemError(f"cannot read {path}: {error.strerror}") from error


class _Replay:
    """Everything that listens to the events of a log."""

    def __init__(self, form: str, os_page: int) -> None:
        origin = Origin("replay", f"a log of {form}", compares=False, os_page=os_page)
        self.session = TargetSession(origin, _nameless, None)
        self.model = AddressSpaceModel.empty(os_page=os_page)
        self.hints = GoHints()
        self.one_process = OneProcess(os_page)
        self.first: int | None = None
        self.last = 0

    def take(self, batch: EventBatch, moment: float | datetime | None, since_1970: bool) -> bool:
        """Take the next events; return False when all that follow are after the moment."""
        if not len(batch):
            return True
        if self.first is None:
            entered = np.where(batch["entered"] > 0, batch["entered"], batch["time"])
            self.first = int(entered.min())
            self.session.activity.mark_start(self.first)
        some = batch
        if moment is not None:
            some = batch[batch["time"] <= self._nanoseconds(moment, since_1970)]
        if len(some):
            self.session.feed(some, 0)
            self.model.apply(some)
            self.hints.feed(some)
            self.one_process.feed(some)
            self.last = max(self.last, int(some["time"][-1]))
        if len(some) < len(batch):
            self.last = max(self.last, min(self._nanoseconds(moment, since_1970), int(batch["time"][-1])))
            return False
        return True

    def check_reached(self, moment: float | datetime | None, at: str) -> None:
        """Raise UsageError for a moment before the first event or after the last one."""
        first = self.first or 0
        if isinstance(moment, float) and first + int(moment * 1e9) > self.last:
            raise UsageError(f"--at {at} is not in the log", f"it covers {(self.last - first) / 1e9:.3f} seconds")
        if isinstance(moment, datetime) and not first / 1e9 <= moment.timestamp() <= self.last / 1e9 + 0.001:
            raise UsageError(f"--at {at} is not in the log", f"it is of {rfc3339(first)} to {rfc3339(self.last)}")

    def _nanoseconds(self, moment: float | datetime | None, since_1970: bool) -> int:
        if isinstance(moment, datetime):
            if not since_1970:
                raise UsageError("the log has no dates", "give seconds since its beginning, as in --at 12.5")
            return max(int(moment.timestamp() * 1e9), 0)
        return (self.first or 0) + int((moment or 0.0) * 1e9)


def _report(path: str, form: str, log: StraceLog | DtrussParser, replayed: _Replay) -> Report:
    first = replayed.first or 0
    dated = _since_1970(log)
    written = int(os.stat(path).st_mtime_ns)
    rebuilt = _rebuilt(replayed)
    seconds = (replayed.last - first) / 1e9 if _timed(log) else 0.0
    limits = [*_limits(form, log, replayed), *_cut(rebuilt)]
    facts, taken_at = _facts(form, log, first if dated else written), rfc3339(replayed.last if dated else written)
    report = replayed.session.report(facts, taken_at, seconds, NO_OVERHEAD, limits, log.unparsed)
    report = replace(report, virtual=replayed.model.virtual(), rebuilt=rebuilt[:MOST_RANGES])
    return replace(report, findings=find(report))


def _facts(form: str, log: StraceLog | DtrussParser, started: int) -> ProcessFacts:
    command = log.command if isinstance(log, StraceLog) else []
    return ProcessFacts(
        pid=log.pid or 0,
        ns_pid=log.pid or 0,
        start_time=rfc3339(started),
        exe=command[0] if command else "",
        cmdline=command[1:] or [f"(a log of {form})"],
    )


def _rebuilt(replayed: _Replay) -> list[RebuiltRange]:
    """Return what is mapped, cut where a recognised range begins or ends."""
    starts, values = replayed.model.mappings.map.columns()
    edges = [edge for hint in replayed.hints.found for edge in (hint.start, hint.start + hint.size)]
    points = np.unique(np.concatenate((starts, np.array(edges, np.uint64))))
    value = values[np.searchsorted(starts, points, side="right") - 1]
    known = np.flatnonzero(value[:-1] & mapped.MAPPED)
    hints = hint_at(replayed.hints.found, points[known])
    return [
        RebuiltRange(
            start=int(points[at]),
            size=int(points[at + 1] - points[at]),
            protection=_protection(int(value[at])),
            file=bool(value[at] & mapped.FILE),
            looks_like=hint.what if hint else None,
            by=hint.by if hint else None,
        )
        for at, hint in zip(known.tolist(), hints, strict=True)
    ]


def _protection(value: int) -> str:
    letters = ((mapped.READABLE, "r"), (mapped.WRITABLE, "w"), (mapped.EXECUTABLE, "x"))
    return "".join(letter if value & bit else "-" for bit, letter in letters) + ("s" if value & mapped.SHARED else "p")


def _cut(rebuilt: list[RebuiltRange]) -> Iterator[Limit]:
    if len(rebuilt) > MOST_RANGES:
        why = f"there are {len(rebuilt)}; the first {MOST_RANGES} are listed"
        yield Limit("rebuilt-ranges-cut", "some of the rebuilt ranges", why, "")


def _limits(form: str, log: StraceLog | DtrussParser, replayed: _Replay) -> Iterator[Limit]:
    yield Limit(
        "mapped-before-log",
        "what was mapped before the log begins, or by the kernel itself",
        "the executable, its stack and whatever else no call of the log mapped are not in it, nor in virtual.total",
        "begin the log with the program: strace -f -ttt -T -e trace=memory -o FILE COMMAND",
    )
    yield Limit(
        "no-states-in-log",
        "reserved, prepared and ready; resident, heap, spans and MemStats",
        "a log of system calls says what was asked of the kernel, not what the Go runtime means by it or what is in "
        "RAM",
        "gomem record, on Linux",
    )
    if log.pid is None:
        what = "the process's id and its threads"
        yield Limit("no-pid-in-log", what, "the log does not name them", "strace -f, dtruss -f")
    if log.others:
        why = f"there are {len(log.others)}; the first one is reported"
        yield Limit("several-processes-in-log", "other processes in the log", why, "")
    if isinstance(log, DtrussParser):
        yield from _dtruss_limits(log)
    else:
        yield from _strace_limits(log)
    if replayed.one_process.contradictions:
        yield Limit(
            "log-contradicts-itself",
            "certainty that the log is of one process",
            f"{len(replayed.one_process.contradictions)} new mappings lie where something was mapped already: calls "
            "are missing, or some tasks of the log are processes of their own",
            "trace the births of tasks too: strace -f -ttt -T -e trace=memory,process",
        )


def _strace_limits(log: StraceLog) -> Iterator[Limit]:
    if log.times != "unix":
        why = {"clock": "the log has the time of day, but no date", "relative": "the log has only times between lines"}
        reason = why.get(log.times or "", "the log has no times; only the order is known")
        yield Limit("no-times-in-log", "when it happened", reason, "strace -ttt -T")
    if not log.births_known and log.pid is not None:
        yield Limit(
            "no-births-in-log",
            "which tasks of the log are threads of the process",
            "the log has no clone calls: all of them are taken for threads",
            "strace -f -ttt -T -e trace=memory,process",
        )


def _dtruss_limits(log: DtrussParser) -> Iterator[Limit]:
    if log.timed:
        why = "dtruss's RELATIVE column is CPU time: seconds are right only roughly"
        yield Limit("cpu-times-in-log", "when it happened", why, "")
    else:
        why = "the log has no times; only the order is known"
        yield Limit("no-times-in-log", "when it happened", why, "dtruss -d -e -f")
    yield Limit(
        "mach-calls",
        "memory that macOS gives by Mach calls (mach_vm_allocate, mach_vm_map: malloc, thread stacks)",
        "dtruss sees BSD system calls only",
        "",
    )


def _since_1970(log: StraceLog | DtrussParser) -> bool:
    return isinstance(log, StraceLog) and log.times == "unix"


def _timed(log: StraceLog | DtrussParser) -> bool:
    return log.timed if isinstance(log, DtrussParser) else log.times not in (None, "none")


def _os_page(path: str) -> int:
    """Return the size of the pages of the Mac that made a log: 16 KB if all of its mappings lie on such borders."""
    parser = DtrussParser()
    with open(path, "rb") as file:
        events = parser.feed(file.read(_CHUNK))
    mapped_at = events["result"][(events["kind"] == EventKind.MMAP) & (events["result"] > 0)]
    return _APPLE_PAGE if len(mapped_at) >= 8 and not (mapped_at % _APPLE_PAGE).any() else _OS_PAGE


def _nameless(address: int) -> None:
    del address
