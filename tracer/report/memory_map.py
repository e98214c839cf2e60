"""The memory map of one look: every mapped byte by what it is for, every heap page, every span. Plain data, as columns.

Its sums are those of the report of the same look: residents of areas and arenas to `resident.total`, spans to `spans`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Final

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from gomem.tracer.report.goroutines import GoroutineReport
from gomem.tracer.report.profile import Profile

PAGE: Final = 8192  # bytes of a page of the Go heap
HALF: Final = PAGE // 2  # what residency is told for

Addresses = NDArray[np.uint64]


class PageUse(IntEnum):
    """What the runtime says of a heap page: bits 0 to 2 of MemoryMap.pages."""

    IN_USE = 0
    STACK = 1
    WORK_BUF = 2
    FREE = 3
    SCAVENGED = 4
    NOT_GROWN = 5


class PageBits(IntFlag):
    """What the kernel says of a heap page: the other bits of MemoryMap.pages; of its first and its second 4 KiB."""

    FIRST_RESIDENT = 8
    SECOND_RESIDENT = 16
    FIRST_SWAPPED = 32
    SECOND_SWAPPED = 64
    HUGE = 128  # a part of it is mapped by a huge page


class Areas(Struct, frozen=True):
    """What is mapped outside the heap's arenas, by address; bytes, each column of shape (n,).

    `kind` is an index into KINDS, `state` as tracer/addresses/region_states.py numbers them, 0 for not the runtime's.
    `name` is an index into `names`: what the runtime has it for, or what is mapped.
    """

    start: Addresses
    size: Addresses
    kind: NDArray[np.uint8]
    state: NDArray[np.uint8]
    access: NDArray[np.uint8]  # 1 readable, 2 writable, 4 executable, 8 shared
    resident: Addresses
    swap: Addresses
    huge: Addresses  # of `resident`, mapped by huge pages
    name: NDArray[np.uint32]
    names: Sequence[str]


class Arenas(Struct, frozen=True):
    """The heap's arenas by address; bytes, shape (n,). The pages of one follow those of the arena before."""

    base: Addresses
    size: Addresses
    resident: Addresses
    swap: Addresses


class MapSpans(Struct, frozen=True):
    """The spans that are in use or managed by hand, by address; shape (n,).

    `first` is the index of a span's first page among `MemoryMap.pages`. `type` is an index into `types`, 0: not known.
    `slots` has a bit for each slot of the spans of `slots_known`, 1 where it holds an object; each span begins with a
    byte of its own, its first slot in bit 0. Of spans that are empty or full it has none; nor of any if none was read.
    """

    first: NDArray[np.uint32]
    pages: NDArray[np.uint32]
    span_class: NDArray[np.uint8]
    manual: NDArray[np.uint8]  # 1: a stack or a buffer of the collector
    capacity: NDArray[np.uint32]
    objects: NDArray[np.uint32]
    object_size: NDArray[np.float64]
    type: NDArray[np.uint32]
    types: Sequence[str]
    slots_known: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    slots: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))


class MemoryMap(Struct, frozen=True):
    """One look. `pages`: PageUse and PageBits of each heap page of all arenas, shape (pages,).

    `page_residency`: whether the kernel told which pages are in RAM; else only the sums of areas and arenas are known.
    `pages_left_out`: pages of arenas of which nothing is told one by one, as there are too many.
    `spans_outside`: spans that lie in no arena, as a look at a heap that moves may find.
    """

    taken_at: str
    areas: Areas
    arenas: Arenas
    pages: NDArray[np.uint8]
    spans: MapSpans
    page_residency: bool
    pages_left_out: int = 0
    spans_outside: int = 0


class HeldBytes(Struct, frozen=True):
    """Bytes in RAM of one holder, by its path from the whole.

    `estimated`: by counts of slots or samples, within what is counted by page.
    """

    path: tuple[str, ...]
    resident: int
    estimated: bool = False


class Moment(Struct, frozen=True):
    """The map of a look that was done `seconds` after the beginning."""

    seconds: float
    map: MemoryMap


class CoursePoint(Struct, frozen=True):
    """The main figures of one moment in bytes, as the report has them; None: not known, or not looked at then."""

    rss: int
    reserved: int | None = None
    prepared: int | None = None
    ready: int | None = None
    in_use: int | None = None
    live: int | None = None
    threads: int | None = None


class Picture(Struct, frozen=True):
    """What a page shows beside the report: maps in the order of time, the last one of the report's own look.

    `holders` sum to its `resident.total`. `course`: seconds since the beginning, and the figures of a look then.
    """

    moments: Sequence[Moment] = ()
    holders: Sequence[HeldBytes] = ()
    goroutines: GoroutineReport | None = None
    course: Sequence[tuple[float, CoursePoint]] = ()
    profile: Profile | None = None  # of the heap, where the program keeps one
