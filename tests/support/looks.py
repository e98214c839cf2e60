"""A look at a small Go process that never was: every part of it is filled, and all of it fits together."""

from __future__ import annotations

import numpy as np
from msgspec.structs import force_setattr

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.kernel.cgroup import MemoryCgroup
from gomem.tracer.kernel.mapping_kinds import Program
from gomem.tracer.kernel.maps import Mappings, parse_maps
from gomem.tracer.kernel.residency import Page, Residency
from gomem.tracer.kernel.smaps import parse_rollup
from gomem.tracer.kernel.view import KernelView
from gomem.tracer.proc.small_files import parse_status
from gomem.tracer.report import Cgroup, Limit, ProcessFacts
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.runtime.spans import MANUAL
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.snapshot.join import join
from tests.support.runtime_image import ARENA, CHUNK, PAGE, RuntimeImage

ARENA_BYTES = 64 << 20
OS_PAGE = 4096
BINARY = 0x400000
SCAVENGED = range(20, 25)  # pages of the first chunk
MAPS = f"""\
{BINARY:08x}-{BINARY + 0x100000:08x} r-xp 00000000 08:01 77                 /srv/program
{ARENA:x}-{ARENA + CHUNK:x} rw-p 00000000 00:00 0
{ARENA + CHUNK:x}-{ARENA + ARENA_BYTES:x} ---p 00000000 00:00 0
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
"""
RESIDENT = ((BINARY, 0x40000), (ARENA, 20 * PAGE), (0x7F0000000000, 0x8000), (0x7FFC00000000 + 0x1F000, 0x2000))


def runtime() -> RuntimeSnapshot:
    """Return a runtime with one chunk: 3 pages in use, a stack of 4, a work buffer of 4, 2 cached, 5 scavenged."""
    image = RuntimeImage("1.27.3")
    image.arenas(ARENA)
    image.grow(ARENA, [range(13)], [SCAVENGED])
    cached = image.span(ARENA, 1, objects=5, before=2)
    image.span(ARENA + PAGE, 2, span_class=1, size=2 * PAGE, capacity=1, objects=1)
    image.span(ARENA + 3 * PAGE, 4, MANUAL, 0, 0, 0)
    work = image.span(ARENA + 7 * PAGE, 4, MANUAL, 0, 0, 0)
    image.image.words(image.globals["work"] + image.layout.offset("work", "wbufSpans.busy.first"), work)
    image.p(cached, cache=(ARENA, 3 << 11, 0), tiny=1)
    free = (512 - 11 - len(SCAVENGED)) * PAGE
    manual = {"inStacks": 4 * PAGE, "inWorkBufs": 4 * PAGE}
    image.delta(0, committed=11 * PAGE + free, inHeap=3 * PAGE, released=len(SCAVENGED) * PAGE, **manual)
    image.delta(1, largeAlloc=2 * PAGE, largeAllocCount=1)
    image.controller(gcPercent=100, heapMarked=1234, mappedReady=CHUNK - len(SCAVENGED) * PAGE)
    return image.finish().reader().snapshot()


def mappings() -> Mappings:
    """Return the mappings."""
    return parse_maps(MAPS.encode())


def residency() -> Residency:
    """Return what is in RAM."""
    start = np.array([base for base, _ in RESIDENT], np.uint64)
    size = np.array([size for _, size in RESIDENT], np.uint64)
    flags = np.full(len(start), Page.PRESENT, np.uint8)
    zero = np.zeros(len(start), np.uint64)
    return Residency(Ranges(start, start + size), flags, size, zero, "pagemap_scan", True)


def look(taken_at: str = "2026-03-01T12:00:00.000Z", at: int = 1_000_000_000) -> Snapshot:
    """Return the look, taken at a moment of both clocks."""
    maps, resident, state = mappings(), residency(), runtime()
    group = MemoryCgroup(Cgroup("/srv", 1 << 20, None, None, 0), 2, "/srv", 1 << 30, "/")
    kernel = KernelView(
        taken_at=taken_at,
        mappings=maps,
        residency=resident,
        rollup=parse_rollup(f"Rss: {resident.rss_bytes // 1024} kB\nAnonymous: 128 kB\nSwap: 0 kB\n".encode()),
        status=parse_status(b"Tgid: 4711\nThreads: 5\nNSpid: 4711 1\nVmSize: 100 kB\nRssShmem: 0 kB\nCapEff: 00ff\n"),
        cgroup=group,
        vm_size=maps.virtual_bytes,
        virtual_skew=0,
        resident_skew=0,
        attempts=1,
        limits=[],
        mappings_read=(at - 100_000, at),
    )
    force_setattr(state, "read_at", (at - 200_000, at - 150_000))
    place = Program(int(maps.device[0]), 77, ((BINARY, BINARY + 0x100000),))
    return Snapshot(
        kernel, state, join(maps, resident, state, place), (Limit("some-limit", "a thing", "a reason", ""),)
    )


def facts() -> ProcessFacts:
    """Return who the process is."""
    return ProcessFacts(4711, 1, "2026-03-01T11:59:00Z", "/srv/program", ["program", "-v"], "go1.27.3", "amd64")
