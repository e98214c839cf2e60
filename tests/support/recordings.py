"""Recordings of a process that never was, as the recorder writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gomem.tracer.events.record import EVENT, EventBatch, EventKind
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.recording.watching import Beginning, Ending
from gomem.tracer.report import Limit, Overhead, ProbeRow
from tests.support import looks
from tests.support.runtime_image import ARENA, CHUNK, PAGE

START = 1_000_000_000_000  # CLOCK_MONOTONIC ns
CLOCK = 1_772_366_400_000_000_000  # the same moment, ns since 1970: 2026-03-01T12:00:00Z
SECOND = 1_000_000_000
OVERHEAD = Overhead(0.25, 80 << 20, [ProbeRow("used", "runtime.sysUsed", 3)], 0.001)
NAMES = {0x401000 + 16 * number: f"runtime.f{number}" for number in range(32)}

Row = tuple[int, EventKind, Sequence[int], int]  # seconds * 1000 since START, kind, arguments, result


def events(*rows: Row, tid: int = 4711, stack: Sequence[int] = ()) -> EventBatch:
    """Return a batch; system calls take a microsecond."""
    batch = np.zeros(len(rows), EVENT)
    for event, (millisecond, kind, args, result) in zip(batch, rows, strict=True):
        event["time"] = START + millisecond * 1_000_000
        event["entered"] = event["time"] - 1000 if kind < EventKind.EXEC else 0
        event["tid"], event["kind"], event["result"] = tid, kind, result
        event["args"][: len(args)] = args
        event["stack"][: len(stack)] = stack
        event["depth"] = len(stack)
    return batch


def used_again(millisecond: int, first: int = 20, pages: int = 2) -> EventBatch:
    """Return sysUsed of heap pages that the look saw scavenged."""
    stack = [address + 1 for address in list(NAMES)[:4]]
    return events((millisecond, EventKind.USED, (ARENA + first * PAGE, pages * PAGE, pages * PAGE), 0), stack=stack)


def mapped_by_hand(millisecond: int, at: int = 0x7F1000000000, size: int = 1 << 20) -> EventBatch:
    """Return an mmap of the program's own."""
    anonymous = 0x22
    return events((millisecond, EventKind.MMAP, (0, size, 3, anonymous, (1 << 64) - 1, 0), at), stack=[0x401101])


def beginning(started: int | None = START) -> Beginning:
    """Return the beginning of a recording by BPF."""
    limits = [Limit("some-limit", "b", "c", "")]
    return Beginning(looks.facts(), "bpf", "asked for", limits, True, started, START, CLOCK)


def ending(seconds: float = 10.0, lost: int = 0) -> Ending:
    """Return the ending."""
    return Ending(seconds, "2026-03-01T12:00:10.000Z", OVERHEAD, lost, [Limit("some-limit", "b", "c", "")])


def recorded(path: Path, *, ended: bool = True) -> Path:
    """Record ten seconds: looks at 0 and 5 s, two scavenged pages used again at 2 s, an mmap by hand at 3 s."""
    recorder = Recorder(str(path))
    recorder.begin(beginning(), lambda address: NAMES.get(address - address % 16), lambda: OVERHEAD)
    first = looks.look(at=START + 1_000_000)
    recorder.look(first, ModelInput.of(first), START + 1_000_000)
    for millisecond, batch in ((2000, used_again(2000)), (3000, mapped_by_hand(3000))):
        recorder.events(batch, START + (millisecond + 100) * 1_000_000, 0)
        recorder.flush()
    recorder.events(np.zeros(0, EVENT), START + 4 * SECOND, 0)
    recorder.events(events((7000, EventKind.GC_START, (), 0), (7010, EventKind.GC_DONE, (), 0)), START + 8 * SECOND, 0)
    recorder.events(
        events((9000, EventKind.MADVISE, (ARENA, CHUNK, 14), 0), (9001, EventKind.MUNMAP, (0x7F1000000000, 4096), 0)),
        START + 10 * SECOND, 2,
    )  # fmt: skip
    if ended:
        recorder.end(ending(lost=2))
    else:
        recorder.flush()
    recorder.close()
    return path
