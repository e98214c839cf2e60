"""What a tracer of one process costs the system calls of all others, which no comparison of two programs can show.

The kernel takes a longer way through every system call of the machine as soon as somebody traces some of them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gomem.bpf import syscalls
from gomem.bpf.bcc_import import RAW_TRACEPOINT, Module
from gomem.bpf.one_target import array_word
from tests.bench.overhead_targets import Ticker, Workload
from tests.bench.overhead_tracers import Tracer, tracing
from tests.bench.shared import cost
from tests.support.builds import built
from tests.support.processes import running

_SOURCE = Path(__file__).with_suffix(".c")
_ROUNDS = 400  # of 2000 calls; the cheapest counts
_LASTS = 3.0  # seconds that these need at the most
_QUICKLY = 0.1  # of all that


@contextmanager
def counted_calls(pid: int) -> Iterator[list[int]]:
    """Count the system calls of a process during the block; afterwards the list has their number."""
    found: list[int] = []
    module = Module(_SOURCE, {"TGID": pid})
    try:
        link = syscalls.open_raw_tracepoint(module.load("on_sys_enter", RAW_TRACEPOINT), "sys_enter")
        try:
            before = array_word(module.map_fd("calls"), 0)
            yield found
            found.append(array_word(module.map_fd("calls"), 0) - before)
        finally:
            os.close(link)
    finally:
        module.close()


def calls_per_cpu_second(workload: Workload, seconds: float) -> float:
    """Return how many system calls a program makes for each second of CPU that it uses."""
    with counted_calls(workload.pid) as calls:
        begin = time.monotonic()
        time.sleep(seconds)
        rate = workload.target.rate(begin, time.monotonic())
        cpu = seconds * rate.by_clock / rate.by_cpu
    return calls[0] / cpu


def slower_by(tracer: Tracer, release: str, repeats: int, *, quick: bool = False) -> float:
    """Return how many seconds longer a system call of any process takes while another process is traced."""
    path = built("calls", release)
    effort = _QUICKLY if quick else 1.0
    rounds, settles = int(_ROUNDS * effort), tracer.settles * effort
    longer = []
    for _ in range(repeats):
        with running(path, "-calls", "1", "-every", "1h") as other:
            traced = Workload("calls", path, Ticker(other))
            before = cost(path, "getppid", rounds)
            with tracing(tracer, traced, settles + _LASTS * effort):
                time.sleep(settles)
                during = cost(path, "getppid", rounds)
        longer.append((during - min(before, cost(path, "getppid", rounds))) / 1e9)
    return statistics.median(longer)
