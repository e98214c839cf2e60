"""The cheapest look at a runtime: its counters alone, in a time that does not grow with the heap.

What is read: memstats, gcController, mheap itself, and for each P its mcache with the spans in it. Some dozen reads.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory
from gomem.tracer.report import JsonObject
from gomem.tracer.runtime.caches import PCaches, read_p_caches
from gomem.tracer.runtime.earlier import pacer_record
from gomem.tracer.runtime.stats import HeapStats, heap_stats, mem_stats
from gomem.tracer.runtime.structs import Record, read_record

ATTEMPTS = 4


class Counters(Struct, frozen=True):
    """What the runtime counts, as runtime.MemStats names it, and what it is made of."""

    memstats: JsonObject
    stats: HeapStats
    caches: PCaches
    memstats_record: Record
    controller: Record


def read_counters(memory: Memory, layout: Layout, addresses: Mapping[str, int], attempts: int = ATTEMPTS) -> Counters:
    """Read the counters, again where a read was torn. `addresses`: where the globals lie in the process.

    Raises SnapshotError when the last attempt made no sense either, TargetGone when the process has ended.
    """
    for left in reversed(range(attempts)):
        try:
            return _read_once(memory, layout, addresses)
        except SnapshotError:
            if not left:
                raise
    raise SnapshotError("no attempt was made")


def _read_once(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> Counters:
    memstats = read_record(memory, layout, "mstats", addresses["memstats"])
    controller = pacer_record(memory, layout, addresses, memstats)
    mheap = read_record(memory, layout, "mheap", addresses["mheap_"])
    caches = read_p_caches(memory, layout, addresses["allp"])
    stats = heap_stats(memstats, mheap)
    figures = mem_stats(stats, caches.unflushed, memstats, mheap, controller)
    return Counters(figures, stats, caches, memstats, controller)
