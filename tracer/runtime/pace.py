"""How hard the collector works, and what the scavenger is about to do: what the runtime knows of both.

Source: work and memstats.pause_end in runtime/mgc.go and mstats.go, gcCPULimiterState in mgclimit.go, scavenge,
scavengerState and scavengeIndex in mgcscavenge.go (Go 1.19 to 1.27). What a release does not have is None.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
from msgspec import Struct

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.proc.clocks import offset_of, own_offset
from gomem.tracer.process.memory import Memory, ProcessMemory, Words, read_words
from gomem.tracer.runtime.pages import CHUNK_BYTES, CHUNK_PAGES, PAGE, HeapPages, PageState
from gomem.tracer.runtime.structs import Record

RECENT: Final = 10_000_000_000  # ns: the stretch that the rate of collections is of
_NONE = (1 << 64) - 1  # a goal that asks for nothing
_DENSE_PAGES = int(0.96875 * CHUNK_PAGES)  # scavChunkHiOccFrac: a chunk with as many in use is left alone


class Limiter(Struct, frozen=True):
    """The limit on the collector's CPU time (gcCPULimiter): half of GOMAXPROCS.

    `fill`: share of its bucket that is full. The bucket holds a CPU second for each P; the collector's CPU time fills
    it, the program's drains it. When it is full, `limiting` begins: goroutines no longer help to mark.
    """

    limiting: bool
    fill: float | None
    last_cycle: int  # number of the last cycle in which it limited; 0: never
    assist_pool: float | None = None  # CPU seconds of assists that it has not accounted for yet


class CpuClasses(Struct, frozen=True):
    """Where CPU time went since the start, as of the end of the last collection; seconds (Go 1.20 and later).

    The classes of runtime/metrics: /cpu/classes/gc/mark/assist:cpu-seconds and so on. `total`: all that the program
    could have had, GOMAXPROCS times the time.
    """

    mark_assist: float
    mark_dedicated: float
    mark_idle: float
    pause: float
    scavenge: float
    total: float


class Scavenging(Struct, frozen=True):
    """The background scavenger's goals and means; sizes in bytes, None for a goal that asks for nothing now."""

    percent_goal: int | None  # of retained heap (in use and free); set by each collection from GOGC
    limit_goal: int | None  # of all that the runtime has mapped and not released: 95 % of GOMEMLIMIT
    last_heap_in_use: int | None  # HeapInuse at the end of the last collection, and the heap goal that it had:
    last_heap_goal: int | None  # what the percent goal is computed from, also where it then asks for nothing
    eligible: int  # free pages of chunks that the background scavenger would take from now
    parked: bool | None
    bytes_per_second_of_work: float | None  # what it returned since the start, by the time that took it


class Pace(Struct, frozen=True):
    """The collector's and the scavenger's pace at the moment of a look; times in seconds before it."""

    cycles: int  # of the last `seconds`
    seconds: float | None  # None: no collection yet
    last_mark: float | None  # how long the last cycle marked, or the one under way so far
    since_last_cycle: float | None
    cpu_share: float | None  # of the collector in all CPU time since the start (MemStats.GCCPUFraction)
    procs: int
    limiter: Limiter | None = None
    scavenging: Scavenging | None = None
    cpu: CpuClasses | None = None


def read_pace(
    memory: Memory,
    layout: Layout,
    addresses: Mapping[str, int],
    records: Mapping[str, Record],
    pages: HeapPages,
    procs: int,
) -> Pace:
    """Read the pace. `records`: mheap, mstats, pacer; `pages`: as of the same look. Raises TargetGone only."""
    memstats, now = records["mstats"], time.monotonic_ns() + _ahead(memory)
    cycles, seconds = _recent_cycles(memstats, now)
    ended = _number(memstats, "last_gc_nanotime")
    return Pace(
        cycles=cycles,
        seconds=seconds,
        last_mark=_last_mark(memory, layout, addresses, now),
        since_last_cycle=(now - ended) / 1e9 if ended and 0 < ended <= now else None,
        cpu_share=_share(memstats, "gc_cpu_fraction"),
        procs=procs,
        limiter=_limiter(memory, layout, addresses),
        scavenging=_scavenging(memory, layout, addresses, records, pages),
        cpu=_cpu_classes(memory, layout, addresses),
    )


def _ahead(memory: Memory) -> int:
    """Return how far the runtime's clock is ahead of ours, ns: it may be in another time namespace."""
    return offset_of(memory.pid) - own_offset() if isinstance(memory, ProcessMemory) else 0


def _number(record: Record, field: str) -> int | None:
    return record.number(field) if record.has(field) else None


def _share(record: Record, field: str) -> float | None:
    if not record.has(field):
        return None
    (value,) = struct.unpack("<d", record.bytes_at(record.layout.offset(record.struct, field), 8))
    return value if 0 <= value <= 1 else None


def _recent_cycles(memstats: Record, clock: int) -> tuple[int, float | None]:
    """Count the cycles of the last seconds by the ends of their last pauses, of which memstats keeps 256.

    `clock`: the runtime's monotonic clock now, ns. The ends are by the time of day, which somebody may have set since:
    what it was then is told by the last cycle, whose end is there by both clocks. When it was put back, the cycles
    before that are later than those after it, and are left out.
    """
    count, last = memstats.number("numgc"), _number(memstats, "last_gc_nanotime")
    if not count or not memstats.has("pause_end"):
        return 0, None
    spot = memstats.layout.field("mstats", "pause_end")
    ring = np.frombuffer(memstats.bytes_at(spot.offset, spot.size), "<u8").astype(np.float64)
    ends = ring[np.arange(count - 1, count - 1 - min(count, ring.size), -1) % ring.size]  # the newest first
    set_back = np.flatnonzero(np.diff(ends) > 0)
    ends = ends[: set_back[0] + 1] if set_back.size else ends
    now = float(ends[0]) + (clock - last) if last and last <= clock else float(time.time_ns())
    known = ends[(ends > 0) & (ends <= now)]
    recent = known[known > now - RECENT]
    if not len(recent):
        return 0, RECENT / 1e9
    if len(known) == len(recent):  # all that are known: of a young process, or of one with very many
        return len(recent), max((now - float(recent.min())) / 1e9, 1e-3)
    return len(recent), RECENT / 1e9


def _last_mark(memory: Memory, layout: Layout, addresses: Mapping[str, int], now: int) -> float | None:
    if "work" not in addresses or not (layout.has("work", "tMark") and layout.has("work", "tMarkTerm")):
        return None
    began, ended = (
        int.from_bytes(memory.read(addresses["work"] + layout.offset("work", name), 8), "little")
        for name in ("tMark", "tMarkTerm")
    )
    if not 0 < began <= now or ended > now:
        return None
    return ((ended if ended >= began else now) - began) / 1e9


def _limiter(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> Limiter | None:
    name = "gcCPULimiterState"
    if "gcCPULimiter" not in addresses or not layout.has_struct(name) or not layout.has(name, "bucket.fill"):
        return None
    record = Record(layout, name, addresses["gcCPULimiter"], memory.read(addresses["gcCPULimiter"], layout.size(name)))
    fill, capacity = record.number("bucket.fill"), record.number("bucket.capacity")
    return Limiter(
        limiting=bool(record.number("enabled") & 0xFF),
        fill=fill / capacity if capacity > 0 and fill <= capacity else None,
        last_cycle=record.number("lastEnabledCycle"),
        assist_pool=record.number("assistTimePool", signed=True) / 1e9 if record.has("assistTimePool") else None,
    )


# The fields of cpuStats, whose names begin with small letters or, later, with large ones: those of CpuClasses in order,
# and those that the runtime makes of them (cpuStats.accumulate in runtime/mstats.go), by which they are checked.
_CPU_CLASSES: Final = (
    "gcAssistTime", "gcDedicatedTime", "gcIdleTime", "gcPauseTime", "scavengeTotalTime", "totalTime",
)  # fmt: skip
_CPU_SUMS: Final = ("gcTotalTime", "idleTime", "userTime")


def _cpu_classes(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> CpuClasses | None:
    """Return None where the release has none, and where the figures do not add up: they are not what they seem."""
    offsets = [_cpu_class(layout, name) for name in (*_CPU_CLASSES, *_CPU_SUMS)]
    if "work" not in addresses or None in offsets:
        return None
    base = addresses["work"]
    *collecting, scavenge, total, collected, idle, user = [
        int.from_bytes(memory.read(base + offset, 8), "little", signed=True) for offset in offsets if offset is not None
    ]
    if sum(collecting) != collected or total - collected - scavenge - idle != user or min(*collecting, scavenge) < 0:
        return None
    return CpuClasses(*(one / 1e9 for one in (*collecting, scavenge, total)))


def _cpu_class(layout: Layout, name: str) -> int | None:
    large = f"{name[:2].upper()}{name[2:]}" if name.startswith("gc") else f"{name[0].upper()}{name[1:]}"
    known = next((one for one in (name, large) if layout.has("workType", f"cpuStats.{one}")), None)
    return layout.offset("workType", f"cpuStats.{known}") if known is not None else None


def _scavenging(
    memory: Memory, layout: Layout, addresses: Mapping[str, int], records: Mapping[str, Record], pages: HeapPages
) -> Scavenging | None:
    if "scavenge" not in addresses or not layout.has("scavenge", "memoryLimitGoal"):
        return None
    goals = [
        int.from_bytes(memory.read(addresses["scavenge"] + layout.offset("scavenge", name), 8), "little")
        for name in ("gcPercentGoal", "memoryLimitGoal")
    ]
    percent, limit = (None if goal >= _NONE >> 1 else goal for goal in goals)
    try:
        eligible = _eligible(memory, layout, records["mheap"], pages)
    except SnapshotError:
        return None
    return Scavenging(
        percent_goal=percent,
        limit_goal=limit,
        last_heap_in_use=_number(records["mstats"], "lastHeapInUse"),
        last_heap_goal=_number(records["pacer"], "lastHeapGoal"),
        eligible=eligible,
        parked=_parked(memory, layout, addresses),
        bytes_per_second_of_work=_rate(memory, layout, addresses, records["mheap"]),
    )


def _parked(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> bool | None:
    if "scavenger" not in addresses or not layout.has("scavengerState", "parked"):
        return None
    return memory.read(addresses["scavenger"] + layout.offset("scavengerState", "parked"), 1) != b"\0"


def _rate(memory: Memory, layout: Layout, addresses: Mapping[str, int], mheap: Record) -> float | None:
    """Return bytes by second of its own work: released by it, and the time that the last cycles and since then add up.

    GODEBUG=scavtrace=1 sets the first back at each collection: then less is known to be released than was.
    """
    released = "pages.scav.releasedBg"
    names = [f"cpuStats.{name}" for name in ("ScavengeBgTime", "scavengeBgTime")]
    spent = next((name for name in names if layout.has("workType", name)), None)
    if spent is None or "work" not in addresses or not mheap.has(released):
        return None
    since = memory.read(addresses["scavenge"] + layout.offset("scavenge", "backgroundTime"), 8)
    before = memory.read(addresses["work"] + layout.offset("workType", spent), 8)
    worked = int.from_bytes(before, "little", signed=True) + int.from_bytes(since, "little", signed=True)
    return mheap.number(released) / (worked / 1e9) if worked > 0 and mheap.number(released) else None


def _eligible(memory: Memory, layout: Layout, mheap: Record, pages: HeapPages) -> int:
    """Return the bytes of free pages that the background scavenger would take from (scavChunkData.shouldScavenge).

    From Go 1.21 on it leaves chunks alone that are nearly full, or were in this GC cycle or the last, and what was
    freed since the last collection at addresses that it has passed (searchAddrBg, which nextGen alone raises).
    """
    free = np.count_nonzero(pages.state.reshape(-1, CHUNK_PAGES) == PageState.FREE, axis=1)
    if not layout.has_struct("scavChunkData") or not mheap.has("pages.scav.index.gen") or not free.size:
        return int(free.sum()) * PAGE
    table = mheap.slice("pages.scav.index.chunks")
    index = (pages.chunk_base - np.uint64(layout.constant("arena_base_offset"))) // np.uint64(CHUNK_BYTES)
    if int(index.max()) >= table.capacity:
        raise SnapshotError("the scavenger's index has no place for a chunk of the heap")
    data = _chunk_data(memory, table.address, index)
    cursor = abs(mheap.number("pages.scav.index.searchAddrBg", signed=True)) // CHUNK_BYTES
    in_use, last = data & np.uint64(0xFFFF), data >> np.uint64(16)
    bits = layout.constant("log_scav_chunk_in_use_max")
    has_free = last >> np.uint64(bits) & np.uint64(layout.constant("scav_chunk_has_free"))
    last &= np.uint64((1 << bits) - 1)
    current = data >> np.uint64(32) == mheap.number("pages.scav.index.gen")
    taken = (index <= cursor) & (has_free > 0) & (in_use < _DENSE_PAGES) & (~current | (last < _DENSE_PAGES))
    return int(free[taken].sum()) * PAGE


def _chunk_data(memory: Memory, table: int, index: Words) -> Words:
    """Read scavengeIndex.chunks at the ascending places `index`: packed scavChunkData, shape (n,)."""
    first = np.concatenate(([0], np.flatnonzero(np.diff(index) != 1) + 1, [index.size]))
    parts = [read_words(memory, table + 8 * int(index[begin]), end - begin) for begin, end in pairwise(first.tolist())]
    return np.concatenate(parts)
