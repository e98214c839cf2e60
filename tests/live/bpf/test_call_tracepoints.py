"""From tracepoints of all system calls to those of the memory calls, while the target goes on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from gomem.bpf.probes import call_tracepoints
from gomem.bpf.probes.tracefs import Tracefs
from gomem.bpf.source import BpfSource
from gomem.tracer.errors import NotPermitted
from gomem.tracer.events.record import EventBatch, EventKind
from tests.support.bpf.tracing import tracing
from tests.support.processes import running

pytestmark = pytest.mark.bpf

ADVICE = 99  # which nobody knows: the call fails and does no harm
# Each call has its number for a length; the second thread counts from a million on.
COUNTING = """
import ctypes, sys, threading, time
madvise = ctypes.CDLL(None).madvise
madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
def count(number):
    while True:
        number += 1
        madvise(0x10000, number, 99)
        time.sleep(0.001)
threading.Thread(target=count, args=(1_000_000,), daemon=True).start()
print("begun", flush=True)
count(0)
"""


@contextmanager
def counting() -> Iterator[int]:
    """Run the program until the block ends; the block begins when it counts."""
    with running(sys.executable, "-c", COUNTING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield process.pid


def numbers(events: EventBatch) -> list[int]:
    mine = events[(events["kind"] == EventKind.MADVISE) & (events["args"][:, 2] == ADVICE)]
    assert (mine["result"] == -22).all()
    assert (mine["args"][:, 0] == 0x10000).all()
    assert (mine["entered"] > 0).all()
    assert (mine["entered"] < mine["time"]).all()
    return [int(number) for number in mine["args"][:, 1]]


def perf_events() -> int:
    """Return how many perf events this process has open."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[perf_event]"
        except OSError:
            continue
    return found


def watched(source: BpfSource, calls: int, changed: Callable[[], bool]) -> EventBatch:
    """Poll until the tracepoints have `changed`, and then until so many more calls have come."""
    deadline = time.monotonic() + 60
    batches = [source.poll(0.1)]
    later = 0
    while later < calls:
        batches.append(source.poll(0.1))
        later += len(batches[-1]) if changed() else 0
        assert time.monotonic() < deadline, "no change, or the calls are not seen any more"
    source.stop()
    assert source.lost == 0
    return np.concatenate([*batches, source.poll(0)])


def without_gap(seen: list[int]) -> None:
    """Every number between the first and the last of a thread came once, in order."""
    for thread in ([one for one in seen if one < 1_000_000], [one for one in seen if one > 1_000_000]):
        assert len(thread) > 100
        assert thread == list(range(thread[0], thread[-1] + 1))


def test_no_call_is_lost_or_told_twice_when_the_tracepoints_change() -> None:
    before = perf_events()
    with counting() as pid, tracing(pid, ring_bytes=8 << 20) as source:
        assert perf_events() == before
        events = watched(source, 500, lambda: perf_events() > before)
    without_gap(numbers(events))
    assert perf_events() == before


def test_without_a_tracefs_the_raw_tracepoints_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    before = perf_events()
    asked = []

    def refused() -> Tracefs:
        asked.append(True)
        raise NotPermitted("tracefs is not mounted, and may not be", "")

    monkeypatch.setattr(call_tracepoints, "Tracefs", refused)
    with counting() as pid, tracing(pid, ring_bytes=8 << 20) as source:
        events = watched(source, 500, lambda: bool(asked))
        assert perf_events() == before
    assert asked == [True]
    without_gap(numbers(events))
