"""A glance at a live process: RSS and the Go heap at this moment, in about a millisecond."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gomem.tracer.errors import LayoutError, NotPermitted, SnapshotError
from gomem.tracer.report import LimitUse
from gomem.tracer.runtime.counters import read_counters
from gomem.tracer.runtime.earlier import first_number
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.snapshot.pressure import limit_use

_OS_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Glance:
    """Bytes; None where there is no Go runtime, or none whose layout has proven itself so far."""

    rss: int  # /proc/PID/statm
    in_use: int | None = None  # MemStats.HeapInuse
    live: int | None = None  # what the last collection found alive
    use: LimitUse | None = None  # without the limit
    cycles: int | None = None  # MemStats.NumGC


def glance(inspector: Inspector) -> Glance:
    """Read the kernel's and the runtime's counters alone. Raises TargetGone, NotPermitted."""
    rss = int(inspector.target.read("statm").split()[1]) * _OS_PAGE
    program, bias = inspector.program, inspector.bias
    if program.layout is None or not program.layout.confirmed or not program.readable or bias is None:
        return Glance(rss)
    addresses = {name: address + bias for name, address in program.globals.items()}
    try:
        memory = inspector.memory()
        memory.start_budget()
        counters = read_counters(memory, program.layout, addresses, 1)
        live = first_number(counters.controller, "heapMarked", "heap_marked")
    except (SnapshotError, LayoutError, NotPermitted):
        return Glance(rss)
    in_use, cycles = (counters.memstats.get(name) for name in ("HeapInuse", "NumGC"))
    return Glance(
        rss,
        in_use if isinstance(in_use, int) else None,
        live,
        limit_use(counters.memstats, live, None),
        cycles if isinstance(cycles, int) else None,
    )
